"""What a step looks like in the picture, small enough to keep and laid over the golds' picture.

Every video is kept as 60×80 pictures of half a second each. A trainee's are laid over the golds' by their medians, which
show the place without the people: an affine map (Evangelidis & Psarakis 2008) and, for the light, a gain and an offset of
each channel. Knows nothing of steps, and of what is right or wrong.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt

from genba_sop.medians import median, medians, ranked

Singles = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

HEIGHT, WIDTH, CHANNELS = 60, 80, 4
MAX_PICTURES = 2400
PICTURE_S = 0.5
LEAST_CORRELATION = 0.45  # of two places laid over each other; below, they are not the same place
_CLEARLY_LAID = 0.65
_LEAST_SHARED = 0.5  # of the other place must this video show
_FARTHEST_PX = 14  # may a camera have been turned, in the 60×80 pixels
_NEIGHBOURHOOD_PX, _LEAST_CONTRAST, _MOST_OUTLINE = 4.0, 3.0, 2.0
_BACKGROUND_PICTURES = 32
_DARKEST, _STEADY_GAIN, _STEADY_SHIFT = 20.0, 0.04, 2.0  # packed lightness; its share; packed a* and b*
UNPACK = np.array([100 / 255, 1, 1], np.float32)  # OpenCV packs L* into a byte
_MOVED = (6.0, 8.0)


@dataclass(frozen=True)
class Place:
    """A video's place: (60, 80, 3) float32 CIE L*a*b*, the median over time."""

    lab: Singles


@dataclass(frozen=True)
class Filmstrip:
    """A video's pictures, (P, 60, 80, 4) uint8 as ``Album`` keeps them, and which of them stands for each row, (M,)."""

    pictures: Bytes
    picture_of: Ints


@dataclass(frozen=True)
class View:
    """How one place is laid over another: (2, 3) affine map from the other's pixels to this one's, (3,) gain and offset."""

    matrix: Singles
    gain: Singles
    offset: Singles
    correlation: float

    @property
    def fits(self) -> bool:
        """Whether the two are the same place."""
        return self.correlation >= LEAST_CORRELATION

    @property
    def coarser(self) -> float:
        """Log of how many pixels of the other place a pixel of this one stands for, by area; below 0 for a nearer camera."""
        return -float(np.log(max(abs(float(np.linalg.det(self.matrix[:, :2]))), 1e-6)))

    def seen(self) -> Mask:
        """(60, 80) pixels of the other place that this video shows."""
        return self.laid_over(np.ones((HEIGHT, WIDTH), np.float32), outside=0.0) > 0.99

    def laid_over(self, picture: Singles, *, outside: float | None = None) -> Singles:
        """(60, 80, …) a map of this video in the other's pixels; what is not shown is the nearest, or ``outside``."""
        border = cv2.BORDER_REPLICATE if outside is None else cv2.BORDER_CONSTANT
        return np.asarray(
            cv2.warpAffine(
                picture,
                self.matrix,
                (WIDTH, HEIGHT),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=border,
                borderValue=outside or 0.0,
            ),
            np.float32,
        )


