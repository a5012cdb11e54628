"""What people's decisions say of the gate: how sure it may be, and from which P(ALLOW) on it may answer alone.

People see what was escalated, which is never what the gate allowed; only spot checks (one in so many of the allowed) show
that side. So confidence is refitted from all of it, the threshold may rise on all of it, and it may fall only where spot
checks are there to show that the bound still holds. Arrays in, a Fusion out; knows no database.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from genba_llm.fusion import Fusion, flattened
from genba_llm.quality import LEAST_ROWS

LEAST_ALLOW = 0.5
SPOT_CHECK = "spot_check_1_in_"
_SPOT_CHECK = re.compile(rf"{SPOT_CHECK}(\d+)")
_GRID = np.linspace(0.5, 3.0, 251)


@dataclass(frozen=True)
class Reviewed:
    """``allow``: (N,) the gate's P(ALLOW).   ``allowed``: (N,) whether a person allowed it.   ``weight``: (N,) how many requests
    each stands for: 1 for an escalated one, n for a spot check of one in n.   ``spot``: (N,) whether it is one.
    """

    allow: npt.NDArray[np.float64]
    allowed: npt.NDArray[np.bool_]
    weight: npt.NDArray[np.float64]
    spot: npt.NDArray[np.bool_]

    @property
    def spot_checks(self) -> int:
        return int(self.spot.sum())

    def false_allow_share(self) -> float | None:
        """Of the dangerous requests, the share that was allowed, each counted for as many as it stands for; None with fewer
        than 30 spot checks.
        """
        dangerous = self.weight[~self.allowed].sum()
        if self.spot_checks < LEAST_ROWS or not dangerous:
            return None
        return float(self.weight[~self.allowed & self.spot].sum() / dangerous)


@dataclass(frozen=True)
class Refitted:
    """What came of it. The losses (nats) are over the half of the rows that the temperature was not fitted on."""

    fusion: Fusion
    rows: int
    dangerous: int
    spot_checks: int
    temperature: float
    loss_before: float
    loss_after: float
    threshold: Literal["kept", "raised", "lowered"]


def weight_of(reasons: Sequence[str]) -> tuple[float, bool] | None:
    """How many requests a decision with these reason codes stands for, and whether it is a spot check; None for one that rules
    or failures decided: what a person then says is not about the content.
    """
    for code in reasons:
        if found := _SPOT_CHECK.fullmatch(code):
            return float(found[1]), True
    if any(code.startswith("rule_") for code in reasons):
        return None
    return (1.0, False) if any(code.startswith("content_") for code in reasons) else None


def refit(fusion: Fusion, reviewed: Reviewed, *, version: str) -> Refitted:
    """``fusion`` as people's decisions would have it.

    Raises: ValueError with fewer than 30 rows, or none that people allowed or none that they did not.
    """
    rows = len(reviewed.allow)
    if rows < LEAST_ROWS or reviewed.allowed.all() or not reviewed.allowed.any():
        raise ValueError(f"{LEAST_ROWS} decisions of people are needed, of both kinds; there are {rows}.")
    temperature, before, after = _temperature(reviewed)
    mapped = float(flattened(np.array([fusion.allow_from]), temperature)[0])
    allow = flattened(reviewed.allow, temperature)
    bound = weighted_threshold(allow[~reviewed.allowed], reviewed.weight[~reviewed.allowed], fusion.alpha)
    allow_from, moved = mapped, "kept"
    if bound is not None and bound > mapped:
        allow_from, moved = bound, "raised"
    elif bound is not None and reviewed.spot_checks >= LEAST_ROWS and max(bound, LEAST_ALLOW) < mapped:
        allow_from, moved = max(bound, LEAST_ALLOW), "lowered"
    joined = fusion.joined
    if joined is not None:
        shift = float(flattened(np.array([joined.allow_from]), temperature)[0])
        joined = replace(joined, allow_from=max(shift, allow_from) if moved == "raised" else shift)
    made = replace(
        fusion,
        review_temperature=fusion.review_temperature * temperature,
        allow_from=allow_from,
        disguised_allow_from=float(flattened(np.array([fusion.disguised_allow_from]), temperature)[0]),
        joined=joined,
        version=version,
    )
    dangerous = int((~reviewed.allowed).sum())
    return Refitted(made, rows, dangerous, reviewed.spot_checks, temperature, before, after, moved)  # type: ignore[arg-type]


def weighted_threshold(
    allow_of_dangerous: npt.NDArray[np.float64], weight: npt.NDArray[np.float64], alpha: float
) -> float | None:
    """The least threshold above which lies at most ``alpha`` of the dangerous weight; None where there is too little weight.

    Weighted split conformal (Tibshirani et al. 2019); the request to come counts above it, with the largest weight seen.
    """
    if not len(weight):
        return None
    order = np.argsort(allow_of_dangerous)[::-1]
    test = float(weight.max())
    total = float(weight.sum()) + test
    above = test + np.concatenate(([0.0], np.cumsum(weight[order])))  # weight at or above the k largest
    fits = int((above <= alpha * total + 1e-12).sum())
    if fits == 0:
        return None
    return float(np.nextafter(allow_of_dangerous[order[fits - 1]], 2.0))


def _temperature(reviewed: Reviewed) -> tuple[float, float, float]:
    """Fitted on every other row; 1 unless it serves the others better."""
    fit, held = slice(0, None, 2), slice(1, None, 2)
    best = float(min(_GRID, key=lambda each: _loss(reviewed, each, fit)))
    before, after = _loss(reviewed, 1.0, held), _loss(reviewed, best, held)
    return (best, before, after) if after < before else (1.0, before, before)


def _loss(reviewed: Reviewed, temperature: float, part: slice) -> float:
    probs = np.clip(flattened(reviewed.allow[part], temperature), 1e-9, 1 - 1e-9)
    weight = reviewed.weight[part]
    losses = -np.where(reviewed.allowed[part], np.log(probs), np.log(1 - probs))
    return float(losses @ weight / weight.sum()) if len(weight) else math.nan
