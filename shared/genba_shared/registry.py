"""Versions of models and which of them serves: register, promote, roll back, history, retention.

    train → register → gates ──pass──► champion moves        rollback: champion moves back to the version before it
                          └───miss──► registered, not promoted     challenger: a second alias, for A/B

An alias is one row. It moves by a compare-and-swap on its generation, in one transaction with its history and its audit
entry: who loses a race changes nothing and gets a VersionConflict. Models belong to the installation, not to a tenant;
a version carries the label of the job that made it, and ``viewer`` is who asks (None: the platform itself).
Knows no service and no HTTP; bytes are the business of bundles.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, func, insert, select, true, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from genba_shared import bundles
from genba_shared.artifacts import Artifacts
from genba_shared.audit import append_in
from genba_shared.bundles import Stored
from genba_shared.db import Database
from genba_shared.gates import judge
from genba_shared.job_rows import database_now
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import Conflict, GateNotMet, Gone, NotFound, Unavailable, VersionConflict
from genba_shared.recipe import Champion, Registration
from genba_shared.registry_rows import (
    ALIASES,
    Alias,
    AliasRow,
    GateResult,
    Lineage,
    ModelFigures,
    ModelRow,
    Move,
    MoveKind,
    MoveRow,
    Outcome,
    Pointer,
    Status,
    Version,
    VersionRow,
    move_of,
    pointer_of,
    version_of,
)
from genba_shared.telemetry import get_logger

__all__ = [
    "ALIASES",
    "Alias",
    "GateResult",
    "Lineage",
    "ModelFigures",
    "Move",
    "Outcome",
    "Pointer",
    "Registry",
    "Status",
    "Version",
]

log = get_logger(__name__)

NOT_ASKED: Literal["not_asked"] = "not_asked"


class Registry:
    """The models of one installation. Cheap to make; holds the database and the artifact store and nothing else."""

    def __init__(self, database: Database, artifacts: Artifacts) -> None:
        self.database, self.artifacts = database, artifacts

    # ---- registering ----

    def store(self, registration: Registration) -> Stored:
        """Put the bundle into the store, before the transaction that registers it.

        Until then nobody points to these bytes. Raises: BadBundle.
        """
        return bundles.store(registration.bundle, self._bytes(registration.model))

    def register(
        self,
        session: Session,
        registration: Registration,
        *,
        job_id: str | None,
        by: str,
        stored: Stored | None = None,
        compared: Champion | Literal["not_asked"] | None = NOT_ASKED,
        principal: Principal | None = None,
    ) -> Version:
        """Make the bundle a version in the caller's transaction, judge its gates, and promote it if it may be.

        ``compared`` is the champion that it was evaluated against: if another one serves now, nothing is promoted.
        ``principal`` gives the version its label, and must hold ``models:write`` for a promotion.

        Raises: BadBundle; Unavailable when retention took bytes of this bundle since they were stored: try again.
        """
        stored = self.store(registration) if stored is None else stored
        number = _next_number(session, registration.model)
        now = database_now(session)  # now that the model's row is held: history is in the order of the moves
        self._check_stored(registration.model, stored)
        champion = _pointer(session, registration.model, "champion", lock=True)
        against = champion.number if compared == NOT_ASKED else None if compared is None else compared.number
        gates = judge(registration, against)
        outcome: Outcome = (
            "gate_failed" if not all(gate.passed for gate in gates)
            else "not_asked" if registration.promote == "never"
            else "not_allowed" if principal is not None and not principal.allows("models:write")
            else "champion_changed" if against != champion.number
            else "promoted"
        )  # fmt: skip
        row = VersionRow(
            model=registration.model,
            number=number,
            status="gate_failed" if outcome == "gate_failed" else "registered",
            outcome=outcome,
            files=dict(stored.files),
            size_bytes=stored.size_bytes,
            metrics={name: _finite(value) for name, value in registration.metrics.items()},
            gates=[asdict(gate) for gate in gates],
            job_id=job_id,
            data_hash=registration.data_hash,
            code_commit=stored.code_commit,
            parent=against,
            clearance=int(Clearance.INTERNAL if principal is None else principal.clearance),
            compartments=_compartments_text(() if principal is None else principal.compartments),
            created_by=by,
            created_at=now,
        )
        session.add(row)
        session.flush()
        if outcome == "promoted":
            reason = f"passed {len(gates)} gates" if gates else "registered without gates"
            _move(session, registration.model, champion, number, kind="promote", by=by, reason=reason, now=now)
        return version_of(row)

    # ---- moving aliases ----

    def promote(
        self,
        model: str,
        number: int,
        *,
        alias: Alias = "champion",
        by: str,
        reason: str,
        generation: int | None = None,
        gates: Literal["must_pass", "overridden"] = "must_pass",
        viewer: Principal | None = None,
    ) -> Pointer:
        """Point ``alias`` at a version. Pointing it where it points changes nothing.

        ``generation`` is the alias's as the caller saw it; without one, as it is now.

        Raises: NotFound; Gone for a retired version; GateNotMet unless overridden; VersionConflict when the alias moved.
        """
        seen = self.pointer(model, alias, viewer=viewer)
        _check_generation(seen, generation)
        version = self.get(model, number, viewer=viewer)
        if version.status == "retired":
            raise Gone(f"Version {number} of {model} is retired: its files are deleted.")
        if version.status == "gate_failed" and gates == "must_pass":
            missed = [gate.reason for gate in version.gates if not gate.passed]
            raise GateNotMet(f"Version {number} of {model} missed a gate: {' '.join(missed)}", gates=[*missed])
        if seen.number == number:
            return seen
        with self.database.transaction() as session:
            now = database_now(session)
            return _move(session, model, seen, number, kind="promote", by=by, reason=reason, now=now)

    def rollback(
        self, model: str, *, by: str, reason: str, generation: int | None = None, viewer: Principal | None = None
    ) -> Pointer:
        """Move the champion back to the one before it that still has its files. Promoting again starts from there.

        Raises: NotFound; Conflict when there is none before it; VersionConflict when the champion moved.
        """
        with self.database.read() as session:
            seen = _pointer(session, model, "champion")
            _check_generation(seen, generation)
            back = _before(session, model, seen)
        if back is None or back.to_number is None:
            raise Conflict(f"{model} has no champion before this one to go back to.")
        for number in (seen.number, back.to_number):
            if number is not None:
                self.get(model, number, viewer=viewer)
        with self.database.transaction() as session:
            now = database_now(session)
            return _move(
                session, model, seen, back.to_number, kind="rollback", by=by, reason=reason, now=now, below=back.below
            )

    def clear(
        self,
        model: str,
        alias: Alias,
        *,
        by: str,
        reason: str,
        generation: int | None = None,
        viewer: Principal | None = None,
    ) -> Pointer:
        """Point ``alias`` at nothing. Raises: NotFound; VersionConflict when it moved."""
        seen = self.pointer(model, alias, viewer=viewer)
        _check_generation(seen, generation)
        if seen.number is None:
            return seen
        self.get(model, seen.number, viewer=viewer)
        with self.database.transaction() as session:
            now = database_now(session)
            return _move(session, model, seen, None, kind="clear", by=by, reason=reason, now=now)

    # ---- looking ----

    def current(self, model: str, alias: Alias = "champion") -> Version | None:
        """The version that ``alias`` points to; None if it points nowhere, or if nobody has registered the model."""
        with self.database.read() as session:
            row = session.scalar(
                select(VersionRow)
                .join(AliasRow, and_(AliasRow.model == VersionRow.model, AliasRow.number == VersionRow.number))
                .where(AliasRow.model == model, AliasRow.alias == alias)
            )
            return None if row is None else version_of(row)

    def peek(self, model: str, alias: Alias = "champion") -> tuple[int | None, int]:
        """(number, generation) of an alias by one look at one row, for those who poll; (None, 0) for no such model."""
        with self.database.read() as session:
            query = select(AliasRow.number, AliasRow.generation)
            found = session.execute(query.where(AliasRow.model == model, AliasRow.alias == alias)).first()
            return (None, 0) if found is None else (found.number, found.generation)

    def get(self, model: str, number: int, *, viewer: Principal | None = None) -> Version:
        """Raises: NotFound, also for a version that the viewer may not see."""
        with self.database.read() as session:
            row = session.scalar(
                select(VersionRow).where(VersionRow.model == model, VersionRow.number == number, _visible(viewer))
            )
            if row is None:
                raise NotFound(f"There is no version {number} of {model}.")
            return version_of(row)

    def versions(
        self, model: str, *, before: int | None = None, limit: int = 50, viewer: Principal | None = None
    ) -> Sequence[Version]:
        """Newest first; ``before`` is the last number of the page before."""
        query = select(VersionRow).where(VersionRow.model == model, _visible(viewer))
        if before is not None:
            query = query.where(VersionRow.number < before)
        with self.database.read() as session:
            return [version_of(row) for row in session.scalars(query.order_by(VersionRow.number.desc()).limit(limit))]

    def models(self, *, viewer: Principal | None = None) -> Sequence[str]:
        """The names of models of which the viewer may see a version."""
        with self.database.read() as session:
            query = select(VersionRow.model).where(_visible(viewer)).distinct().order_by(VersionRow.model)
            return list(session.scalars(query))

    def pointer(self, model: str, alias: Alias = "champion", *, viewer: Principal | None = None) -> Pointer:
        """Where ``alias`` points. Raises: NotFound for a model that nobody has registered or the viewer may not see."""
        with self.database.read() as session:
            _check_model(session, model, viewer)
            return _pointer(session, model, alias)

    def previous(self, model: str) -> int | None:
        """The version that a rollback would go back to."""
        with self.database.read() as session:
            found = _before(session, model, _pointer(session, model, "champion"))
            return None if found is None else found.to_number

    def history(
        self,
        model: str,
        *,
        alias: Alias | None = None,
        limit: int = 100,
        viewer: Principal | None = None,
    ) -> Sequence[Move]:
        """The moves of a model's aliases, newest first; without those that touch a version the viewer may not see.

        Raises: NotFound.
        """
        hidden = aliased(VersionRow)
        touches_hidden = (
            select(hidden.number)
            .where(hidden.model == MoveRow.model, hidden.number.in_((MoveRow.from_number, MoveRow.to_number)))
            .where(~_visible(viewer, hidden))
            .exists()
        )
        query = select(MoveRow).where(MoveRow.model == model, ~touches_hidden)
        if alias is not None:
            query = query.where(MoveRow.alias == alias)
        with self.database.read() as session:
            _check_model(session, model, viewer)
            newest = query.order_by(MoveRow.at.desc(), MoveRow.generation.desc(), MoveRow.alias).limit(limit)
            return [move_of(row) for row in session.scalars(newest)]

    def fetch(self, version: Version, into: Path) -> Path:
        """The version's bundle as a folder below ``into``: whole and checked against its hashes, or not there.

        Raises: Gone for a retired version; NotFound or OSError when the store lost or changed bytes.
        """
        if version.status == "retired":
            raise Gone(f"Version {version.number} of {version.model} is retired: its files are deleted.")
        name = f"{version.number:06d}-{bundles.fingerprint(version.files)[:16]}"
        return bundles.fetch(version.files, self._bytes(version.model), into / version.model / name)

    # ---- retention ----

    def retain(self, model: str, *, keep: int) -> list[int]:
        """Retire all but the newest ``keep`` versions, those that an alias points to and the one to roll back to.

        A retired version keeps its row: metrics, gates, lineage, hashes. Its files go, unless another version needs them.
        """
        with self.database.transaction() as session:
            _hold(session, model)
            pointers = [pointer_of(row) for row in session.scalars(_aliases(model).with_for_update())]
            kept = {pointer.number for pointer in pointers}
            champion = next((pointer for pointer in pointers if pointer.alias == "champion"), None)
            if champion is not None and (back := _before(session, model, champion)) is not None:
                kept.add(back.to_number)
            alive = select(VersionRow).where(VersionRow.model == model, VersionRow.status != "retired")
            older = session.scalars(alive.order_by(VersionRow.number.desc()).offset(keep))
            gone = [version for version in older if version.number not in kept]
            for version in gone:
                version.status = "retired"
        self._delete_files(model)
        return sorted(version.number for version in gone)

    def _delete_files(self, model: str) -> None:
        """Delete what only retired versions refer to; ``size_bytes`` says whose files are still there.

        The model's row is held meanwhile: nobody registers a version on bytes that are just being deleted.
        """
        with self.database.transaction() as session:
            _hold(session, model)
            rows = session.scalars(select(VersionRow).where(VersionRow.model == model, VersionRow.size_bytes > 0)).all()
            retired = [row for row in rows if row.status == "retired"]
            needed = {key for row in rows if row.status != "retired" for key in row.files.values()}
            for key in sorted({key for row in retired for key in row.files.values()} - needed):
                self._bytes(model).delete(key)
            for row in retired:
                row.size_bytes = 0

    def retain_all(self, *, keep: int) -> None:
        """``retain`` for every model; one that fails does not keep the others."""
        for model in self.models():
            try:
                if retired := self.retain(model, keep=keep):
                    log.info("versions_retired", model=model, versions=retired)
            except Exception:
                log.exception("retention_failed", model=model)

    def figures(self) -> ModelFigures:
        """What operators watch."""
        version, alias, move = VersionRow, AliasRow, MoveRow
        pointing = select(alias.model, alias.alias, alias.number).where(alias.number.is_not(None))
        with self.database.read() as session:
            return ModelFigures(
                versions=_counted(session, version.model, version.status),
                aliases={(row.model, row.alias): row.number or 0 for row in session.execute(pointing)},
                moves=_counted(session, move.model, move.alias, move.kind),
            )

    def _bytes(self, model: str) -> Artifacts:
        """A store of the model's own: what its versions do not need, nobody else does."""
        return self.artifacts.below(f"models/{model}")

    def _check_stored(self, model: str, stored: Stored) -> None:
        """The model's row is held: from here on retention cannot take what is there now."""
        bytes_of_model = self._bytes(model)
        missing = [name for name, key in stored.files.items() if not bytes_of_model.exists(key)]
        if missing:
            raise Unavailable(f"The store has lost {', '.join(missing)} since the bundle was stored.", retry_after_s=1)


