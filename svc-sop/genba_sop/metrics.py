"""How good the finding of steps and deviations is, against known truth. Knows nothing of how either was found.

Deviations are matched one to one by kind, step and temporal intersection over union; segmentation by the field's measures:
frame accuracy, edit score and F1@k (Lea et al. 2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from genba_sop.evaluation import DeviationKind
from genba_sop.procedure import Span

INSTANT_S = 4.0  # how far from the truth the moment of a missing step may lie


class Event(Protocol):
    """A deviation, found or planted; an instant has start = end."""

    @property
    def kind(self) -> DeviationKind: ...
    @property
    def step_id(self) -> str | None: ...
    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...


@dataclass(frozen=True)
class Tally:
    """Counts of one kind. precision, recall and f1 are nan where they are not defined (0 / 0)."""

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    @property
    def precision(self) -> float:
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        return _ratio(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)


@dataclass(frozen=True)
class Comparison:
    """Found against planted over any number of videos: counts by kind, and the IoU of the matched pairs that have a length."""

    tallies: Mapping[DeviationKind, Tally] = field(default_factory=dict)
    ious: tuple[float, ...] = ()

    def __add__(self, other: Comparison) -> Comparison:
        kinds = sorted({*self.tallies, *other.tallies})
        both = [(self.tallies.get(kind, Tally()), other.tallies.get(kind, Tally())) for kind in kinds]
        summed = [
            Tally(
                a.true_positives + b.true_positives,
                a.false_positives + b.false_positives,
                a.false_negatives + b.false_negatives,
            )
            for a, b in both
        ]
        return Comparison(dict(zip(kinds, summed, strict=True)), self.ious + other.ious)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the kinds that were planted or found; nan without any."""
        values = [tally.f1 for tally in self.tallies.values() if not np.isnan(tally.f1)]
        return float(np.mean(values)) if values else float("nan")

    @property
    def mean_iou(self) -> float:
        """Mean temporal IoU of the matched pairs; nan without any."""
        return float(np.mean(self.ious)) if self.ious else float("nan")


def temporal_iou(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Intersection over union of two time ranges; 0 for ranges that do not meet or that have no length."""
    overlap = min(a[1], b[1]) - max(a[0], b[0])
    union = max(a[1], b[1]) - min(a[0], b[0])
    return overlap / union if overlap > 0 and union > 0 else 0.0


def compare(found: Sequence[Event], planted: Sequence[Event], *, least_iou: float = 0.5) -> Comparison:
    """Match the deviations of one video one to one, as many as possible and then with the highest total IoU.

    Two match when they are of the same kind and step and their IoU is at least ``least_iou``; a missing step, which is an
    instant, when the two moments lie within ``INSTANT_S``.
    """
    from scipy.optimize import linear_sum_assignment  # slow to load; only benchmarks and training compare

    kinds = sorted({event.kind for event in (*found, *planted)})
    tallies, ious = {}, []
    for kind in kinds:
        mine = [event for event in found if event.kind == kind]
        true = [event for event in planted if event.kind == kind]
        closeness = np.array([[_closeness(f, t, least_iou) for t in true] for f in mine]).reshape(len(mine), len(true))
        rows, columns = linear_sum_assignment(-np.where(closeness > 0, closeness + 1.0, 0.0))
        hits = [(r, c) for r, c in zip(rows, columns, strict=True) if closeness[r, c] > 0]
        tallies[kind] = Tally(len(hits), len(mine) - len(hits), len(true) - len(hits))
        ious += [float(closeness[r, c]) for r, c in hits if true[c].end_s > true[c].start_s]
    return Comparison(tallies, tuple(ious))


def _closeness(found: Event, planted: Event, least_iou: float) -> float:
    """0 for no match, else the IoU; 1 for two instants that are near enough."""
    if found.step_id != planted.step_id:
        return 0.0
    if planted.end_s <= planted.start_s:
        return 1.0 if abs(found.start_s - planted.start_s) <= INSTANT_S else 0.0
    iou = temporal_iou((found.start_s, found.end_s), (planted.start_s, planted.end_s))
    return iou if iou >= least_iou else 0.0


def frame_accuracy(found: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Share of frames with the right label. Raises: ValueError for sequences of different or no length."""
    a, b = np.asarray(found), np.asarray(truth)
    if a.shape != b.shape or not a.size:
        raise ValueError(f"Labels of shapes {a.shape} and {b.shape} cannot be compared.")
    return float((a == b).mean())


def edit_score(found: Sequence[str], truth: Sequence[str]) -> float:
    """100 × (1 − Levenshtein distance of the two sequences of segments / the longer length); 100 for two empty ones."""
    row = list(range(len(truth) + 1))
    for i, mine in enumerate(found, 1):
        diagonal, row[0] = row[0], i
        for j, true in enumerate(truth, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (mine != true))
    longest = max(len(found), len(truth))
    return 100.0 * (1 - row[-1] / longest) if longest else 100.0


def segmental_f1(found: Sequence[Span], truth: Sequence[Span], *, least_iou: float) -> float:
    """F1@k of step segments: each true segment may be hit once, by a found one of its step with enough IoU."""
    open_spans = list(truth)
    hits = 0
    for span in found:
        near = [
            (temporal_iou((span.start_s, span.end_s), (true.start_s, true.end_s)), at)
            for at, true in enumerate(open_spans)
            if true.step_id == span.step_id
        ]
        if near and max(near)[0] >= least_iou:
            hits += 1
            del open_spans[max(near)[1]]
    return _ratio(2 * hits, len(found) + len(truth))


def boundary_f1(found_s: Sequence[float], truth_s: Sequence[float], *, tolerance_s: float = 1.0) -> float:
    """F1 of step boundaries, each matched at most once within the tolerance."""
    hits, at = 0, 0
    truth = sorted(truth_s)
    for moment in sorted(found_s):
        while at < len(truth) and truth[at] < moment - tolerance_s:
            at += 1
        if at < len(truth) and truth[at] <= moment + tolerance_s:
            hits += 1
            at += 1
    return _ratio(2 * hits, len(found_s) + len(truth_s))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
