"""Which lane decides for whom: the champion's parts, or the newest masters while there is none; calibrated by reviews.

A particle is decided by the masters and labels of its own clearance and below, so that whoever may see it may see all that its
decision names. A lane is made once for each (tenant, clearance, version, set, labels, calibration) and then shared.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Row, Select, and_, case, func, select
from sqlalchemy.orm import Session

from genba_sem import labels, master_sets
from genba_sem.classifier import DEFAULT
from genba_sem.deciding import Policy, Reviewed, reviews_for
from genba_sem.encoders import Encoder, HlgShape
from genba_sem.labels import LabelBook
from genba_sem.lane import Decision, Lane, SeenView, space_of
from genba_sem.looking import remembered
from genba_sem.master_sets import TooFewMasters
from genba_sem.masters import MasterParticle, MasterSet
from genba_sem.model import LaneParts
from genba_sem.plugins import Encoders
from genba_sem.settings import Settings
from genba_sem.tables import DescriptionRow, MasterRow, ParticleRow, PolicyRow, ReviewRow, ViewRow
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.live import Live
from genba_shared.registry import Registry

Rows = npt.NDArray[np.float32]

_CALIBRATE_EVERY: Final = 10  # reviews between two calibrations
_MOST_REVIEWS: Final = 1000
_PAGE: Final = 500
_LEAST_ROWS: Final = 8  # that an encoder can be fitted to
_FIT_AT: Final = (
    64,
    256,
    1024,
)  # views besides the masters' at which the fit is made anew, while nothing has been promoted


@dataclass(frozen=True)
class Ready:
    """A lane, and what it is made of."""

    lane: Lane
    model: str  # "sem.lane 3", or "masters" while no version has been promoted
    master_set: int
    left_out: tuple[str, ...]  # labels with too few masters, which are never answered

    def decide(self, views: Sequence[SeenView], particle_id: str) -> Decision:
        """Decide one particle."""
        return self.lane.decide(views, particle_id=particle_id)


def model_name(tenant: str) -> str:
    """The registered model of a tenant's lane; models belong to the installation, so the tenant is in the name."""
    return "sem.lane" if tenant == "default" else f"sem.lane_{hashlib.sha256(tenant.encode()).hexdigest()[:10]}"


