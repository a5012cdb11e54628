"""What reviewers say of evaluations: keep every word, measure how far they agree, and learn from them what a raw
score is worth.

Knows nothing of HTTP or of video.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from genba_shared import records
from genba_shared.db import utc_now
from genba_shared.ids import new_id
from genba_shared.principal import Principal
from genba_shared.problems import Conflict, Invalid, fault
from genba_sop.conformal import Calibration, calibrate
from genba_sop.conformal import Review as Lesson
from genba_sop.tables import EvaluationRow, Review

MOST_LESSONS: Final = 5000


@dataclass(frozen=True)
class Said:
    """A reviewer's word on one evaluation."""

    verdict: str
    reason: str
    score: float | None = None
    deviations: tuple[tuple[int, bool], ...] = ()  # (index, is it real)


def add(session: Session, principal: Principal, evaluation_id: str, said: Said) -> Review:
    """Keep a review; the evaluation's reviewed verdict becomes its verdict. The machine's own stays as it was.

    Raises:  NotFound; Conflict for one's own evaluation; Invalid for a deviation that the evaluation does not have.
    """
    row = records.get(session, EvaluationRow, evaluation_id, principal, lock=True)
    if row.operator is not None and row.operator == principal.subject:
        raise Conflict("Nobody reviews the video in which they were filmed themselves.")
    known = len(row.document["deviations"])
    faults = [
        fault(f"deviations[{at}].index", f"the evaluation has {known} deviations, counted from 0")
        for at, (index, _) in enumerate(said.deviations)
        if index >= known
    ]
    if faults:
        raise Invalid(f"{faults[0]['field']}: {faults[0]['message']}", errors=list(faults))
    review = Review(
        id=new_id("rev"),
        evaluation_id=row.id,
        reviewer=principal.subject,
        verdict=said.verdict,
        score=said.score,
        reason=said.reason,
        deviations=[{"index": index, "confirmed": confirmed} for index, confirmed in said.deviations],
        created_at=utc_now(),
    )
    row.reviewed_verdict = said.verdict
    session.add(review)
    session.flush()
    return review


@dataclass(frozen=True)
class Agreement:
    """How far reviewers agree with each other and with the machine; None where nothing can be compared."""

    evaluations_reviewed_twice: int
    percent_agreement: float | None
    krippendorff_alpha: float | None
    machine_agreement: float | None


def agreement(reviews: Sequence[tuple[EvaluationRow, Review]]) -> Agreement:
    """Agreement over reviews, oldest first; of each reviewer the latest word per evaluation counts."""
    ratings: dict[str, dict[str, str]] = defaultdict(dict)
    latest: dict[str, tuple[str, str]] = {}
    for evaluation, review in reviews:
        ratings[evaluation.id][review.reviewer] = review.verdict
        latest[evaluation.id] = (evaluation.verdict, review.verdict)
    decided = [(machine, human) for machine, human in latest.values() if machine != "needs_review"]
    units = [list(unit.values()) for unit in ratings.values() if len(unit) > 1]
    same = [sum(pair) / len(pair) for unit in units if (pair := _pairs(unit))]
    return Agreement(
        evaluations_reviewed_twice=len(units),
        percent_agreement=sum(same) / len(same) if same else None,
        krippendorff_alpha=krippendorff_alpha(units),
        machine_agreement=sum(m == h for m, h in decided) / len(decided) if decided else None,
    )


def _pairs(unit: Sequence[str]) -> list[bool]:
    return [unit[i] == unit[j] for i in range(len(unit)) for j in range(i)]


def krippendorff_alpha(units: Sequence[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha for nominal data (Krippendorff 2011), any number of raters, missing ratings left out.

    Args:    units: the ratings of each unit; units with fewer than two are ignored.
    Returns: 1 for perfect agreement, 0 for chance, None without two ratings of a unit or with one value only.
    """
    units = [unit for unit in units if len(unit) > 1]
    totals = Counter(value for unit in units for value in unit)
    n = sum(totals.values())
    if n == 0 or len(totals) < 2:
        return None
    disagreed = sum(_disagreement(Counter(unit)) / (len(unit) - 1) for unit in units)
    return 1.0 - (n - 1) * disagreed / _disagreement(totals)


def _disagreement(counts: Mapping[Hashable, int]) -> float:
    """Ordered pairs of unequal values."""
    n = sum(counts.values())
    return float(n * n - sum(count * count for count in counts.values()))


def calibration(session: Session, tenant: str, clearance: int) -> Calibration:
    """What the reviewers of one tenant have taught about evaluations up to this label; see ``conformal.calibrate``.

    Of each reviewer the latest score of an evaluation counts, several reviewers are averaged, and the newest
    ``MOST_LESSONS`` evaluations are learnt from. A score carries nothing of records above its own label: with few reviews, a
    caller could read from a changed score that there was another one, and roughly what it said.
    """
    reviewed = EvaluationRow.id == Review.evaluation_id
    seen = (reviewed, EvaluationRow.tenant == tenant, EvaluationRow.clearance <= clearance)
    # Not a join: from the newest review backwards, instead of through every evaluation that nobody reviewed.
    query = select(
        Review.evaluation_id,
        Review.reviewer,
        Review.score,
        select(EvaluationRow.procedure_id).where(reviewed).scalar_subquery().label("procedure_id"),
        select(EvaluationRow.raw_score).where(reviewed).scalar_subquery().label("raw_score"),
    ).where(Review.score.is_not(None), exists().where(*seen))
    said: dict[str, dict[str, float]] = {}
    about: dict[str, tuple[str, float]] = {}
    for row in session.execute(query.order_by(Review.id.desc()).limit(MOST_LESSONS)):
        said.setdefault(row.evaluation_id, {}).setdefault(row.reviewer, float(row.score))
        about[row.evaluation_id] = (row.procedure_id, row.raw_score)
    return calibrate(
        [
            Lesson(procedure_id=about[key][0], score=about[key][1], reviewed=sum(by.values()) / len(by))
            for key, by in reversed(said.items())
        ]
    )


def confirmed(reviews: Sequence[Review]) -> dict[int, Any]:
    """The latest word on each deviation, by its index."""
    return {item["index"]: item["confirmed"] for review in reviews for item in review.deviations}
