"""Register procedures, revise them, attach golds: what happens between an author's document and the rows.

A revision keeps the golds whose spans still fit the new steps and leaves the others with the old version. Knows
nothing of HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from pydantic import BaseModel
from sqlalchemy.orm import Session

from genba_shared import records
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.principal import Principal
from genba_shared.problems import Conflict, EncoderMismatch, Invalid, NotFound, VersionConflict, fault
from genba_sop import reference, store
from genba_sop.authoring import AuthoredProcedure, AuthoredSpan, contradictions, gold_spans, invalid, parse
from genba_sop.bundles import unpack_features
from genba_sop.features import Features
from genba_sop.order import violations
from genba_sop.procedure import Procedure, Span
from genba_sop.rows import moments_s
from genba_sop.tables import Gold, ProcedureRow, Video

ENOUGH_GOLDS: Final = 3


@dataclass(frozen=True)
class Registered:
    """A procedure at one version, with its golds."""

    row: ProcedureRow
    version: int
    procedure: Procedure
    golds: tuple[Gold, ...]

    @property
    def advice(self) -> list[str]:
        """What would make its scores surer."""
        advice = []
        if not self.golds:
            advice.append("Attach a gold run: without one nothing can be scored.")
        elif len(self.golds) < ENOUGH_GOLDS:
            advice.append(
                f"{len(self.golds)} gold run(s): with {ENOUGH_GOLDS} to 5 the votes are surer and deviations get p-values."
            )
        if any(gold.spans_by == "proposed" for gold in self.golds):
            advice.append("Some golds have proposed step times: look at them and correct them.")
        return advice


@dataclass(frozen=True)
class Placed:
    """A gold whose steps have their places, ready to be written."""

    video_id: str
    spans: tuple[Span, ...]
    by: Literal["author", "proposed"]


class Procedures:
    """The procedures of one installation. Steps are proposed before the transaction that writes begins: that takes
    long.
    """

    def __init__(self, database: Database, artifacts: Artifacts) -> None:
        self._database = database
        self._artifacts = artifacts

    def place_all(
        self, principal: Principal, authored: AuthoredProcedure, *, revises: str | None = None
    ) -> list[Placed]:
        """The golds that a document names, and those that a revision keeps, each with its steps in place.

        Raises:  Invalid naming every contradicting field; NotFound for ``revises``.
        """
        if faults := contradictions(authored):
            raise invalid("The procedure contradicts itself", faults)
        procedure = parse(authored, procedure_id=revises or "new")
        asked = [(gold.video, gold.steps, f"golds[{index}]") for index, gold in enumerate(authored.golds)]
        with self._database.read() as session:
            kept: list[Placed] = []
            if revises is not None:
                row = records.get(session, ProcedureRow, revises, principal)
                named = {gold.video for gold in authored.golds}
                golds = store.golds_of(session, row.id, row.version)
                kept = [_placed(gold) for gold in golds if gold.video_id not in named and _fits(procedure, gold)]
            return self._place(session, principal, procedure, kept, asked)

    def place_one(
        self, principal: Principal, procedure_id: str, video_id: str, spans: Sequence[AuthoredSpan] | None
    ) -> tuple[int, Placed]:
        """One more gold for the current version, and which version that is.

        Raises:  NotFound; Invalid; EncoderMismatch with the golds that are there.
        """
        with self._database.read() as session:
            found = registered(session, records.get(session, ProcedureRow, procedure_id, principal))
            records.get(session, Video, video_id, principal)
            others = [_placed(gold) for gold in found.golds]
            return found.version, self._place(session, principal, found.procedure, others, [(video_id, spans, "")])[-1]

    def place_again(
        self, principal: Principal, procedure_id: str, gold_id: str, spans: Sequence[AuthoredSpan]
    ) -> tuple[int, Placed]:
        """Other spans for a gold of the current version, and which version that is. Raises as ``detach`` and ``place_one``."""
        with self._database.read() as session:
            video_id = _gold_of(session, records.get(session, ProcedureRow, procedure_id, principal), gold_id).video_id
        return self.place_one(principal, procedure_id, video_id, spans)

    def _place(
        self,
        session: Session,
        principal: Principal,
        procedure: Procedure,
        placed: Sequence[Placed],
        asked: Sequence[tuple[str, Sequence[AuthoredSpan] | None, str]],
    ) -> list[Placed]:
        done = list(placed)
        videos = {gold.video_id: records.get(session, Video, gold.video_id, principal) for gold in done}
        for video_id, spans, field in asked:
            dot = f"{field}." if field else ""
            try:
                video = records.get(session, Video, video_id, principal)
            except NotFound as err:
                raise Invalid(f"{dot}video: {err.detail}", errors=[fault(f"{dot}video", err.detail)]) from err
            if mismatched := sorted({other.encoder for other in videos.values()} - {video.encoder}):
                raise EncoderMismatch(
                    f"Video {video.id} was embedded by {video.encoder}, the golds by {mismatched[0]}: ingest it again.",
                    encoder=video.encoder,
                    expected=mismatched[0],
                )
            if spans is not None:
                seen_s = moments_s(self.features(video))
                found = gold_spans(procedure, spans, duration_s=video.duration_s, seen_s=seen_s, field=f"{dot}steps")
            else:
                found = self._propose(procedure, [(videos[gold.video_id], gold.spans) for gold in done], video)
            videos[video_id] = video
            done.append(Placed(video_id, found, "author" if spans is not None else "proposed"))
        return done

    def _propose(
        self, procedure: Procedure, others: Sequence[tuple[Video, tuple[Span, ...]]], video: Video
    ) -> tuple[Span, ...]:
        """Where the steps seem to lie: carried over from the golds that are there, else by change points."""
        golds = [reference.Gold(self.features(other), spans) for other, spans in others]
        try:
            fitted = reference.fit(procedure, [*golds, reference.Gold(self.features(video))])
        except ValueError as err:
            raise Invalid(f"No steps can be proposed: {err}", errors=[fault("steps", str(err))]) from err
        found = fitted.spans(len(golds))
        shown = {span.step_id for span in found}
        if absent := [step.id for step in procedure.steps if not step.optional and step.id not in shown]:
            message = f"not found in this video: {', '.join(absent)}; if they are there, write where"
            raise Invalid(f"No steps can be proposed: {message}.", errors=[fault("steps", message)])
        return found

    def features(self, video: Video) -> Features:
        """The stored features of a video."""
        with self._artifacts.open(video.features_key) as file:
            return unpack_features(file)


def register(
    session: Session,
    principal: Principal,
    authored: AuthoredProcedure,
    golds: Sequence[Placed],
    *,
    clearance: str | None,
) -> Registered:
    """A new procedure at version 1. Raises ClearanceTooLow, and Invalid for a gold more secret than the procedure."""
    label = records.label_for(principal, clearance)
    row = store.add_procedure(session, principal, _document(authored), clearance=label)
    attach_all(session, principal, row, golds)
    return registered(session, row)


def revise(
    session: Session,
    principal: Principal,
    procedure_id: str,
    authored: AuthoredProcedure,
    golds: Sequence[Placed],
    *,
    expected: int | None,
) -> Registered:
    """The next version, with ``golds``. Raises VersionConflict, also when golds have changed since they were placed; NotFound."""
    row = records.get(session, ProcedureRow, procedure_id, principal, lock=True)
    procedure = parse(authored, procedure_id=procedure_id)
    named = {gold.video for gold in authored.golds}
    there = [gold for gold in store.golds_of(session, row.id, row.version) if gold.video_id not in named]
    fitting = {(gold.video_id, spans_of(gold)) for gold in there if _fits(procedure, gold)}
    if fitting != {(gold.video_id, gold.spans) for gold in golds if gold.video_id not in named}:
        raise VersionConflict(
            f"The golds of procedure {procedure_id} have just changed; read it again, then change it."
        )
    row = store.new_version(session, principal, procedure_id, _document(authored), expected=expected)
    attach_all(session, principal, row, golds)
    return registered(session, row)


def attach(session: Session, principal: Principal, procedure_id: str, gold: Placed, *, version: int) -> Gold:
    """Make a placed video a gold of ``version``. Raises VersionConflict when that is not the current one any more."""
    row = records.get(session, ProcedureRow, procedure_id, principal, lock=True)
    if row.version != version:
        raise VersionConflict(f"Procedure {procedure_id} has just become version {row.version}; attach the gold again.")
    return attach_all(session, principal, row, [gold])[0]


def attach_all(session: Session, principal: Principal, row: ProcedureRow, golds: Sequence[Placed]) -> list[Gold]:
    """Write placed golds for the current version of ``row``."""
    store.drop_references(session, row.id)
    written = []
    for gold in golds:
        video = records.get(session, Video, gold.video_id, principal)
        written.append(store.add_gold(session, principal, row, video, _written(gold), spans_by=gold.by))
    return written


def correct(
    session: Session, principal: Principal, procedure_id: str, gold_id: str, gold: Placed, *, version: int
) -> Gold:
    """Keep other spans for a gold of ``version``. Raises VersionConflict when that is not the current one any more."""
    row = records.get(session, ProcedureRow, procedure_id, principal, lock=True)
    if row.version != version:
        raise VersionConflict(
            f"Procedure {procedure_id} has just become version {row.version}; look at its golds again."
        )
    found = _gold_of(session, row, gold_id)
    found.spans, found.spans_by = _written(gold), gold.by
    store.drop_references(session, row.id)
    session.flush()
    return found


def detach(session: Session, principal: Principal, procedure_id: str, gold_id: str) -> None:
    """Take a gold away from the current version. Raises NotFound; Conflict for a gold of an older version."""
    row = records.get(session, ProcedureRow, procedure_id, principal, lock=True)
    session.delete(_gold_of(session, row, gold_id))
    store.drop_references(session, row.id)
    session.flush()


def _gold_of(session: Session, row: ProcedureRow, gold_id: str) -> Gold:
    gold = session.get(Gold, gold_id)
    if gold is None or gold.procedure_id != row.id:
        raise NotFound(f"Procedure {row.id} has no gold {gold_id}.")
    if gold.version != row.version:
        raise Conflict(f"Gold {gold_id} belongs to version {gold.version}, which is kept as it was.")
    return gold


def _written(gold: Placed) -> list[dict[str, Any]]:
    return [{"id": span.step_id, "start_s": span.start_s, "end_s": span.end_s} for span in gold.spans]


def _document(authored: AuthoredProcedure) -> dict[str, Any]:
    fields = {"title": authored.title, "steps": authored.steps}
    return {name: _plain(value) for name, value in fields.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def procedure_at(session: Session, procedure_id: str, version: int) -> Procedure:
    """One version of a procedure, as a frozen value."""
    document = json.dumps(store.document_of(session, procedure_id, version))
    return _parsed(document, procedure_id, version)


@lru_cache(maxsize=256)
def _parsed(document: str, procedure_id: str, version: int) -> Procedure:
    return parse(AuthoredProcedure.model_validate(json.loads(document)), procedure_id=procedure_id, version=version)


def registered(session: Session, row: ProcedureRow, *, version: int | None = None) -> Registered:
    """A procedure with its golds, at its current version or another one. Raises NotFound."""
    at = version or row.version
    return Registered(row, at, procedure_at(session, row.id, at), tuple(store.golds_of(session, row.id, at)))


def spans_of(gold: Gold) -> tuple[Span, ...]:
    """The spans that a gold's row holds."""
    return tuple(Span(span["id"], span["start_s"], span["end_s"]) for span in gold.spans)


def _placed(gold: Gold) -> Placed:
    return Placed(gold.video_id, spans_of(gold), "author" if gold.spans_by == "author" else "proposed")


def _fits(procedure: Procedure, gold: Gold) -> bool:
    """Whether a gold's spans name steps of ``procedure`` only, and every one that is not optional, in an order that it permits."""
    spans = sorted(spans_of(gold), key=lambda span: span.start_s)
    shown = {span.step_id for span in spans}
    needed = {step.id for step in procedure.steps if not step.optional}
    known = {step.id for step in procedure.steps}
    return needed <= shown <= known and not violations(procedure, [span.step_id for span in spans])