class Lanes:
    """The lanes of this process."""

    def __init__(self, database: Database, artifacts: Artifacts, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._registry = Registry(database, artifacts)
        self._live: dict[str, Live[LaneParts]] = {}
        self._made: OrderedDict[tuple[object, ...], Ready] = OrderedDict()
        self._lock = threading.Lock()
        self._making: dict[tuple[object, ...], threading.Lock] = {}
        self.encoders = Encoders(settings.encoders_dir)

    def close(self) -> None:
        """Stop following champions."""
        for live in list(self._live.values()):
            live.stop()

    def unwell(self) -> str | None:
        """For readiness: the first champion that does not load."""
        return next((said for live in list(self._live.values()) if (said := live.unwell())), None)

    def refresh(self, tenant: str) -> None:
        """Look for another champion now; a shell or a job need not wait."""
        self._follow(tenant).refresh()

    def ready(self, tenant: str, clearance: int) -> Ready:
        """The lane for particles of this clearance.

        Raises: TooFewMasters that names the labels.
        """
        loaded = self._follow(tenant).current
        with self._database.read() as session:
            book = labels.book(session, tenant)
            newest = master_sets.newest(session, tenant)
            reviews = calibrating_count(session, tenant, clearance)
            parts = loaded.value if loaded else None
            number = parts.master_set if parts else newest.number if newest else 0
            model = f"{model_name(tenant)} {loaded.version.number}" if loaded else "masters"
            policy = self.policy(session, tenant)
            unlabelled = 0 if parts else _fit_step(session, tenant, clearance)
            calibrated = (*_calibration_step(reviews, policy), policy)
            key = (tenant, clearance, model, number, _digest(book, clearance), calibrated, unlabelled)
            if (found := self._known(key)) is not None:
                return found
        with self._turn(key):
            if (found := self._known(key)) is not None:
                return found
            try:
                with self._database.read() as session:
                    made = self._make(
                        session, tenant, clearance, parts=parts, model=model, number=number, book=book, policy=policy,
                        unlabelled=unlabelled,
                    )  # fmt: skip
                self._remember(key, made)
            finally:  # also where there are too few masters: who asks again takes another turn
                with self._lock:
                    self._making.pop(key, None)
            return made

    def lane_or_none(self, tenant: str, clearance: int) -> Lane | None:
        """The lane for particles of this clearance, None while there are too few masters."""
        try:
            return self.ready(tenant, clearance).lane
        except TooFewMasters:
            return None

    def model_now(self, tenant: str) -> str | None:
        """The version that serves a tenant, as decisions name it; None while none has been promoted."""
        loaded = self._follow(tenant).current
        return f"{model_name(tenant)} {loaded.version.number}" if loaded else None

    def spaces(self) -> dict[str, str]:
        """What fused rows mean by tenant, where a version serves."""
        with self._lock:
            followed = list(self._live.items())
        now = {tenant: live.current for tenant, live in followed}
        return {tenant: space_of(loaded.value.encoder, loaded.value.fusion) for tenant, loaded in now.items() if loaded}

    def describer(self, tenant: str) -> Encoder:
        """What describes a tenant's pictures now: the serving lane's encoder."""
        loaded = self._follow(tenant).current
        return loaded.value.encoder if loaded else self.encoders.opened(HlgShape.name)

    def _make(
        self,
        session: Session,
        tenant: str,
        clearance: int,
        *,
        parts: LaneParts | None,
        model: str,
        number: int,
        book: LabelBook,
        policy: Policy,
        unlabelled: int,
    ) -> Ready:
        rows = master_sets.at(session, tenant, number)
        if parts is None:
            visible = [row for row in rows if row.clearance <= clearance]
            particles = from_rows(session, visible, HlgShape.kind)
        else:
            particles = tuple(each.particle for each in parts.masters if each.clearance <= clearance)
        particles = as_labels_are_now(particles, book, clearance, moved={row.particle_id: row.label_id for row in rows})
        held = Counter(particle.label_id for particle in particles)
        ready = {
            label.id for label in master_sets.enough(held, book, clearance=clearance, least=self._settings.min_masters)
        }
        kept = tuple(particle for particle in particles if particle.label_id in ready)
        beside = {} if parts else some_views(session, tenant, clearance, HlgShape.kind, most=unlabelled)
        encoder = parts.encoder if parts else fitted(kept, beside)
        head = parts.head.relabelled(lambda each: now_id(book, each)) if parts and parts.head else None
        lane = Lane(
            encoder,
            MasterSet(kept, str(number)),
            fusion=parts.fusion if parts else None,
            classifier=parts.classifier if parts else DEFAULT,
            head=head,
            policy=policy,
        )
        masters = {particle.particle_id for particle in kept}
        for _ in range(2):  # the reviews say what is unknown, and what is unknown is no matter of confidence
            reviewed = _reviewed(session, tenant, clearance, lane, book, without=masters)
            if reviewed:
                lane = lane.calibrated_by(reviewed)
        return Ready(lane, model, number, tuple(sorted(held.keys() - ready)))

    def policy(self, session: Session, tenant: str) -> Policy:
        """What is promised: as the tenant set it, or as the installation does."""
        row = session.get(PolicyRow, tenant)
        if row is None:
            return Policy(precision=self._settings.precision, audit_share=self._settings.audit_share)
        return Policy(precision=row.precision, audit_share=row.audit_share)

    def _follow(self, tenant: str) -> Live[LaneParts]:
        """Loads the champion the first time, while other tenants go on."""
        if (found := self._live.get(tenant)) is not None:
            return found
        key = ("follow", tenant)
        with self._turn(key):
            if (found := self._live.get(tenant)) is not None:
                return found
            live = Live(
                self._registry,
                model_name(tenant),
                lambda folder, _version: LaneParts.load(folder, self.encoders.opened),
                cache=self._settings.platform.home / "models",
                refresh_s=self._settings.refresh_s,
            )
            live.start()
            with self._lock:
                self._live[tenant] = live
                self._making.pop(key, None)
            return live

    def _known(self, key: tuple[object, ...]) -> Ready | None:
        with self._lock:
            if (found := self._made.get(key)) is not None:
                self._made.move_to_end(key)
            return found

    def _remember(self, key: tuple[object, ...], made: Ready) -> None:
        with self._lock:
            self._made[key] = made
            while len(self._made) > self._settings.lanes_kept:
                self._made.popitem(last=False)

    def _turn(self, key: tuple[object, ...]) -> threading.Lock:
        with self._lock:
            return self._making.setdefault(key, threading.Lock())


def fitted(particles: Sequence[MasterParticle], unlabelled: Mapping[str, Rows]) -> Encoder:
    """The embedded default, fitted to the masters' views and to others (by particle, each (V, raw_dim)), whatever they show: a kind
    that no master stands for is told apart by a fit that has met it. Raises: TooFewMasters below eight views of masters.
    """
    raw = np.concatenate([particle.raw for particle in particles])
    if len(raw) < _LEAST_ROWS:
        raise TooFewMasters(
            f"The masters have {len(raw)} views together; {_LEAST_ROWS} are needed. Register more masters or more views.",
            needed=_LEAST_ROWS,
            labels=[],
        )
    shown = {particle.particle_id: particle.raw for particle in particles} | dict(unlabelled)
    return HlgShape.fit(np.concatenate(list(shown.values())), [each for each, rows in shown.items() for _ in rows])


def newest_views(tenant: str, clearance: int) -> Select[str]:
    """Whom the newest views show, once for each view."""
    return (
        select(ViewRow.particle_id)
        .join(ParticleRow, ParticleRow.id == ViewRow.particle_id)
        .where(ParticleRow.tenant == tenant, ParticleRow.clearance <= clearance, ViewRow.raw.is_not(None))
        .order_by(ParticleRow.id.desc())
    )


def some_views(session: Session, tenant: str, clearance: int, kind: str, *, most: int) -> dict[str, Rows]:
    """Raw rows of about as many of the newest views, labelled or not, by whom they show."""
    ids = list(dict.fromkeys(session.scalars(newest_views(tenant, clearance).limit(most)))) if most else []
    return {particle: np.stack([view.raw for view in views]) for particle, views in seen_of(session, ids, kind).items()}


def _fit_step(session: Session, tenant: str, clearance: int) -> int:
    """The last of ``_FIT_AT`` that the samples' views have reached: the fit follows what the lab sends, and stands still between."""
    samples = newest_views(tenant, clearance).where(ParticleRow.role == "sample").limit(_FIT_AT[-1])
    count = session.scalar(select(func.count()).select_from(samples.subquery())) or 0
    return max((step for step in _FIT_AT if step <= count), default=0)


def now_id(book: LabelBook, label_id: str) -> str | None:
    """The id of the label that stands for this one now, None where none does."""
    label = book.now(label_id)
    return None if label is None else label.id


def vectors_of(session: Session, particle_ids: Sequence[str], lane: Lane | None = None) -> dict[str, tuple[str, Rows]]:
    """What the fused row of each particle means, and the row: as the lane sees it, else as it is kept, where it is.

    Masters that were sent as such have none of their own, and a lane that is fitted anew compares with no row of before.
    """
    found: dict[str, tuple[str, Rows]] = {}
    for start in range(0, len(particle_ids), _PAGE):
        part = particle_ids[start : start + _PAGE]
        query = select(ParticleRow.id, ParticleRow.encoder, ParticleRow.vector).where(ParticleRow.id.in_(part))
        for row_id, space, vector in session.execute(query):
            if space is not None and vector is not None:
                found[row_id] = space, np.frombuffer(vector, np.float32)
        if lane is not None:
            lacking = [each for each in part if found.get(each, ("",))[0] != lane.space]
            seen = seen_of(session, lacking, lane.encoder.kind)
            found |= {each: (lane.space, lane.row(views)) for each, views in seen.items()}
    return found


def _digest(book: LabelBook, clearance: int) -> str:
    """Changes with what labels mean, not with what they are called."""
    said = sorted(
        f"{each.id} {each.status} {each.successors}" for each in book.by_id.values() if each.clearance <= clearance
    )
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:12]