@dataclass
class Album:
    """A growing video's pictures: mean L*a*b* as OpenCV packs it, and how much of the time each pixel moves (255 = all of it).

    A picture is of ``frames`` frames; of a video that would fill more than ``MAX_PICTURES``, each is of twice as many, and so on.
    """

    frames: int
    pictures: list[Bytes] = field(default_factory=list)
    _sum: Singles = field(default_factory=lambda: np.zeros((HEIGHT, WIDTH, CHANNELS), np.float32))
    _count: int = 0
    _last: Singles | None = None
    _now: Singles = field(default_factory=lambda: np.zeros((HEIGHT, WIDTH, CHANNELS), np.float32))

    def add(self, rgb: Bytes) -> None:
        """Take the next frame, at least 60×80."""
        small = cv2.resize(rgb, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        packed = cv2.cvtColor(small, cv2.COLOR_RGB2Lab).astype(np.float32)
        self._now[..., :3] = packed
        self._now[..., 3] = 0 if self._last is None else 255 * _moved(packed - self._last)
        self._last = packed
        self._take()

    def repeat(self) -> None:
        """The last frame is still on the screen."""
        self._now[..., 3] = 0
        self._take()

    def _take(self) -> None:
        self._sum += self._now
        self._count += 1
        if self._count == self.frames:
            self._close()

    def _close(self) -> None:
        self.pictures.append((self._sum / self._count + 0.5).astype(np.uint8))
        self._sum[:], self._count = 0, 0
        if len(self.pictures) > MAX_PICTURES:
            pairs = zip(self.pictures[0::2], self.pictures[1::2], strict=False)
            self.pictures, self.frames = [cv2.addWeighted(a, 0.5, b, 0.5, 0) for a, b in pairs], 2 * self.frames

    def stacked(self) -> Bytes:
        """(P, 60, 80, 4) all pictures; call it once, at the end."""
        if self._count:
            self._close()
        return np.stack(self.pictures) if self.pictures else np.zeros((0, HEIGHT, WIDTH, CHANNELS), np.uint8)


def _moved(difference: Singles) -> Singles:
    """(60, 80) how clearly a packed colour changed, 0 to 1."""
    difference = difference * UNPACK
    distance = np.sqrt(np.einsum("hwc,hwc->hw", difference, difference))
    return np.asarray(np.clip((distance - _MOVED[0]) / _MOVED[1], 0, 1), np.float32)


def unpacked(pictures: Bytes | Singles) -> Singles:
    """(…, 60, 80, 4) float32 CIE L*a*b* of pictures, and how much moves as it is."""
    return pictures * _SCALE - _ZERO


def everywhere(channels: Singles) -> Singles:
    """(60, 80, 4) the same (4,) numbers at every pixel: several times as fast in NumPy as broadcasting so few."""
    return np.tile(channels, (HEIGHT, WIDTH, 1))


_SCALE, _ZERO = everywhere(np.append(UNPACK, np.float32(1))), everywhere(np.array([0, 128, 128, 0], np.float32))


def steadied(pictures: Bytes) -> Bytes:
    """(P, 60, 80, 4) the same in one light: where the exposure or the white balance changed while the camera ran, it is set back to
    that of the median picture. What is the same for most of the picture is light; small changes are left as they are.
    """
    if len(pictures) < 2:
        return pictures
    few = pictures[:, 2::4, 2::4, :3].reshape(len(pictures), -1, 3).astype(np.float32)  # (P, 300, 3)
    usual = medians(few[:: -(-len(few) // _BACKGROUND_PICTURES)], axis=0)
    bright = usual[:, 0] > _DARKEST
    if not bright.any():
        return pictures
    gain = medians(few[:, bright, 0] / usual[bright, 0], axis=1)  # (P,)
    shift = np.stack([medians(few[..., c] - usual[:, c], axis=1) for c in (1, 2)], axis=1)  # (P, 2)
    gain = np.where(np.abs(gain - 1) > _STEADY_GAIN, gain, 1.0)
    shift = np.where(np.abs(shift) > _STEADY_SHIFT, shift, 0.0)
    changed = np.flatnonzero((gain != 1) | shift.any(axis=1))
    if not changed.size:
        return pictures
    steady = pictures.copy()
    lab = pictures[changed, ..., :3].astype(np.float32)
    lab[..., 0] /= np.maximum(gain[changed], 0.1)[:, None, None]
    lab[..., 1:] -= shift[changed][:, None, None, :]
    steady[changed, ..., :3] = np.clip(lab + 0.5, 0, 255).astype(np.uint8)
    return steady


def place_of(pictures: Bytes) -> Place:
    """The place without the people, of (P, 60, 80, 4) pictures, P ≥ 1."""
    usual = upper_median(pictures[:: -(-len(pictures) // _BACKGROUND_PICTURES)])
    return Place(np.ascontiguousarray(unpacked(usual)[..., :3]))


def upper_median(pictures: Bytes) -> Bytes:
    """(60, 80, 4) the upper median of n pictures."""
    return np.asarray(ranked(pictures, len(pictures) // 2)[0], np.uint8)


def lay_over(mine: Place, theirs: Place) -> View:
    """Find how a place lies over another one; ``View.fits`` says whether it does at all.

    The search starts from no shift and, where that does not end well, from the shifts under which outlines and lightness fit best.
    """
    template, picture = _outline(theirs), _outline(mine)
    best = _laid_from(template, picture, np.eye(2, 3, dtype=np.float32))
    for one, other in ((template, picture), (theirs.lab[..., 0], mine.lab[..., 0])):
        if best.correlation < _CLEARLY_LAID:
            again = _laid_from(template, picture, _shift(one, other))
            best = max(best, again, key=lambda view: view.correlation)
    if not best.fits:
        return best
    gain, offset = _light(best.laid_over(mine.lab), theirs.lab, best.seen())
    return View(best.matrix, gain, offset, best.correlation)


def _laid_from(template: Singles, picture: Singles, start: Singles) -> View:
    """The affine map near ``start`` under which two outlines correlate most (Evangelidis & Psarakis 2008)."""
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-4)
    matrix, correlation = start.copy(), 0.0
    with suppress(cv2.error):  # it does not converge on places that have nothing in common
        correlation, matrix = cv2.findTransformECC(template, picture, matrix, cv2.MOTION_AFFINE, criteria, None, 5)
    view = View(np.asarray(matrix, np.float32), np.ones(3, np.float32), np.zeros(3, np.float32), float(correlation))
    return view if float(view.seen().mean()) >= _LEAST_SHARED else replace(view, correlation=0.0)


def _shift(template: Singles, picture: Singles) -> Singles:
    """(2, 3) the shift of whole pixels under which the template's middle correlates most with the picture."""
    inset_y, inset_x = HEIGHT // 8, WIDTH // 8
    wide = cv2.copyMakeBorder(picture, *[_FARTHEST_PX] * 4, cv2.BORDER_REPLICATE)
    middle = np.ascontiguousarray(template[inset_y:-inset_y, inset_x:-inset_x])
    x, y = cv2.minMaxLoc(cv2.matchTemplate(wide, middle, cv2.TM_CCOEFF_NORMED))[3]
    return np.array([[1, 0, x - _FARTHEST_PX - inset_x], [0, 1, y - _FARTHEST_PX - inset_y]], np.float32)


def _outline(place: Place) -> Singles:
    """(60, 80) lightness brought to the same contrast everywhere: a large thing that only one of two videos shows does not
    outweigh the place.
    """
    light = cv2.GaussianBlur(place.lab[..., 0], (0, 0), 0.8)
    light = light - cv2.GaussianBlur(light, (0, 0), _NEIGHBOURHOOD_PX)
    contrast = np.sqrt(cv2.GaussianBlur(light * light, (0, 0), _NEIGHBOURHOOD_PX)) + _LEAST_CONTRAST
    return np.asarray(np.clip(light / contrast, -_MOST_OUTLINE, _MOST_OUTLINE), np.float32)


def _light(mine: Singles, theirs: Singles, where: Mask) -> tuple[Singles, Singles]:
    """(3,) gain and (3,) offset of each channel, by least squares that leave out what fits badly."""
    lines = []
    for channel in range(3):
        x, y = mine[..., channel][where].astype(np.float64), theirs[..., channel][where].astype(np.float64)
        kept = np.ones(len(x), np.bool_)
        for _ in range(4):
            near_x, near_y = x[kept], y[kept]
            if np.ptp(near_x) < 1e-3:
                gain, offset = 1.0, median(y - x)
                break
            mean_x, mean_y = float(near_x.mean()), float(near_y.mean())
            centred = near_x - mean_x
            gain = float(centred @ (near_y - mean_y) / (centred @ centred))
            offset = mean_y - gain * mean_x
            error = np.abs(y - gain * x - offset)
            kept = error < 2 * median(error) + 1e-3
        lines.append((gain, offset))
    table = np.asarray(lines, np.float32)
    return table[:, 0], table[:, 1]
