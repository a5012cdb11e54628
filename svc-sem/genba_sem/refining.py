"""Propose a better lane, and measure it against the one that decides now, on reviewed particles that neither has seen.

Reviewed particles that were drawn at random judge, and by their id some of the others; the rest may become masters. Every
change (masters, encoder fit, classifier, fusion) goes through the same door: build, measure, register, gate. Knows no queue and
no HTTP.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import select
from sqlalchemy.orm import Session

from genba_sem import labels, lanes, master_sets
from genba_sem.classifier import CLASSIFIERS, DEFAULT, label_indices, leave_out
from genba_sem.classifying import Work
from genba_sem.encoders import Encoder, HlgShape
from genba_sem.fusion_choice import LEAST_P, Taught, fitted_fusion, fused, name_of
from genba_sem.labels import LabelBook
from genba_sem.lane import Lane, SeenView
from genba_sem.lanes import model_name
from genba_sem.masters import MasterParticle, MasterSet
from genba_sem.metrics import mcnemar_p
from genba_sem.model import KeptMaster, LaneParts
from genba_sem.onsite import OnsiteEncoder
from genba_sem.reviews import share_of
from genba_sem.tables import MasterRow, ParticleRow, ReviewRow
from genba_sem.views import Fusion
from genba_shared.problems import Conflict, EncoderMismatch
from genba_shared.recipe import Champion, Gate, Registration, Result

Rows = npt.NDArray[np.float32]

_JUDGES: Final = 0.3  # share of reviewed particles that never become masters, besides those that were drawn at random
_MOST_VIEWS: Final = 2000
_LEAST_JUDGES: Final = 8
_LEAST_VIEWS: Final = 8
WORSE_BY: Final = 0.0


@dataclass(frozen=True)
class Judge:
    """A reviewed particle that was held back: its views and its label as labels are now; None for none of the labels."""

    particle_id: str
    views: Sequence[SeenView]
    label_id: str | None


@dataclass(frozen=True)
class Stock:
    """What a tenant has to build from, up to the job's clearance."""

    tenant: str
    clearance: int
    kind: str  # of encoder that made the raw rows
    master_set: int
    masters: tuple[KeptMaster, ...]
    reviewed: tuple[KeptMaster, ...]  # may become masters
    judges: tuple[Judge, ...]
    unlabelled: Rows  # (N, raw_dim) raw rows of views, masters and reviewed ones among them
    shown: tuple[str, ...]  # (N,) whom each of them shows
    book: LabelBook
    moved: Mapping[str, str]  # masters of the newest set by their particle's id, and their labels

    def as_now(self, parts: LaneParts) -> LaneParts:
        """A champion's parts under the labels as they are now, as it serves."""
        particles = [each.particle for each in parts.masters]
        clear = {each.particle.particle_id: each.clearance for each in parts.masters}
        now = lanes.as_labels_are_now(particles, self.book, self.clearance, moved=self.moved)
        kept = tuple(KeptMaster(each, clear[each.particle_id]) for each in now)
        head = None if parts.head is None else parts.head.relabelled(lambda each: lanes.now_id(self.book, each))
        return replace(parts, masters=kept, head=head)


def stock(work: Work, kind: str | None = None) -> Stock:
    """Read it as one kind of encoder sees it, by default the one that serves; what it has not described is left out.

    Raises: TooFewMasters that names the labels; EncoderMismatch where masters lack that are not described.
    """
    tenant, clearance = work.principal.tenant, int(work.principal.clearance)
    kind = kind or work.lanes.describer(tenant).kind
    with work.database.read() as session:
        book = labels.book(session, tenant)
        newest = master_sets.newest(session, tenant)
        number = newest.number if newest else 0
        rows = [row for row in master_sets.at(session, tenant, number) if row.clearance <= clearance]
        made = lanes.from_rows(session, rows, kind)
        _check_described(rows, made, kind)
        clear = {row.particle_id: row.clearance for row in rows}
        moved = {row.particle_id: row.label_id for row in rows}
        current = lanes.as_labels_are_now(made, book, clearance, moved=moved)
        kept = tuple(KeptMaster(each, clear[each.particle_id]) for each in current)
        held = Counter(each.particle.label_id for each in kept)
        master_sets.enough(held, book, clearance=clearance, least=work.settings.min_masters)
        reviewed, judges = _reviewed(session, tenant, clearance, book, kind, without=set(clear))
        views = lanes.some_views(session, tenant, clearance, kind, most=_MOST_VIEWS)
        rows_seen = np.array([row for rows in views.values() for row in rows], np.float32)
        shown = tuple(particle for particle, rows in views.items() for _ in rows)
        return Stock(tenant, clearance, kind, number, kept, reviewed, judges, rows_seen, shown, book, moved)