def from_rows(session: Session, rows: Sequence[MasterRow], kind: str) -> tuple[MasterParticle, ...]:
    """Masters as the numerics take them, from what is kept of their views; those without rows of this kind are passed over."""
    seen = seen_of(session, [row.particle_id for row in rows], kind)
    made = []
    for row in rows:
        if views := seen.get(row.particle_id):
            raw = np.stack([view.raw for view in views])
            quality = np.array([view.quality.score for view in views], np.float32)
            made.append(MasterParticle(row.particle_id, row.label_id, raw, quality))
    return tuple(made)


def as_labels_are_now(
    particles: Sequence[MasterParticle], book: LabelBook, clearance: int, *, moved: Mapping[str, str]
) -> tuple[MasterParticle, ...]:
    """Each under the label that stands for it now: after a merge the successor, after a split the part that it went to."""
    found = []
    for particle in particles:
        label = book.now(particle.label_id)
        if label is not None and label.status == "split":
            label = book.now(moved.get(particle.particle_id, ""))
        if label is not None and label.status == "active" and label.clearance <= clearance:
            found.append(replace(particle, label_id=label.id))
    return tuple(found)


def seen_of(session: Session, particle_ids: Sequence[str], kind: str) -> dict[str, list[SeenView]]:
    """The views of particles as an encoder of this kind sees them; particles that it has not described are left out."""
    found: dict[str, list[SeenView]] = {}
    for start in range(0, len(particle_ids), 500):
        part = particle_ids[start : start + 500]
        second = and_(
            DescriptionRow.particle_id == ViewRow.particle_id,
            DescriptionRow.position == ViewRow.position,
            DescriptionRow.described_by == kind,
        )
        raw = case((ViewRow.described_by == kind, ViewRow.raw), else_=DescriptionRow.raw)
        query = (
            select(ViewRow.particle_id, ViewRow.document, raw)
            .outerjoin(DescriptionRow, second)
            .where(ViewRow.particle_id.in_(part), ViewRow.raw.is_not(None))
            .order_by(ViewRow.particle_id, ViewRow.position)
        )
        lacking = set()
        for particle_id, document, row in session.execute(query):
            if row is None:
                lacking.add(particle_id)
            else:
                found.setdefault(particle_id, []).append(remembered(row, kind, document))
        found = {particle_id: views for particle_id, views in found.items() if particle_id not in lacking}
    return found


