"""What gold runs look like against each other: the null distributions that p-values come from.

Knows nothing of video or steps' meaning: numbers by (comparison, step) in, p-values out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_PRIOR_COMPARISONS = 4.0  # how many comparisons the pooled spread counts for beside a step's own


@dataclass(frozen=True)
class Null:
    """One statistic on gold–gold comparisons.

    centre, spread: (S,) per step; the spread is drawn towards that of all steps, for a step has few comparisons.
    pool: (n,) sorted, the standardised values of all comparisons, each against a centre that leaves it out.
    """

    centre: Floats
    spread: Floats
    pool: Floats

    def z(self, values: Floats) -> Floats:
        """(S,) standardised."""
        standardised: Floats = (values - self.centre) / self.spread
        return standardised

    def p(self, z: float) -> float:
        """Share of gold–gold comparisons at least as extreme as ``z``; see ``tail_p``."""
        return tail_p(self.pool, z, least_scale=0.25)


def fit_null(values: npt.ArrayLike, *, least_spread: float) -> Null | None:
    """Learn a statistic's null.

    Args:    values: (P, S), one row for each comparison, nan where there is none.   least_spread: the spread is never smaller.
    Returns: None with fewer than two comparisons of any step.
    """
    table = np.asarray(values, np.float64)
    known = np.isfinite(table)
    count = known.sum(axis=0)
    if table.ndim != 2 or count.max(initial=0) < 2:
        return None
    filled = np.where(known, table, 0.0)
    total = filled.sum(axis=0)
    overall = float(filled.sum() / known.sum())
    centre = np.where(count > 0, total / np.maximum(count, 1), overall)
    squares = np.where(known, (table - centre) ** 2, 0.0).sum(axis=0)
    pooled = squares.sum() / max(1, int((count - 1).clip(0).sum()))
    spread = np.sqrt((squares + _PRIOR_COMPARISONS * pooled) / (np.maximum(count - 1, 0) + _PRIOR_COMPARISONS))
    spread = np.maximum(spread, least_spread)
    others = np.where(count > 1, (total - filled) / np.maximum(count - 1, 1), np.nan)
    pool = ((table - others) / spread)[known & (count > 1)]
    return Null(centre, spread, np.sort(pool))


def tail_p(pool: Floats, value: float, *, least_scale: float) -> float:
    """Upper-tail p-value: the share of the pool at least as large, with add-one smoothing.

    Beyond the largest member the share cannot tell 'a little' from 'far' apart, so the largest quarter is continued by an
    exponential tail (the simple case of Knijnenburg et al. 2009) of a scale of at least ``least_scale``.

    Args:    pool: (n,) n ≥ 1.   value: finite.
    Returns: in (0, 1].
    """
    worse = int((pool >= value).sum())
    share = (1 + worse) / (1 + len(pool))
    if worse:
        return share
    start = float(np.quantile(pool, 0.75))
    excess = pool[pool > start] - start
    scale = max(float(excess.mean()) if excess.size else 0.0, least_scale)
    tail = (1 + excess.size) / (1 + len(pool)) * float(np.exp(-(value - start) / scale))
    return max(min(share, tail), 1e-9)


def discoveries(p_values: Sequence[float], *, tests: int, rate: float) -> tuple[bool, ...]:
    """Which hypotheses to reject so that at most ``rate`` of the rejected are false on average (Benjamini & Hochberg 1995).

    Args:    p_values: of the candidates.   tests: all hypotheses looked at, candidates or not.   rate: in (0, 1).
    """
    if not p_values:
        return ()
    p = np.asarray(p_values)
    order = np.argsort(p, kind="stable")
    passed = np.flatnonzero(p[order] <= rate * np.arange(1, len(p) + 1) / max(tests, len(p)))
    kept = np.zeros(len(p), np.bool_)
    if passed.size:
        kept[order[: passed[-1] + 1]] = True
    return tuple(bool(k) for k in kept)