def particles_to_build_on(work: Work) -> list[str]:
    """Masters, reviewed particles and those of the newest views: what a stock is read from."""
    tenant, clearance = work.principal.tenant, int(work.principal.clearance)
    mine = (ParticleRow.tenant == tenant, ParticleRow.clearance <= clearance)
    with work.database.read() as session:
        rows = master_sets.current(session, tenant)
        found = [row.particle_id for row in rows if row.clearance <= clearance]
        reviewed = select(ParticleRow.id).where(*mine, ParticleRow.status == "reviewed", ParticleRow.role == "sample")
        found += session.scalars(reviewed.order_by(ParticleRow.id))
        found += session.scalars(lanes.newest_views(tenant, clearance).limit(_MOST_VIEWS))
    return list(dict.fromkeys(found))


def _check_described(rows: Sequence[MasterRow], made: Sequence[MasterParticle], kind: str) -> None:
    if len(made) < len(rows):
        raise EncoderMismatch(
            f"{kind} has described {len(made)} of {len(rows)} masters: run sem.reembed first.", encoder=kind
        )


def _reviewed(
    session: Session, tenant: str, clearance: int, book: LabelBook, kind: str, *, without: set[str]
) -> tuple[tuple[KeptMaster, ...], tuple[Judge, ...]]:
    query = select(ParticleRow.id, ParticleRow.label_id, ParticleRow.clearance).where(
        ParticleRow.tenant == tenant,
        ParticleRow.clearance <= clearance,
        ParticleRow.status == "reviewed",
        ParticleRow.role == "sample",
    )
    rows = [row for row in session.execute(query.order_by(ParticleRow.id)) if row.id not in without]
    seen = lanes.seen_of(session, [row.id for row in rows], kind)
    random = select(ReviewRow.particle_id).where(ReviewRow.tenant == tenant, ReviewRow.calibrates)
    drawn = set(session.scalars(random))
    kept, judges = [], []
    for row in rows:
        views = seen.get(row.id)
        label = book.now(row.label_id) if row.label_id else None
        if not views or (label is not None and label.status != "active"):
            continue
        if row.id in drawn or is_judge(row.id):
            judges.append(Judge(row.id, views, label.id if label else None))
        elif label is not None:
            kept.append(KeptMaster(as_master(row.id, label.id, views), row.clearance))
    return tuple(kept), tuple(judges)


def is_judge(particle_id: str) -> bool:
    """Whether a particle is held back to judge, by its id: the same answer at every refresh."""
    return share_of(f"judge {particle_id}") < _JUDGES


def as_master(particle_id: str, label_id: str, views: Sequence[SeenView]) -> MasterParticle:
    """A particle that was seen, standing for a label."""
    quality = np.array([view.quality.score for view in views], np.float32)
    return MasterParticle(particle_id, label_id, np.stack([view.raw for view in views]), quality)


# --- building -------------------------------------------------------------------------------------------------------


def with_reviewed(held: Stock, *, most_per_label: int) -> tuple[KeptMaster, ...]:
    """The masters, and of reviewed particles as many as fit under ``most_per_label``, oldest first."""
    counts = Counter(each.particle.label_id for each in held.masters)
    added = []
    for each in held.reviewed:
        if counts[each.particle.label_id] < most_per_label:
            counts[each.particle.label_id] += 1
            added.append(each)
    return (*held.masters, *added)


