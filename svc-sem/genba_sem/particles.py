"""From a particle's files to a stored, decided particle. Used by the service, by the job and by whoever registers masters.

Order makes it safe to die anywhere: artifacts are promised for erasure first and written next; the rows, which take the promises
back, come last in one transaction. A decision is written only on the version of the particle that it was made from.
Knows nothing of HTTP or of queues.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from genba_sem import lanes, reviews, store
from genba_sem.lane import Decision
from genba_sem.lanes import Ready
from genba_sem.looking import Hints, Looks, pack
from genba_sem.tables import DecisionRow, ParticleRow, ViewRow
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database, utc_now
from genba_shared.ids import new_id
from genba_shared.problems import AlreadyExists

IMAGE_SUFFIX: Final = ".img"  # a view keeps its own bytes; what they are is judged anew whenever they are read
SAMPLE_SHARE: Final = 0.3  # of what nothing may confirm yet: drawn by id, reviewed first, and calibrates
_PROBABILITIES_KEPT: Final = 10


@dataclass(frozen=True)
class Facts:
    """What the sender says of a particle. Process, tool, recipe, lot and time are kept and used by no model."""

    name: str
    batch: str | None = None
    process: str | None = None
    tool: str | None = None
    recipe: str | None = None
    lot: str | None = None
    taken_at: datetime | None = None
    note: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Owner:
    """Under whose name a particle is kept."""

    tenant: str
    clearance: int
    subject: str


@dataclass(frozen=True)
class Image:
    """A file that becomes a view's picture."""

    path: Path
    file_name: str
    sha256: str
    size_bytes: int

    @property
    def key(self) -> str:
        """The address that ``Artifacts.put`` gives to it."""
        return f"{self.sha256[:2]}/{self.sha256}{IMAGE_SUFFIX}"


@dataclass(frozen=True)
class Stored:
    """A particle whose artifacts are all in the store, or about to be; only its rows are missing."""

    images: tuple[Image, ...]
    looks: Looks | None  # None: not looked at yet
    hints: Hints = field(default_factory=Hints)  # for whoever looks at them later
    images_kept: bool = False  # by views on record
    picture_keys: Mapping[int, str] = field(init=False)  # of the small JPEGs, by the image's index

    def __post_init__(self) -> None:
        looked = self.looks.views if self.looks else ()
        object.__setattr__(self, "picture_keys", {each.index: _address(each.picture) for each in looked})

    @property
    def sources(self) -> dict[str, Path | bytes]:
        """What has to be stored, by its address: of images that were looked at the readable ones, and the pictures of them."""
        kept = [] if self.images_kept else self.images
        if self.looks is None:
            return {image.key: image.path for image in kept}
        found: dict[str, Path | bytes] = {
            image.key: image.path for index, image in enumerate(kept) if index in self.picture_keys
        }
        return found | {self.picture_keys[each.index]: each.picture for each in self.looks.views}


def _address(content: bytes, suffix: str = ".jpg") -> str:
    digest = hashlib.sha256(content).hexdigest()
    return f"{digest[:2]}/{digest}{suffix}"


def put(
    database: Database, artifacts: Artifacts, found: Sequence[Stored], *, pool: ThreadPoolExecutor | None = None
) -> None:
    """Store everything of particles but their rows; pool: writes for several at the same time."""
    sources = {key: source for stored in found for key, source in stored.sources.items()}
    with database.transaction() as session:
        store.promise_erasures(session, sources, after_s=store.RESERVATION_S)
    for _ in (pool.map if pool else map)(lambda each: _put_missing(artifacts, *each), sources.items()):
        pass


def _put_missing(artifacts: Artifacts, key: str, source: Path | bytes) -> None:
    if not artifacts.exists(key) and artifacts.put(source, suffix=key[key.index(".") :]) != key:
        raise RuntimeError(f"Artifact {key} changed while it was stored.")


def _keep(session: Session, artifacts: Artifacts, found: Sequence[Stored]) -> None:
    """Take the promises back. An eraser may have been quicker; from now on it leaves the artifact alone."""
    sources = {key: source for stored in found for key, source in stored.sources.items()}
    for key in store.keep_artifacts(session, sorted(sources)):
        _put_missing(artifacts, key, sources[key])


