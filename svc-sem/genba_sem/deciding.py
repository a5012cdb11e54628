"""When to confirm, when to ask, when to say unknown. Scores and past reviews in, an outcome with its reasons out.

Auto-confirm promises a precision. An empirical threshold breaks such a promise in half of all deployments, so the threshold here is
one whose Clopper–Pearson lower bound holds, found by testing from a strict threshold down (fixed sequence: one level for all tests).
One error among the surest ends such a sequence. With many reviews others therefore start further down, each with its share of the
level, and inherit the one before where that arrives (fallback, Wiens 2003; Learn then Test, Angelopoulos et al. 2021).
Label sets are split conformal (Sadinle et al. 2019); the unknown threshold is a conformal quantile of how near known particles come
to their masters. A share of what is confirmed stays audited, for ever: without it nobody would notice a drift.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Outcome = Literal["confirmed", "review", "unknown"]

_LEAST_FOR_QUALITY: Final = 0.35
_LEAST_AGREEMENT: Final = 0.5
_BOUNDARY: Final = 0.15
_STARTS: Final = (0.25, 0.5)  # of the reviews, surest first: where further sequences of tests start


@dataclass(frozen=True)
class Policy:
    """precision: promised of what is confirmed; risk: of breaking it. set_coverage: of label sets. unknown_rate: known particles
    that may be called unknown. audit_share: of the confirmed that are reviewed all the same.
    """

    precision: float = 0.99
    risk: float = 0.1
    set_coverage: float = 0.9
    unknown_rate: float = 0.05
    audit_share: float = 0.05


@dataclass(frozen=True)
class Reviewed:
    """A past decision beside the truth. Only particles reviewed whatever their confidence (audits, a random or complete queue)
    belong here: a queue of doubtful ones says nothing of the sure ones.

    truth_probability: given to the true label, None when the truth is none of the masters' labels.
    """

    confidence: float
    correct: bool
    similarity: float
    truth_probability: float | None


@dataclass(frozen=True)
class Calibration:
    """confirm_at: confidence from which is confirmed, None while the promise cannot be kept; reviews_needed: reviews that are still
    lacking if they are all right and surer than those so far; 0 once it can. set_slack: labels within 1 − slack are in the set.
    unknown_below: similarity under which a particle is unknown.
    """

    confirm_at: float | None
    reviews_needed: int
    set_slack: float
    unknown_below: float
    reviews: int = 0


def reviews_for(precision: float, risk: float = 0.1) -> int:
    """Error-free reviews that a precision needs: 22, 45, 114, 230 for 90, 95, 98, 99 %."""
    return math.ceil(math.log(risk) / math.log(precision) - 1e-9)


def calibrate(
    reviews: Sequence[Reviewed], policy: Policy, *, left_out_truth: Floats, left_out_similarity: Floats
) -> Calibration:
    """Set the thresholds.

    left_out_truth: (N,) probability of the true label for masters left out in turn, used for label sets beside reviews;
    left_out_similarity: (N,) likewise for the unknown threshold.
    """
    truths = [review.truth_probability for review in reviews if review.truth_probability is not None]
    similar = [review.similarity for review in reviews if review.truth_probability is not None]
    threshold, lacking = _confirm_at(reviews, policy)
    enough = len(truths) >= reviews_for(policy.set_coverage)
    scores = 1 - np.asarray(truths if enough else [*left_out_truth, *truths], np.float64)
    slack = _upper_quantile(scores, policy.set_coverage)
    known = np.asarray(similar if len(similar) >= 1 / policy.unknown_rate * 2 else [*left_out_similarity, *similar])
    below = _least_known(known, policy.unknown_rate)
    return Calibration(threshold, lacking, min(slack, 1.0), max(below, -1.0), len(reviews))


def _confirm_at(reviews: Sequence[Reviewed], policy: Policy) -> tuple[float | None, int]:
    order = sorted(reviews, key=lambda review: -review.confidence)
    confidence = np.array([review.confidence for review in order])
    wrong = np.cumsum([0, *(not review.correct for review in order)])
    ends = np.searchsorted(-confidence, -confidence, side="right")  # a threshold takes in all that are as sure
    if surest := _surest(wrong, ends, policy):
        return float(confidence[surest - 1]), 0
    least = reviews_for(policy.precision, policy.risk) - len(order)
    for more in itertools.count(max(1, least)):  # ends where the surest alone suffice, at the latest
        later = np.concatenate([np.full(more, more), ends + more])
        if _surest(np.concatenate([np.zeros(more, np.int64), wrong]), later, policy):
            return None, more
    raise AssertionError


def _surest(wrong: Counts, ends: Counts, policy: Policy) -> int:
    """How many of the surest reviews keep the promise, by tests whose order is fixed before any outcome is seen; 0 for none.

    wrong: (N + 1,) errors among the n surest; ends: (N,) how many are at least as sure as the n-th.
    """
    found = 0
    carried = 0.0
    for risk, counts in _sequences(len(ends), policy):
        carried += risk
        allowed = _errors_allowed(len(ends), policy.precision, carried)
        for count in counts:
            at = int(ends[count - 1])
            if wrong[at] > allowed[at]:
                carried = 0.0
                break
            found = max(found, at)
    return found


def _sequences(reviews: int, policy: Policy) -> list[tuple[float, Counts]]:
    """Each a risk and the counts of surest reviews at which it is tested, strictest first."""
    least = reviews_for(policy.precision, policy.risk)
    step = max(1, least // 10)
    for shares in (_STARTS, _STARTS[1:]):
        risk = policy.risk / (len(shares) + 1)
        gains = (
            np.flatnonzero(np.diff(_errors_allowed(reviews, policy.precision, risk))) + 1
        )  # where one more error is let in
        places = np.searchsorted(gains, [share * reviews for share in shares], side="right") - 1
        if (
            places[0] >= 1 and (np.diff(places) > 0).all()
        ):  # every further start could bear an error; otherwise it would only cost
            bounds = [gains[0], *gains[places], reviews + 1]
            return [(risk, np.arange(start, end, step)) for start, end in itertools.pairwise(bounds)]
    return [(policy.risk, np.arange(least, reviews + 1, step))]


def _errors_allowed(reviews: int, precision: float, risk: float) -> Counts:
    """(reviews + 1,) the most errors among the n surest with which Clopper and Pearson still promise the precision; −1 for none."""
    return _errors_allowed_below(1 << reviews.bit_length(), precision, risk)[: reviews + 1]


@functools.lru_cache(maxsize=64)
def _errors_allowed_below(size: int, precision: float, risk: float) -> Counts:
    """The same for every n below ``size``: one table serves all the numbers of reviews that ``_confirm_at`` tries."""
    from scipy.stats import binom  # slow to load, and needed once there are reviews

    counts = np.arange(size)
    allowed = binom.ppf(risk, counts, 1 - precision)
    return np.asarray(allowed - (binom.cdf(allowed, counts, 1 - precision) > risk * (1 + 1e-9)), np.int64)


def _upper_quantile(scores: Floats, coverage: float) -> float:
    """The ⌈(n + 1) · coverage⌉-th smallest score; infinite where n is too small to promise."""
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


def _least_known(similarity: Floats, rate: float) -> float:
    """How near known particles come at least, but for ``rate`` of them; −1 where they are too few to say anything.

    A particle comes less near than all of n with a chance of 1 / (n + 1). Where that is above ``rate`` already, the least of them
    counts up to twice the rate: a lab that begins with two labels of five masters has no other way to be told of what is neither.
    """
    if len(similarity) + 1 < 1 / (2 * rate) - 1e-9:
        return -1.0
    return max(-_upper_quantile(-similarity, 1 - rate), float(similarity.min()))


def label_set(probabilities: Floats, labels: Sequence[str], calibration: Calibration) -> tuple[str, ...]:
    """The labels that hold the truth with the promised coverage, likeliest first; never empty."""
    order = np.argsort(-probabilities, kind="stable")
    members = [labels[index] for index in order if probabilities[index] >= 1 - calibration.set_slack - 1e-12]
    return tuple(members) or (labels[int(order[0])],)


def outcome_of(
    probabilities: Floats,
    *,
    similarity: float,
    agreement: float,
    quality: float,
    calibration: Calibration,
) -> tuple[Outcome, tuple[str, ...]]:
    """The outcome and its reasons: ``unknown``, ``poor_quality``, ``views_disagree``, ``boundary``, ``low_confidence``,
    ``not_calibrated``; none for what is confirmed.

    quality: the best view's; agreement: weighted share of views that would say the same.
    """
    ranked = np.sort(probabilities)[::-1]
    reasons = []
    if similarity < calibration.unknown_below:
        reasons.append("unknown")
    if quality < _LEAST_FOR_QUALITY:
        reasons.append("poor_quality")
    if agreement < _LEAST_AGREEMENT:
        reasons.append("views_disagree")
    if len(ranked) > 1 and ranked[0] - ranked[1] < _BOUNDARY:
        reasons.append("boundary")
    if calibration.confirm_at is None:
        reasons.append("not_calibrated")
    elif ranked[0] < calibration.confirm_at:
        reasons.append("low_confidence")
    if "unknown" in reasons:
        return "unknown", tuple(reasons)
    blocking = set(reasons) & {"not_calibrated", "low_confidence", "poor_quality"}
    return ("review" if blocking else "confirmed"), (tuple(reasons) if blocking else ())


def is_audited(particle_id: str, policy: Policy) -> bool:
    """Whether a confirmed particle is reviewed all the same: by its id, so that asking twice changes nothing."""
    draw = int.from_bytes(hashlib.sha256(particle_id.encode()).digest()[:8]) / 2**64
    return draw < policy.audit_share
