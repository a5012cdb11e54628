"""Find, by the pixels alone, the banner under a micrograph and the scale bar in it. The header's word goes first: micrograph.py.

Reads no text: a length read wrongly is worse than none, so a bar is given in pixels and its length is for a person to say.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float32]

_MODAL_SHARE: Final = 0.35  # of a banner's row lies on one grey
_LEAST_ROWS: Final = 10
_MOST_SHARE: Final = 0.3
_GAP_ROWS: Final = 3  # frame lines cross a banner
_TOLERANCE: Final = 0.02
_INK: Final = 0.25  # what differs from the ground by this much is writing
_INK_SHARE: Final = (0.004, 0.5)
_BAR_SHARE: Final = (0.03, 0.6)  # of the width


def image_rows(pixels: Pixels) -> int:
    """Rows above a banner; all rows where no banner is seen.

    pixels: (H, W) in [0, 1]. A banner is a block at the bottom whose rows mostly lie on one and the same grey, with writing
    on it, and a straight edge across the picture above it. A dark empty background has neither writing nor edge.
    """
    height, width = int(pixels.shape[0]), int(pixels.shape[1])
    if height < 4 * _LEAST_ROWS or width < 4 * _LEAST_ROWS:
        return height
    lowest = int(height * (1 - _MOST_SHARE))
    ground = _modal_grey(pixels[-_LEAST_ROWS:])
    on_ground = np.abs(pixels[lowest:] - ground) <= _TOLERANCE  # (rows, W)
    top = lowest + _top_of_block(on_ground.mean(1) >= _MODAL_SHARE)
    if not lowest < top <= height - _LEAST_ROWS:
        return height
    ink = float((np.abs(pixels[top:] - ground) >= _INK).mean())
    edge = float((np.abs(pixels[top - 3 : top].mean(0) - pixels[top : top + 3].mean(0)) > _TOLERANCE * 2).mean())
    return top if _INK_SHARE[0] <= ink <= _INK_SHARE[1] and edge >= 0.5 else height


def scale_bar_px(banner: Pixels) -> int | None:
    """Length of the scale bar in the banner's rows: the longest level stroke that is no frame line; None without one.

    banner: (h, W) in [0, 1].
    """
    height, width = banner.shape
    if height < _LEAST_ROWS:
        return None
    ink = np.abs(banner - _modal_grey(banner)) >= _INK
    longest = 0
    for row in ink:
        runs = _runs(row)
        if runs.size and runs.max() < _BAR_SHARE[1] * width:
            longest = max(longest, int(runs.max()))
    return longest if longest >= _BAR_SHARE[0] * width else None


def _modal_grey(pixels: Pixels) -> float:
    counts, edges = np.histogram(pixels, bins=128, range=(0.0, 1.0))
    best = int(counts.argmax())
    inside = pixels[(pixels >= edges[best]) & (pixels <= edges[best + 1])]
    return float(np.median(inside))


def _top_of_block(flat: npt.NDArray[np.bool_]) -> int:
    """Index of the first row of the block of flat rows that ends at the bottom; gaps of a few rows belong to it."""
    top, row, gap = len(flat), len(flat) - 1, 0
    while row >= 0 and gap <= _GAP_ROWS:
        if flat[row]:
            top, gap = row, 0
        else:
            gap += 1
        row -= 1
    return top


def _runs(row: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
    return np.asarray(edges[1::2] - edges[::2], np.int64)