def taught(encoder: Encoder, masters: Sequence[KeptMaster]) -> tuple[Taught, tuple[str, ...]]:
    """Labelled particles as rows, and their label ids in the order of their indices."""
    particles = [each.particle for each in masters]
    names = tuple(sorted({p.label_id for p in particles}))
    rows = [encoder.embed(p.raw) for p in particles]
    return Taught(
        rows, [p.quality for p in particles], label_indices([p.label_id for p in particles], names), len(names)
    ), names


def best_classifier(encoder: Encoder, fusion: Fusion, masters: Sequence[KeptMaster]) -> tuple[str, dict[str, float]]:
    """The default, unless another is better by McNemar's test where each master is left out in turn; and how often each is right."""
    known, _ = taught(encoder, masters)
    rows = fused(fusion, known)
    right = {}
    for kind in CLASSIFIERS:
        left = leave_out(kind, rows, known.labels, known.classes)
        right[kind] = left.logits.argmax(1) == left.labels
    scores = {kind: float(each.mean()) if len(each) else 0.0 for kind, each in right.items()}
    better = [kind for kind, each in right.items() if mcnemar_p(each, right[DEFAULT]) <= LEAST_P]
    return max(better, key=lambda kind: scores[kind], default=DEFAULT), scores


def refitted(now: LaneParts, held: Stock, masters: Sequence[KeptMaster], *, seed: int) -> LaneParts:
    """The parts with an encoder fitted anew, and a fusion of the same kind for it; what learnt from the old rows goes.

    An encoder that brings its own weights stays as it is: there is nothing to fit.

    Raises: Conflict with fewer than eight views.
    """
    if not isinstance(now.encoder, HlgShape | OnsiteEncoder):
        fusion = fitted_fusion(name_of(now.fusion), taught(now.encoder, masters)[0], seed=seed)
        return replace(now, fusion=fusion, head=None)
    rows = held.unlabelled
    if len(rows) < _LEAST_VIEWS:
        raise Conflict(f"There are {len(rows)} views to fit the encoder to; {_LEAST_VIEWS} are needed.")
    fit = now.encoder.fitted if isinstance(now.encoder, OnsiteEncoder) else HlgShape.fit
    encoder: Encoder = fit(rows, held.shown)
    fusion = fitted_fusion(name_of(now.fusion), taught(encoder, masters)[0], seed=seed)
    return replace(now, encoder=encoder, fusion=fusion, head=None)


def with_encoder(now: LaneParts, held: Stock, encoder: Encoder, *, seed: int) -> LaneParts:
    """The parts with another encoder, fitted where it can be; ``held`` is the stock as this encoder sees it."""
    fresh = replace(now, encoder=encoder, masters=held.masters)
    return refitted(fresh, held, held.masters, seed=seed)


def parts_now(work: Work, held: Stock) -> LaneParts:
    """What decides now, as parts that can be varied one at a time."""
    lane = work.lanes.ready(held.tenant, held.clearance).lane
    return LaneParts(lane.encoder, held.masters, held.master_set, lane.fusion, lane.made_of_masters, lane.head)


def lane_of(parts: LaneParts) -> Lane:
    """A lane that can be measured."""
    kept = MasterSet(tuple(each.particle for each in parts.masters), str(parts.master_set))
    return Lane(parts.encoder, kept, fusion=parts.fusion, classifier=parts.classifier, head=parts.head)


# --- measuring ------------------------------------------------------------------------------------------------------


def measure(lane: Lane, judges: Sequence[Judge]) -> dict[str, float]:
    """Accuracy, coverage of the label sets and share called unknown, on particles that the lane has not seen."""
    right, covered, unknown, known = 0, 0, 0, 0
    for judge in judges:
        decision = lane.decide(judge.views)
        unknown += decision.outcome == "unknown"
        if judge.label_id is None:
            continue
        known += 1
        likeliest = max(decision.probabilities, key=lambda each: decision.probabilities[each])
        right += likeliest == judge.label_id
        covered += judge.label_id in decision.label_set
    return {
        "reviewed_particles": float(known),
        "reviewed_accuracy": right / known if known else float("nan"),
        "reviewed_coverage": covered / known if known else float("nan"),
        "unknown_share": unknown / len(judges) if judges else float("nan"),
    }