def record(
    session: Session,
    artifacts: Artifacts,
    found: Sequence[tuple[Stored, Facts]],
    owner: Owner,
    *,
    role: str = "sample",
) -> list[ParticleRow]:
    """Write particles and their views, undecided, all or none. Raises: AlreadyExists for a name that its batch has
    already under the same label.
    """
    rows = [_row(stored, facts, owner, role) for stored, facts in found]
    try:
        with session.begin_nested():
            session.add_all(rows)
    except IntegrityError as err:
        names = ", ".join(facts.name for _, facts in found)
        raise AlreadyExists(f"Batch {found[0][1].batch} has a particle {names} already.") from err
    _keep(session, artifacts, [stored for stored, _ in found])
    views = [view for row, (each, _) in zip(rows, found, strict=True) for view in _view_rows(row.id, each)]
    if views:  # a folder may hold texts alone
        session.execute(insert(ViewRow), views)
    return rows


def _row(stored: Stored, facts: Facts, owner: Owner, role: str) -> ParticleRow:
    looks, moment = stored.looks, utc_now()
    scaling = looks.scaling if looks else {"hints": asdict(stored.hints)}
    return ParticleRow(
        id=new_id("par"), tenant=owner.tenant, clearance=owner.clearance, created_at=moment,
        created_by=owner.subject, version=1, role=role, name=facts.name, batch=facts.batch, process=facts.process,
        tool=facts.tool, recipe=facts.recipe, lot=facts.lot, taken_at=facts.taken_at, note=facts.note,
        tags=list(facts.tags), dropped=list(looks.dropped) if looks else [], scaling=scaling,
        view_count=len(looks.views) if looks else len(stored.images), encoder=None, vector=None, shape={}, covered=False,
        status="waiting", label_id=None, decided_by="nobody", confidence=None, reasons=[], in_queue=False, priority=0.0,
        decision={}, decided_in=None, updated_at=moment,
    )  # fmt: skip


def _view_rows(particle_id: str, stored: Stored) -> list[dict[str, Any]]:
    """Of images that were looked at only the readable ones, in their order."""
    looked = {each.index: each for each in stored.looks.views} if stored.looks else {}
    indices = sorted(looked) if stored.looks else range(len(stored.images))
    rows = []
    for position, index in enumerate(indices):
        image, seen = stored.images[index], looked.get(index)
        rows.append(
            {
                "particle_id": particle_id, "position": position, "file_name": image.file_name, "image_key": image.key,
                "picture_key": stored.picture_keys.get(index), "sha256": image.sha256, "size_bytes": image.size_bytes,
                "document": seen.document if seen else {}, "described_by": seen.described_by if seen else None,
                "raw": pack(seen.seen.raw) if seen else None,
            }
        )  # fmt: skip
    return rows


def complete(session: Session, artifacts: Artifacts, found: Sequence[tuple[ParticleRow, Stored]]) -> None:
    """Write down what was seen of particles that had only been stored; unreadable views go."""
    if not found:
        return
    _keep(session, artifacts, [stored for _, stored in found])
    views = [view for row, stored in found for view in _view_rows(row.id, stored)]
    of_these = ViewRow.particle_id.in_([row.id for row, _ in found])
    before = session.scalars(select(ViewRow.image_key).where(of_these)).all()
    store.promise_erasures(session, set(before).difference(view["image_key"] for view in views))
    session.execute(delete(ViewRow).where(of_these))
    session.execute(insert(ViewRow), views)
    for row, stored in found:
        if (looks := stored.looks) is not None:
            row.dropped, row.scaling, row.view_count = list(looks.dropped), looks.scaling, len(looks.views)


