"""Learn more from the same particles: how to fuse views, and what particles without a label say. Proposals like any other.

Both measure themselves on labelled particles that they have not learnt from, fold by fold, and each fold is a checkpoint. What wins
there is proposed, and judged once more by reviewed particles that were held back. Knows no queue and no HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from sqlalchemy import select

from genba_sem import fusion_choice, lanes, refining
from genba_sem.classifier import folds_of
from genba_sem.classifying import Work
from genba_sem.fusion_choice import CANDIDATES, FOLDS, LEAST_P, MEAN, Taught
from genba_sem.learnt_head import LearntHead
from genba_sem.metrics import mcnemar_p
from genba_sem.model import KeptMaster
from genba_sem.refining import Stock
from genba_sem.semi_supervised import Learnt, Method, learn
from genba_sem.tables import ParticleRow
from genba_sem.views import QualityMean, view_weights
from genba_shared.problems import Conflict
from genba_shared.recipe import Gate, Params, Result, Run

Rows = npt.NDArray[np.float32]

_MOST_PER_LABEL: Final = 200
_LEAST_TO_LEAVE_OUT: Final = 3  # one is left out, and two of a label are what a fusion learns from


class FusionParams(Params):
    """Which fusion of views to propose."""

    fusion: Annotated[
        Literal["best", "quality-mean", "deep-sets", "gated-attention", "set-transformer"],
        Field(description="best: the simplest that no richer one beats by test on particles left out in turn."),
    ] = "best"


def fusion(params: FusionParams, run: Run) -> Result:
    """Train the set models on masters and reviewed particles, and propose the one that wins; encoder, masters, classifier stay.

    Where the mean decides and nothing beats it by test, nothing is proposed and the result says so.
    """
    with Work.of(run) as work:
        held = refining.stock(work)
        now = refining.parts_now(work, held)
        teachers = refining.with_reviewed(held, most_per_label=_MOST_PER_LABEL)
        known, _ = refining.taught(now.encoder, teachers)
        before = fusion_choice.name_of(now.fusion)
        wanted = CANDIDATES if params.fusion == "best" else (before, params.fusion)
        right = _validated(run, known, [name for name in CANDIDATES if name in wanted], now.classifier, teachers)
        chosen = fusion_choice.simplest_that_wins(right) if params.fusion == "best" else params.fusion
        scores = {name: float(np.mean(each)) for name, each in right.items()}
        run.note(f"{chosen} of {', '.join(f'{name} {score:.3f}' for name, score in scores.items())}")
        about = {"validated_by": len(right[chosen]), "right_by_fusion": scores}
        if chosen == before == MEAN:
            return Result(value={**about, "fusion": now.fusion.id, "proposed": False})
        parts = replace(now, fusion=fusion_choice.fitted_fusion(chosen, known, seed=run.seed), head=None)
        richer = CANDIDATES.index(chosen) > CANDIDATES.index(before)
        return refining.propose(
            work,
            held,
            parts,
            now,
            made_by="sem.fusion",
            about=about,
            metrics={"validation_p": mcnemar_p(right[chosen], right[before])},
            gates=(Gate("validation_p", at_most=LEAST_P),) if richer else (),
        )


def _validated(
    run: Run, known: Taught, names: Sequence[str], classifier: str, teachers: Sequence[KeptMaster]
) -> dict[str, list[bool]]:
    """What each candidate gets right on particles that it has not learnt from; a resumed job goes on after the last fold."""
    if np.bincount(known.labels).max() < _LEAST_TO_LEAVE_OUT:
        raise Conflict(
            "Fusions are compared by leaving particles out: a label needs three masters or reviewed particles."
        )
    kept, folds = _Kept(run, teachers, classifier), _folds(known)
    steps = [(name, fold) for name in names for fold in folds]
    for done, (name, fold) in enumerate(steps):
        run.progress(0.1 + 0.7 * done / len(steps), f"{name}, fold {fold + 1} of {len(folds)}")
        if (key := f"{name} {fold}") not in kept.found:
            found = fusion_choice.right_without(name, known, fold, classifier=classifier, seed=run.seed)
            kept.add(key, found)
    return {name: [each for fold in folds for each in kept.found[f"{name} {fold}"]] for name in names}


def _folds(known: Taught) -> list[int]:
    """Those that hold a particle; few masters fill few."""
    place = folds_of(known.labels, known.classes, FOLDS)
    return [int(fold) for fold in np.unique(place[place >= 0])]


class _Kept:
    """Folds that are done, in the job's checkpoint; of other particles than these they are forgotten."""

    def __init__(self, run: Run, teachers: Sequence[KeptMaster], *about: str) -> None:
        said = sorted(f"{each.particle.particle_id} {each.particle.label_id}" for each in teachers)
        self._data = hashlib.sha256("\n".join([*said, *about]).encode()).hexdigest()
        self._checkpoint = run.checkpoint
        saved = run.checkpoint.load(lambda each: each.state.get("data") == self._data)
        self.found: dict[str, Any] = dict(saved.state["found"]) if saved else {}

    def add(self, key: str, found: Any) -> None:
        self.found[key] = found
        self._checkpoint.save({"data": self._data, "found": self.found})


# --- particles without a label --------------------------------------------------------------------------------------


class SemiSupervisedParams(Params):
    """How to learn from particles that nobody has reviewed."""

    method: Method = "softmatch"
    most_unlabelled: Annotated[int, Field(ge=1, le=20_000, description="Newest particles without a review.")] = 4000


