"""The same as ``_evidence_numba`` where numba is missing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from genba_sop.medians import medians

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]


def own(colour: Singles, level: Singles, spread: Singles) -> Singles:
    """As ``_evidence_numba.own``."""
    rows = (colour - level) / spread[..., None]
    length = _length(rows)
    if len(rows) > 1:
        steps = _length(rows[1:] - rows[:-1])
        length[1:] = np.minimum(length[1:], steps)
        length[:-1] = np.minimum(length[:-1], steps)
    return length


def off(colour: Singles, level: Singles, spread: Singles, most: float) -> Singles:
    """As ``_evidence_numba.off``."""
    return np.asarray(np.minimum(_length((colour - level) / spread[..., None]), most).sum(axis=0), np.float32)


def unlike(lately: Singles, moving: Singles, usual: Singles, seen: Singles, floor: float) -> Floats:
    """As ``_evidence_numba.unlike``."""
    found = np.empty((len(lately), usual.shape[1]))
    for k, parts in enumerate(zip(lately, moving, strict=True)):
        off = np.zeros_like(usual[0])
        for (own, wide), most, least in zip(parts, usual[0::2], usual[1::2], strict=True):
            off += (own - most - np.float32(floor)).clip(0) + (least - wide - np.float32(floor)).clip(0)
        found[k] = off @ seen
    return found


def split(colour: Singles, spread: Singles, most: float) -> tuple[Singles, Singles, Singles]:
    """As ``_evidence_numba.split``."""
    steps = range(1, len(colour) - 2)
    before = np.stack([medians(colour[:s], axis=0) for s in steps])
    after = np.stack([medians(colour[s + 1 :], axis=0) for s in steps])
    pairs = zip(steps, before, after, strict=True)
    cost = [
        _cost(colour[:s], spread[:s], b, most) + _cost(colour[s + 1 :], spread[s + 1 :], a, most) for s, b, a in pairs
    ]
    return before, after, np.stack(cost)


def _cost(colour: Singles, spread: Singles, level: Singles, most: float) -> Singles:
    off = np.moveaxis((colour - level) / spread[:, None], 1, -1)
    return np.asarray(np.minimum(_length(off), most).sum(axis=0), np.float32)


def _length(rows: Singles) -> Singles:
    return np.asarray(np.sqrt(np.einsum("...c,...c->...", rows, rows)), np.float32)