def decide(
    session: Session, row: ParticleRow, ready: Ready, decision: Decision, *, actor: str, job_id: str | None = None
) -> None:
    """Write a decision on a particle: the newest one into its row, every one into the history.

    A label that a reviewer gave stays; what the machine says of it now goes into the history only.
    """
    moment = utc_now()
    document = document_of(decision, ready)
    settled = row.decided_by == "review"
    status = {"confirmed": "confirmed", "review": "needs_review", "unknown": "unknown"}[decision.outcome]
    session.add(
        DecisionRow(
            id=new_id("dec"), particle_id=row.id, by="model", actor=actor, status=status, label_id=decision.label_id,
            confidence=decision.confidence, master_set=ready.master_set, model=ready.model, document=document,
            created_at=moment,
        )
    )  # fmt: skip
    row.encoder, row.vector = ready.lane.space, np.asarray(decision.row, np.float32).tobytes()
    _measure(row, decision)
    row.version, row.updated_at, row.decided_in = row.version + 1, moment, job_id
    if settled:
        return
    reasons = [*decision.reasons, *(["random_audit"] if decision.audit else [])]
    drawn = "not_calibrated" in reasons and reviews.share_of(row.id) < SAMPLE_SHARE
    asked = [] if row.decided_by == "nobody" else [each for each in row.reasons if each in reviews.ASKED]
    row.status, row.label_id, row.decided_by = status, decision.label_id, "model"
    row.confidence, row.decision = decision.confidence, document
    row.reasons = [*reasons, *(["calibration_sample"] if drawn else []), *asked]
    row.in_queue = row.role == "sample" and (status != "confirmed" or decision.audit or bool(asked))
    urgency = reviews.priority_of(row.reasons, decision.confidence, row.id)
    row.priority = max(urgency, row.priority) if reviews.NEXT_BATCH in asked else urgency


def _measure(row: ParticleRow, decision: Decision) -> None:
    shape = decision.shape
    row.covered = shape is None
    row.shape = {} if shape is None else dict(shape.__dict__)
    row.aspect_ratio = None if shape is None else shape.aspect_ratio
    row.circularity = None if shape is None else shape.circularity
    row.solidity = None if shape is None else shape.solidity
    row.diameter_um = shape.equivalent_diameter if shape is not None and shape.unit == "µm" else None


def document_of(decision: Decision, ready: Ready) -> dict[str, Any]:
    """A decision as it is kept."""
    ranked = sorted(decision.probabilities.items(), key=lambda each: -each[1])
    versions = decision.versions
    return {
        "label_id": decision.label_id,
        "likeliest": ranked[0][0],
        "outcome": decision.outcome,
        "confidence": decision.confidence,
        "label_set": list(decision.label_set),
        "coverage": ready.lane.policy.set_coverage,
        "probabilities": dict(ranked[:_PROBABILITIES_KEPT]),
        "similarity": decision.similarity,
        "agreement": decision.agreement,
        "reasons": list(decision.reasons),
        "audit": decision.audit,
        "views": [{**verdict.__dict__, "quality_reasons": list(verdict.quality_reasons)} for verdict in decision.views],
        "recommended_view": decision.recommended_view,
        "nearest": [dict(each.__dict__) for each in decision.nearest],
        "reviews_needed": decision.reviews_needed,
        "model": ready.model,
        "master_set": ready.master_set,
        "encoder": versions.encoder,
        "fusion": versions.fusion,
        "classifier": versions.classifier,
        "left_out": list(ready.left_out),
    }


def again(session: Session, row: ParticleRow, ready: Ready, *, actor: str, job_id: str | None = None) -> bool:
    """Decide a particle from what is kept of its views; False when the lane's encoder has not described them."""
    seen = lanes.seen_of(session, [row.id], ready.lane.encoder.kind).get(row.id, [])
    if not seen:
        return False
    decide(session, row, ready, ready.decide(seen, row.id), actor=actor, job_id=job_id)
    return True


def unreadable(row: ParticleRow, problem: Mapping[str, Any], *, job_id: str) -> None:
    """Say of a stored particle that too few of its views can be read; a person has to look."""
    row.status, row.reasons, row.in_queue, row.priority = "unreadable", ["unreadable"], True, 1.0
    row.dropped = list(problem.get("errors", []))
    row.version, row.updated_at, row.decided_in = row.version + 1, utc_now(), job_id


def erase(session: Session, row: ParticleRow) -> int:
    """Delete a particle and promise that its pictures go; how many artifacts."""
    keys = set()
    for view in session.scalars(select(ViewRow).where(ViewRow.particle_id == row.id)):
        keys |= {view.image_key, view.picture_key} - {None}
    store.promise_erasures(session, (str(key) for key in keys))
    session.delete(row)
    session.flush()
    return len(keys)


def annotate(session: Session, row: ParticleRow, *, note: str | None, tags: Sequence[str] | None) -> None:
    """Change what people say of a particle."""
    values: dict[str, Any] = {"version": row.version + 1, "updated_at": utc_now()}
    if note is not None:
        values["note"] = note
    if tags is not None:
        values["tags"] = list(tags)
    session.execute(update(ParticleRow).where(ParticleRow.id == row.id).values(**values))
    session.refresh(row)