@dataclass(frozen=True, eq=False)
class _Checked:
    """What folds say: logits (N, C) of labelled particles by heads that had not seen them; of pseudo-labels on them while they
    were among the unlabelled, how many were taken and how many of those were right.
    """

    logits: npt.NDArray[np.float64]
    taken: int
    right: int


def semi_supervised(params: SemiSupervisedParams, run: Run) -> Result:
    """Propose a head that learnt from masters, reviewed particles and the unlabelled rest; encoder and masters stay.

    It learns on the mean of a particle's views, so it decides by the mean. How right pseudo-labels are is measured on labelled particles
    whose label was hidden. Gates: no worse on masters left out in turn, and as ever on reviewed particles that were held back.
    Raises: Conflict without a particle that nobody has reviewed.
    """
    with Work.of(run) as work:
        held = refining.stock(work)
        now = refining.parts_now(work, held)
        teachers = refining.with_reviewed(held, most_per_label=_MOST_PER_LABEL)
        known, names = refining.taught(now.encoder, teachers)
        known = replace(known, rows=[_counting(*each) for each in zip(known.rows, known.quality, strict=True)])
        pool = _unlabelled(run, held, params.most_unlabelled)
        if not pool:
            raise Conflict("Every particle has been reviewed: there is nothing unlabelled to learn from.")
        rows = [_counting(now.encoder.embed(raw), quality) for raw, quality in pool]
        asked = fusion_choice.fused(QualityMean(), refining.taught(now.encoder, teachers)[0])
        checked = _checked(run, known, asked, rows, params.method, teachers)
        learnt = learn(known.rows, known.labels, rows, known.classes, method=params.method, seed=run.seed)
        _log(run, learnt)
        place = folds_of(known.labels, known.classes, FOLDS)
        masters = {each.particle.particle_id for each in held.masters}
        left_out = {
            each.particle.particle_id: checked.logits[at]
            for at, each in enumerate(teachers)
            if place[at] >= 0 and each.particle.particle_id in masters
        }
        head = LearntHead(params.method, names, learnt.weights, left_out)
        parts = replace(now, fusion=QualityMean(), head=head)
        gain = refining.left_out_accuracy(refining.lane_of(parts)) - refining.left_out_accuracy(refining.lane_of(now))
        metrics = {
            "left_out_gain": gain,
            "pseudo_labels_taken": learnt.rounds[-1].taken,
            "pseudo_labels_checked": float(checked.taken),
            "pseudo_label_precision": checked.right / checked.taken if checked.taken else float("nan"),
        }
        return refining.propose(
            work,
            held,
            parts,
            now,
            made_by="sem.semi_supervised",
            about={
                "labelled": len(teachers),
                "unlabelled": len(rows),
                "rounds": [vars(each) for each in learnt.rounds],
            },
            metrics=metrics,
            gates=(Gate("left_out_gain", at_least=0.0),),
        )


def _counting(rows: Rows, quality: Rows) -> Rows:
    """The views that show something; all where none does."""
    kept = view_weights(rows, quality) > 0
    return rows[kept] if kept.any() else rows


def _unlabelled(run: Run, held: Stock, most: int) -> list[tuple[Rows, Rows]]:
    """Raw rows and qualities of the newest particles that nobody has reviewed."""
    query = (
        select(ParticleRow.id)
        .where(ParticleRow.tenant == held.tenant, ParticleRow.clearance <= held.clearance)
        .where(
            ParticleRow.role == "sample", ParticleRow.status.in_(("waiting", "confirmed", "needs_review", "unknown"))
        )
        .order_by(ParticleRow.id.desc())
        .limit(most)
    )
    with run.database.read() as session:
        seen = lanes.seen_of(session, list(session.scalars(query)), held.kind)
    return [
        (np.stack([view.raw for view in views]), np.array([view.quality.score for view in views], np.float32))
        for views in seen.values()
    ]


def _checked(
    run: Run, known: Taught, asked: Rows, pool: Sequence[Rows], method: Method, teachers: Sequence[KeptMaster]
) -> _Checked:
    """asked: (N, D) fused rows of the labelled particles."""
    kept = _Kept(run, teachers, method, str(len(pool)))
    place = folds_of(known.labels, known.classes, FOLDS)
    folds, logits, taken, right = _folds(known), np.full((len(asked), known.classes), np.nan), 0, 0
    for fold in folds:
        run.progress(0.1 + 0.7 * fold / len(folds), f"fold {fold + 1} of {len(folds)}")
        out, rest = np.flatnonzero(place == fold), known.some(np.flatnonzero(place != fold))
        if (key := str(fold)) not in kept.found:
            unseen = learn(rest.rows, rest.labels, pool, known.classes, method=method, seed=run.seed)
            run.raise_if_cancelled()
            hidden = learn(
                rest.rows,
                rest.labels,
                [*pool, *known.some(out).rows],
                known.classes,
                method=method,
                seed=run.seed,
            )
            kept.add(key, [unseen.logits(asked[out]).tolist(), hidden.pseudo[len(pool) :].tolist()])
        said, pseudo = kept.found[key]
        logits[out] = said
        taken += int((np.array(pseudo) >= 0).sum())
        right += int((np.array(pseudo) == known.labels[out]).sum())
    return _Checked(logits, taken, right)


def _log(run: Run, learnt: Learnt) -> None:
    for number, each in enumerate(learnt.rounds, start=1):
        run.log(number, pseudo_labels_taken=each.taken, threshold=each.threshold)