def _next_number(session: Session, model: str) -> int:
    """The model's next number; holds the model's row until the transaction ends. Makes the model if it is new."""
    now = database_now(session)
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    made = {"name": model, "last_number": 0, "created_at": now}
    session.execute(dialect.insert(ModelRow).values(made).on_conflict_do_nothing())
    held = update(ModelRow).where(ModelRow.name == model).values(last_number=ModelRow.last_number + 1)
    number = session.scalars(held.returning(ModelRow.last_number)).one()
    rows = [{"model": model, "alias": alias, "number": None, "generation": 0, "moved_at": now} for alias in ALIASES]
    session.execute(dialect.insert(AliasRow).values(rows).on_conflict_do_nothing())
    return number


def _hold(session: Session, model: str) -> None:
    """Hold the model's row until the transaction ends, as whoever registers a version does."""
    session.execute(update(ModelRow).where(ModelRow.name == model).values(last_number=ModelRow.last_number))


def _move(
    session: Session,
    model: str,
    seen: Pointer,
    number: int | None,
    *,
    kind: MoveKind,
    by: str,
    reason: str,
    now: datetime,
    below: int | Literal["the move before"] | None = "the move before",
) -> Pointer:
    """The one way an alias moves: compare-and-swap, its history and its audit entry. Raises: VersionConflict."""
    moved = session.execute(
        update(AliasRow)
        .where(AliasRow.model == model, AliasRow.alias == seen.alias, AliasRow.generation == seen.generation)
        .values(number=number, generation=seen.generation + 1, moved_at=now)
        .returning(AliasRow.generation),
        execution_options={"synchronize_session": False},
    ).first()
    if moved is None:
        raise _moved(seen)
    if number is not None:
        _check_not_retired(session, model, number)
    stands_on = (seen.generation or None) if below == "the move before" else below
    session.execute(
        insert(MoveRow).values(
            model=model,
            alias=seen.alias,
            generation=seen.generation + 1,
            kind=kind,
            from_number=seen.number,
            to_number=number,
            below=stands_on,
            by=by,
            reason=reason,
            at=now,
        )
    )
    append_in(
        session,
        f"model_{kind}",
        actor=by,
        subject=f"{model}/{seen.alias}",
        detail={"from": seen.number, "to": number, "generation": seen.generation + 1},
    )
    return Pointer(seen.alias, number, seen.generation + 1, now)