def left_out_accuracy(lane: Lane) -> float:
    """How often a master is right about another, each left out in turn: what there is before anybody has reviewed."""
    left = lane.left_out
    return float((left.logits.argmax(1) == left.labels).mean()) if len(left.labels) else float("nan")


def propose(
    work: Work,
    held: Stock,
    parts: LaneParts,
    current: LaneParts,
    *,
    made_by: str,
    about: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
    gates: Sequence[Gate] = (),
    held_now: Stock | None = None,
) -> Result:
    """Measure the proposed parts and what decides now on the same particles, and hand over the bundle.

    The gates: no worse on reviewed particles that were held back, and ``gates``. While fewer than eight have been reviewed, no worse
    when each master is left out in turn. metrics: what the recipe has measured itself. held_now: the stock as the encoder that
    serves sees it, where the proposed one is another.
    """
    run = work.run
    masters, beside = _ids(parts) | _ids(current), held_now or held
    both = {judge.particle_id for judge in held.judges} & {judge.particle_id for judge in beside.judges} - masters
    judges, judges_now = ([each for each in one.judges if each.particle_id in both] for one in (held, beside))
    reached, theirs, deciding = _compared((lane_of(parts), judges), (lane_of(current), judges_now))
    reached |= metrics or {}
    finite, compared = (
        {name: value for name, value in each.items() if np.isfinite(value)} for each in (reached, theirs)
    )
    bundle = parts.save(
        run.workdir / "bundle", {"made_by": made_by, "metrics": finite, "compared_with": compared, **about}
    )
    model = model_name(held.tenant)
    registration = Registration(
        model,
        bundle,
        finite,
        data_hash=_data_hash(parts, judges),
        gates=(Gate("accuracy_gain", at_least=-WORSE_BY), Gate(deciding, not_below_champion_by=WORSE_BY), *gates),
        champion_metrics=_of_champion(run.champion(model), work.lanes.encoders.opened, beside, judges_now),
    )
    value = {
        "model": model,
        "masters": len(parts.masters),
        "encoder": parts.encoder.id,
        "classifier": parts.classifier if parts.head is None else parts.head.id,
        "fusion": parts.fusion.id,
        "judged_by": int(finite.get("reviewed_particles", 0)),
        **about,
    }
    return Result(value=value, metrics=finite, register=registration)


def _compared(
    proposed: tuple[Lane, Sequence[Judge]], serving: tuple[Lane, Sequence[Judge]]
) -> tuple[dict[str, float], dict[str, float], str]:
    """What the proposed lane and today's reach on the same particles, and the name of the figure that decides."""
    reached, theirs = measure(*proposed), measure(*serving)
    deciding = "reviewed_accuracy"
    if sum(judge.label_id is not None for judge in proposed[1]) < _LEAST_JUDGES:
        deciding = "left_out_accuracy"
        reached[deciding], theirs[deciding] = left_out_accuracy(proposed[0]), left_out_accuracy(serving[0])
    reached["accuracy_gain"] = reached[deciding] - theirs[deciding]
    return reached, theirs, deciding


def _of_champion(
    champion: Champion | None, opened: Callable[[str], Encoder], held: Stock, judges: Sequence[Judge]
) -> dict[str, float] | None:
    if champion is None:
        return None
    serving = lane_of(held.as_now(LaneParts.load(champion.folder, opened)))
    return measure(serving, judges) | {"left_out_accuracy": left_out_accuracy(serving)}


def _ids(parts: LaneParts) -> set[str]:
    return {each.particle.particle_id for each in parts.masters}


def _data_hash(parts: LaneParts, judges: Sequence[Judge]) -> str:
    said = [f"{each.particle.particle_id} {each.particle.label_id}" for each in parts.masters]
    said += [f"{judge.particle_id} {judge.label_id}" for judge in judges]
    return hashlib.sha256("\n".join(sorted(said)).encode()).hexdigest()[:32]
