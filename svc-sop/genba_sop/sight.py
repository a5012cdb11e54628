"""What one video shows of each step, in the golds' pixels.

For each step there are four maps: how it looks on average and in the median, where something covers the place, and where
something moves. Knows nothing of what is right or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from genba_sop.kernels import kernels_of
from genba_sop.medians import medians
from genba_sop.scene import (
    CHANNELS,
    HEIGHT,
    UNPACK,
    WIDTH,
    Filmstrip,
    Place,
    View,
    everywhere,
    unpacked,
    upper_median,
)

Bytes = npt.NDArray[np.uint8]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_STEP_PICTURES = 24  # of a step that lasts long
_BORDER_PICTURES = 1  # near its borders a step's pictures are mixed with its neighbours'
_RECENT_PICTURES = 9  # that a median over a while is made of
_COVERED = (5.0, 8.0)  # CIE 1976 difference from the place, from which on something covers it, and over how much more


def warm_up() -> None:
    """Load or compile the inner loops now rather than in the first request."""
    one = np.zeros((1, 1, 1, CHANNELS), np.uint8)
    share, first = np.empty((2, 1, 1, 1), np.float32), np.zeros(1, np.int64)
    kernels_of("sight").covered(share, one, first, one[0], one, first, np.ones(3, np.float32), *_COVERED)
    kernels_of("sight").averaged(share, first)
    upper_median(one)
    medians(share[0], axis=0)


@dataclass(frozen=True)
class Activity:
    """Where something is going on in n stretches of a video, in the golds' pixels.

    covered, moving: (n, 60, 80) share of the stretch's time.   lately: (n, 60, 80) the same of what is covered and was not for a
    while before and after: what was put there for good, whenever that was, covers nothing.
    done: (n,) whether it was seen at all; its maps are 0 otherwise.
    seen: (60, 80) pixels that the video shows.
    """

    covered: Singles
    lately: Singles
    moving: Singles
    done: Mask
    seen: Mask


@dataclass(frozen=True)
class StepMaps(Activity):
    """And how they look.   mean, median: (n, 60, 80, 3) L*a*b*."""

    mean: Singles
    median: Singles


class Sight:
    """One video's pictures in the golds' pixels. What covers the place is worked out once for each picture that is asked for.

    The place is the median over the video; lately, it is that or the median over the ``recent`` pictures around, whichever is
    nearer.
    """

    def __init__(self, strip: Filmstrip, place: Place, view: View, *, recent: int) -> None:
        self.strip, self.view, self.seen = strip, view, view.seen()
        self._place = np.zeros((HEIGHT, WIDTH, CHANNELS), np.uint8)
        self._place[..., :3] = np.rint((place.lab + np.array([0, 128, 128], np.float32)) / UNPACK)
        self._weight = np.asarray(np.square(UNPACK * view.gain), np.float32)
        self._gain = everywhere(np.append(view.gain, np.float32(1)))
        self._offset = everywhere(np.append(view.offset, np.float32(0)))
        self._covered = np.empty((2, len(strip.pictures), HEIGHT, WIDTH), np.float32)  # by the one place, and the other
        self._known, self._pictures = np.zeros(len(strip.pictures), np.bool_), np.ascontiguousarray(strip.pictures)
        self._recent, self._recent_places = max(2, recent), dict[int, Bytes]()
        self._while = max(1, self._recent // 4)

    def activity(self, rows: Sequence[Ints]) -> Activity:
        """Where something covers the place or moves in each stretch, given as rows in order, perhaps none."""
        covered, lately, moving = (np.zeros((len(rows), HEIGHT, WIDTH), np.float32) for _ in range(3))
        done = np.zeros(len(rows), np.bool_)
        for n, own in enumerate(rows):
            chosen = self._chosen(own)
            if chosen.size:
                done[n] = True
                moves = _average(self.strip.pictures[_evenly(chosen)])[..., 3] / np.float32(255)
                shares = self.view.laid_over(np.dstack([*self._cover(chosen), moves]))
                covered[n], lately[n], moving[n] = shares[..., 0], shares[..., 1], shares[..., 2]
        return Activity(covered, lately, moving, done, self.seen)

    def maps(self, rows: Sequence[Ints]) -> StepMaps:
        """The maps of every stretch, as ``activity``."""
        active = self.activity(rows)
        mean, median = (np.zeros((len(rows), HEIGHT, WIDTH, 3), np.float32) for _ in range(2))
        for n in np.flatnonzero(active.done).tolist():
            pictures = self.strip.pictures[_evenly(self._chosen(rows[n]))]  # (k, 60, 80, 4)
            mean[n], median[n] = self._lit(_average(pictures)), self._lit(upper_median(pictures))
        return StepMaps(**vars(active), mean=mean, median=median)

    def _lit(self, picture: Singles | Bytes) -> Singles:
        """(60, 80, 3) L*a*b* of a (60, 80, 4) picture, in the other place's pixels and light."""
        return self.view.laid_over(unpacked(picture) * self._gain + self._offset)[..., :3]

    def _chosen(self, rows: Ints) -> Ints:
        """The pictures that stand for a stretch: not its first and last, not too many; none of a stretch of one."""
        chosen = np.unique(self.strip.picture_of[rows])
        border = min(_BORDER_PICTURES, len(chosen) // 4)
        chosen = chosen[border : len(chosen) - border]
        return chosen[:: -(-len(chosen) // _STEP_PICTURES)] if len(chosen) > 1 else chosen[:0]

    def _cover(self, chosen: Ints) -> Singles:
        """(2, 60, 80) mean over these pictures of how clearly something covers the place, and lately."""
        new = chosen[~self._known[chosen]]
        if new.size:
            whiles, around = np.unique(new // self._while, return_inverse=True)
            recent = np.stack([self._place_in(at) for at in whiles.tolist()])
            kernels_of("sight").covered(
                self._covered, self._pictures, new, self._place, recent, around, self._weight, *_COVERED
            )
            self._known[new] = True
        averaged: Singles = kernels_of("sight").averaged(self._covered, chosen)
        return averaged

    def _place_in(self, at: int) -> Bytes:
        """(60, 80, 4) the median of the pictures around a while, a few pictures long."""
        if at not in self._recent_places:
            middle_of = at * self._while + self._while // 2
            low = max(0, min(middle_of - self._recent // 2, len(self.strip.pictures) - self._recent))
            around = self.strip.pictures[low : low + self._recent]
            self._recent_places[at] = upper_median(around[:: -(-len(around) // _RECENT_PICTURES)])
        return self._recent_places[at]


def _evenly(chosen: Ints) -> slice | Ints:
    """The same rows as a slice where they are evenly spaced: nothing is copied then."""
    step = int(chosen[1] - chosen[0]) if len(chosen) > 1 else 1
    return slice(int(chosen[0]), int(chosen[-1]) + 1, step) if (np.diff(chosen) == step).all() else chosen


def _average(pictures: Bytes) -> Singles:
    """(60, 80, 4) mean of n pictures: sums of bytes are exact, and OpenCV's are twice as fast as NumPy's."""
    total = cv2.reduce(pictures.reshape(len(pictures), -1), 0, cv2.REDUCE_SUM, dtype=cv2.CV_32F)
    return np.asarray(total.reshape(pictures.shape[1:]) / np.float32(len(pictures)), np.float32)