def _before(session: Session, model: str, pointer: Pointer) -> MoveRow | None:
    """The move that a rollback goes back to: down the stack to another version that still has its files."""
    top = session.get(MoveRow, (model, pointer.alias, pointer.generation))
    below = None if top is None else top.below
    while below is not None:
        row = session.get_one(MoveRow, (model, pointer.alias, below))
        if row.to_number not in {None, pointer.number}:
            status = session.scalar(
                select(VersionRow.status).where(VersionRow.model == model, VersionRow.number == row.to_number)
            )
            if status != "retired":
                return row
        below = row.below
    return None


def _aliases(model: str) -> Any:
    return select(AliasRow).where(AliasRow.model == model)


def _pointer(session: Session, model: str, alias: Alias, *, lock: bool = False) -> Pointer:
    query = _aliases(model).where(AliasRow.alias == alias).execution_options(populate_existing=True)
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(f"There is no model {model}.")
    return pointer_of(row)


def _check_model(session: Session, model: str, viewer: Principal | None) -> None:
    if session.scalar(select(VersionRow.number).where(VersionRow.model == model, _visible(viewer)).limit(1)) is None:
        raise NotFound(f"There is no model {model}.")


def _check_generation(seen: Pointer, generation: int | None) -> None:
    if generation is not None and seen.generation != generation:
        raise _moved(seen)


