"""Which labels are probably wrong: ranked by confident learning's label quality (Northcutt et al. 2021), for a person to look at.

The ranking finds planted errors; the flag that such methods also offer does not at five masters a label, so none is raised.
Equal to ``cleanlab.rank.get_label_quality_scores(method="normalized_margin", adjust_pred_probs=True)`` (tested).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genba_sem.classifier import DEFAULT, fitted_temperature, leave_out, tempered

Rows = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelIssue:
    """A label that deserves a look. index: of the particle; quality: [0, 1], lower is more doubtful; suggested: likelier label."""

    index: int
    quality: float
    given: str
    suggested: str


def label_quality(probabilities: Floats, given: Labels) -> Floats:
    """(N,) in [0, 1] from (N, C) probabilities that have not seen the labels they judge.

    Probabilities are first measured against each label's own average confidence, so that a hard label is not suspected as a whole.
    """
    count, classes = probabilities.shape
    own = probabilities[np.arange(count), given]
    average = np.array([own[given == label].mean() if (given == label).any() else 1.0 for label in range(classes)])
    adjusted = probabilities - average
    adjusted += average.max()
    adjusted /= adjusted.sum(1, keepdims=True)
    others = adjusted.copy()
    others[np.arange(count), given] = -np.inf
    return np.asarray((adjusted[np.arange(count), given] - others.max(1) + 1) / 2)


def ranked_issues(
    rows: Rows, given: Labels, labels: Sequence[str], *, classifier: str = DEFAULT, folds: int = 5
) -> list[LabelIssue]:
    """Every particle whose label others can judge, most doubtful first.

    rows: (N, D) fused unit rows; given: (N,) indices into labels. Particles that are alone in their label are passed over.
    """
    left_out = leave_out(classifier, rows, given, len(labels), folds=folds)
    where = np.flatnonzero(np.bincount(given, minlength=len(labels))[given] > 1)
    if len(where) == 0:
        return []
    probabilities = tempered(left_out.logits, fitted_temperature(left_out.logits, left_out.labels))
    quality = label_quality(probabilities, left_out.labels)
    issues = []
    for at in np.argsort(quality, kind="stable"):
        likeliest = int(probabilities[at].argmax())
        issues.append(
            LabelIssue(int(where[at]), float(quality[at]), labels[int(left_out.labels[at])], labels[likeliest])
        )
    return issues