def fused_of(session: Session, lane: Lane, rows: Sequence[Row[str, str | None, bytes | None]]) -> dict[str, Rows]:
    """Fused rows (D,) of particles given as (id, encoder, vector); those of another space are made anew from what is kept of
    their views, and left out where that is nothing that the lane could use.
    """
    known = {at: np.frombuffer(held, np.float32) for at, space, held in rows if held and space == lane.space}
    lacking = [at for at, _, _ in rows if at not in known]
    for particle_id, views in seen_of(session, lacking, lane.encoder.kind).items():
        raw = np.stack([view.raw for view in views])
        quality = np.array([view.quality.score for view in views], np.float32)
        known[particle_id] = lane.fusion.fuse(lane.encoder.embed(raw), quality).row
    return known


def newest_fused(
    database: Database,
    lane: Lane,
    *where: ColumnElement[bool],
    most: int,
    progress: Callable[[float, str], None],
) -> dict[str, Rows]:
    """Fused rows (D,) of the newest particles of a selection, read a page at a time; progress: share of ``most``, and in words."""
    query = select(ParticleRow.id, ParticleRow.encoder, ParticleRow.vector).where(*where)
    found: dict[str, Rows] = {}
    after = None
    while len(found) < most:
        progress(len(found) / most, f"{len(found)} particles read")
        older = query if after is None else query.where(ParticleRow.id < after)
        with database.read() as session:
            page = session.execute(older.order_by(ParticleRow.id.desc()).limit(min(_PAGE, most - len(found)))).all()
            if not page:
                break
            after = page[-1].id
            found |= fused_of(session, lane, page)
    return found


def calibrating_count(session: Session, tenant: str, clearance: int) -> int:
    """Reviews of particles that were drawn whatever their confidence, as far as this clearance sees them."""
    query = (
        select(func.count())
        .select_from(ReviewRow)
        .join(ParticleRow, ParticleRow.id == ReviewRow.particle_id)
        .where(ReviewRow.tenant == tenant, ReviewRow.calibrates, ParticleRow.clearance <= clearance)
    )
    return session.scalar(query) or 0


def _calibration_step(reviews: int, policy: Policy) -> tuple[int, bool]:
    """Changes with every tenth review, and with the first that can keep the promise: nobody who was told how many are lacking has
    to review more.
    """
    return reviews // _CALIBRATE_EVERY, reviews >= reviews_for(policy.precision, policy.risk)


def _reviewed(
    session: Session, tenant: str, clearance: int, lane: Lane, book: LabelBook, *, without: set[str]
) -> list[Reviewed]:
    """The newest reviews of particles that were drawn whatever their confidence, as this lane would have decided them."""
    query = (
        select(ParticleRow.id, ParticleRow.label_id)
        .join(ReviewRow, ReviewRow.particle_id == ParticleRow.id)
        .where(ReviewRow.tenant == tenant, ReviewRow.calibrates, ParticleRow.clearance <= clearance)
        .where(ParticleRow.status == "reviewed")
        .group_by(ParticleRow.id, ParticleRow.label_id)
        .order_by(func.max(ReviewRow.id).desc())
        .limit(_MOST_REVIEWS)
    )
    truths = {row.id: row.label_id for row in session.execute(query) if row.id not in without}
    seen = seen_of(session, list(truths), lane.encoder.kind)
    found = []
    for particle_id, views in seen.items():
        decision = lane.decide(views)
        label = book.now(truths[particle_id] or "")
        truth = label.id if label is not None else None
        best = max(decision.probabilities, key=lambda each: decision.probabilities[each])
        # What is called unknown or is of poor quality is never confirmed, whatever its confidence: it ranks last.
        never = decision.outcome == "unknown" or "poor_quality" in decision.reasons
        confidence = 0.0 if never else decision.confidence
        found.append(Reviewed(confidence, best == truth, decision.similarity, decision.probabilities.get(truth or "")))
    return found