def _check_not_retired(session: Session, model: str, number: int) -> None:
    """Now that the alias's row is held: retention holds it while it decides, and keeps what an alias points to."""
    query = select(VersionRow.status).where(VersionRow.model == model, VersionRow.number == number)
    if session.scalar(query) in {None, "retired"}:
        raise Gone(f"Version {number} of {model} is retired: its files are deleted.")


def _moved(seen: Pointer) -> VersionConflict:
    return VersionConflict(
        f"The {seen.alias} moved in the meantime: look where it points now, and decide again.", alias=seen.alias
    )


def _visible(viewer: Principal | None, rows: Any = VersionRow) -> ColumnElement[bool]:
    """Never above the viewer's clearance and compartments; compartments are text like ",a,b,": see jobs.py."""
    if viewer is None:
        return true()
    left = rows.compartments
    for name in sorted(viewer.compartments):
        left = func.replace(left, f",{name},", ",")
    return and_(rows.clearance <= int(viewer.clearance), left == ",")


def _counted(session: Session, *labels: InstrumentedAttribute[str]) -> dict[tuple[str, ...], int]:
    rows = session.execute(select(func.count(), *labels).group_by(*labels)).all()
    return {tuple(found): int(count) for count, *found in rows}


def _compartments_text(names: Iterable[str]) -> str:
    return "".join(f",{name}" for name in sorted(names)) + ","


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
