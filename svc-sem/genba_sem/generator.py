"""Micrographs whose truth is known: particles of eight kinds, from any side, under good and bad conditions, as instrument files.

A particle is a solid of spheres and half-spaces seen along parallel rays; its brightness follows slope, as secondary electrons do.
The outline, the pixel size and the kind are exact, so segmentation, measuring and classifying can be tested against them. Knows
nothing of the rest of the service.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Maker = Literal["FEI", "Hitachi"]

_NOWHERE: Final = -1e9
_BANNER_SHARE: Final = 0.08
_VIEWS: Final = 6


@dataclass(frozen=True, eq=False)
class Particle:
    """A solid of about unit radius. spheres: (S, 4) centre and radius, united; planes: (P, 4) outward normal and distance,
    which cut what lies beyond; pits: (Q, 4) spheres taken away, seen as dark pores. grain: roughness of the surface.
    """

    kind: str
    spheres: Floats
    planes: Floats
    pits: Floats
    grain: float
    size_um: float


@dataclass(frozen=True)
class Condition:
    """How a picture was taken. blur_px, noise: standard deviations; charging: strength of streaks; crop: share of the particle
    pushed over the border; gain: brightness; black: the shutter was closed; banner: a bar with writing under the picture.
    """

    blur_px: float = 0.6
    noise: float = 0.02
    charging: float = 0.0
    crop: float = 0.0
    gain: float = 1.0
    black: bool = False
    banner: bool = True


SPOILT: Final = {
    "cropped": Condition(crop=0.5),
    "blurred": Condition(blur_px=6.0),
    "noisy": Condition(noise=0.22),
    "charging": Condition(charging=0.5),
    "black": Condition(black=True),
}


@dataclass(frozen=True, eq=False)
class Micrograph:
    """pixels: (H, W) in [0, 1] with the banner's rows; mask: the particle's pixels in the same frame; scale_bar_px and
    scale_bar_nm: of the bar drawn in the banner, 0 without one.
    """

    pixels: Pixels
    mask: Mask
    pixel_size_nm: float
    kind: str
    banner_rows: int
    scale_bar_px: int
    scale_bar_nm: float
    condition: Condition


def make_particle(kind: str, rng: np.random.Generator) -> Particle:
    """A new particle of one of ``KINDS``. Raises: ValueError for another kind."""
    if kind not in _MAKERS:
        raise ValueError(f"{kind!r} is none of {', '.join(KINDS)}.")
    return _MAKERS[kind](rng)


def photograph(
    particle: Particle, rng: np.random.Generator, *, side_px: int = 256, condition: Condition | None = None
) -> Micrograph:
    """Take a picture from a random side."""
    condition = condition or Condition()
    turn = _random_turn(rng)
    middle = rng.uniform(-0.05, 0.05, 2)
    scale = side_px / 2 / rng.uniform(1.35, 1.6)  # pixels a unit length
    if condition.crop:
        away = rng.uniform(0, 2 * np.pi)
        middle = (side_px / 2 / scale + 0.9 * condition.crop - 0.45) * np.array([np.cos(away), np.sin(away)])
    height, slope, mask, pores = _rendered(particle, turn, middle, scale, side_px)
    pixels = _developed(height, slope, mask, pores, particle, condition, rng)
    pixel_size_nm = particle.size_um * 1000 / 2 / scale
    banner = _banner(side_px, pixel_size_nm, rng) if condition.banner else None
    rows = 0 if banner is None else banner[0].shape[0]
    if banner is not None:
        pixels = np.concatenate([pixels, banner[0]])
        mask = np.concatenate([mask, np.zeros((rows, side_px), bool)])
    bar_px, bar_nm = (0, 0.0) if banner is None else banner[1:]
    return Micrograph(pixels, mask, pixel_size_nm, particle.kind, rows, bar_px, bar_nm, condition)


def six_views(
    particle: Particle,
    rng: np.random.Generator,
    *,
    side_px: int = 256,
    spoilt: Sequence[str] = (),
    count: int = _VIEWS,
) -> list[Micrograph]:
    """``count`` pictures of one particle; the first ones under the spoilt conditions named, the rest under ordinary ones."""
    conditions = [SPOILT[name] for name in spoilt]
    conditions += [_ordinary(rng) for _ in range(count - len(conditions))]
    return [photograph(particle, rng, side_px=side_px, condition=condition) for condition in conditions[:count]]


def field_of_particles(
    rng: np.random.Generator, *, count: int = 40, side_px: int = 768, median_px: float = 46.0
) -> tuple[Pixels, npt.NDArray[np.int32], npt.NDArray[np.bool_], Floats]:
    """A field of discs of which later ones cover earlier ones.

    Returns: pixels (H, W); labels (H, W) int32 of the visible parts; covered (count,), of which a twentieth or more is hidden;
    true diameters (count,) in pixels.
    """
    labels = np.zeros((side_px, side_px), np.int32)
    diameters = median_px * np.exp(rng.normal(0, 0.25, count))
    y, x = np.mgrid[:side_px, :side_px]
    pixels = np.full((side_px, side_px), 0.15)
    for number, diameter in enumerate(diameters, 1):
        radius = diameter / 2
        middle = rng.uniform(radius + 3, side_px - radius - 3, 2)
        distance = np.hypot(x - middle[0], y - middle[1])
        inside = distance <= radius
        labels[inside] = number
        pixels[inside] = 0.45 + 0.45 * np.square(distance[inside] / radius)
    visible = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    covered = visible < 0.95 * np.pi * np.square(diameters / 2)
    noisy = cv2.GaussianBlur(pixels, (0, 0), 0.8) + rng.normal(0, 0.02, pixels.shape)
    return np.clip(noisy, 0, 1).astype(np.float32), labels, covered, diameters


def as_tiff(micrograph: Micrograph, *, maker: Maker = "FEI") -> bytes:
    """The file that the maker's instrument would write, its pixel size where that maker puts it."""
    import tifffile

    file = io.BytesIO()
    data = (micrograph.pixels * 255).round().astype(np.uint8)
    metre = f"{micrograph.pixel_size_nm * 1e-9:.9g}"
    if maker == "Hitachi":
        text = f"[Condition.Lens]\nMachineNo=SU8230\n[Condition.Screen]\nPixelSize={micrograph.pixel_size_nm:.9g} nm\n"
        tifffile.imwrite(file, data, photometric="minisblack", description=text, metadata=None)
        return file.getvalue()
    rows = data.shape[0] - micrograph.banner_rows
    lines = [
        "[System]\r\nSystemType=Generator\r\n",
        f"[Scan]\r\nPixelWidth={metre}\r\nPixelHeight={metre}\r\n",
        f"[Image]\r\nResolutionX={data.shape[1]}\r\nResolutionY={rows}\r\n",
        f"[PrivateFei]\r\nDatabarHeight={micrograph.banner_rows}\r\n",
    ]
    tag = (34682, 2, 0, "".join(lines), True)
    tifffile.imwrite(file, data, photometric="minisblack", extratags=[tag], metadata=None)
    return file.getvalue()


def _ordinary(rng: np.random.Generator) -> Condition:
    return Condition(blur_px=rng.uniform(0.4, 1.2), noise=rng.uniform(0.01, 0.05), gain=rng.uniform(0.8, 1.15))


def _random_turn(rng: np.random.Generator) -> Floats:
    """(3, 3) uniform rotation."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return np.asarray(q if np.linalg.det(q) > 0 else q @ np.diag([1.0, 1.0, -1.0]))


def _rendered(
    particle: Particle, turn: Floats, middle: Floats, scale: float, side_px: int
) -> tuple[Floats, Floats, Mask, Pixels]:
    """Height (H, W), slope (H, W), mask, and how deep in a pore each pixel lies, [0, 1]."""
    axis = (np.arange(side_px) - (side_px - 1) / 2) / scale
    x, y = axis[None, :] - middle[0], axis[:, None] - middle[1]
    top = np.full((side_px, side_px), _NOWHERE)
    for centre_x, centre_y, centre_z, radius in _turned(particle.spheres, turn):
        rows = np.flatnonzero(np.abs(y[:, 0] - centre_y) <= radius)
        columns = np.flatnonzero(np.abs(x[0] - centre_x) <= radius)
        if not len(rows) or not len(columns):
            continue
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        left = radius**2 - np.square(x[:, part[1]] - centre_x) - np.square(y[part[0]] - centre_y)
        np.maximum(top[part], np.where(left >= 0, centre_z + np.sqrt(np.maximum(left, 0)), _NOWHERE), out=top[part])
    top = _cut(top, particle.planes @ np.block([[turn.T, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]]), x, y)
    mask = top > _NOWHERE / 2
    height = np.where(mask, top, top[mask].min() if mask.any() else 0.0)
    down, across = np.gradient(cv2.GaussianBlur(height, (0, 0), 0.8) * scale)
    pores = np.zeros((side_px, side_px), np.float32)
    for centre_x, centre_y, centre_z, radius in _turned(particle.pits, turn):
        if centre_z > 0:
            near = 1 - np.hypot(x - centre_x, y - centre_y) / radius
            np.maximum(pores, np.clip(3 * near, 0, 1), out=pores)
    return height, np.hypot(down, across), mask, pores * mask


def _turned(spheres: Floats, turn: Floats) -> Floats:
    return np.concatenate([spheres[:, :3] @ turn.T, spheres[:, 3:]], axis=1) if len(spheres) else spheres


def _cut(top: Floats, planes: Floats, x: Floats, y: Floats) -> Floats:
    """Lower the surface to the planes that face the viewer; take away what lies beyond those that face aside or away."""
    bottom = np.full_like(top, _NOWHERE)
    for normal_x, normal_y, normal_z, distance in planes:
        rest = distance - normal_x * x - normal_y * y
        if normal_z > 1e-6:
            top = np.minimum(top, rest / normal_z)
        elif normal_z < -1e-6:
            bottom = np.maximum(bottom, rest / normal_z)
        else:
            top = np.where(rest >= 0, top, _NOWHERE)
    return np.where(top > bottom, top, _NOWHERE)


def _developed(
    height: Floats,
    slope: Floats,
    mask: Mask,
    pores: Pixels,
    particle: Particle,
    condition: Condition,
    rng: np.random.Generator,
) -> Pixels:
    side_px = mask.shape[0]
    if condition.black:
        return np.zeros((side_px, side_px), np.float32)
    yield_ = 0.38 + 0.42 * (1 - 1 / np.sqrt(1 + np.square(slope))) + 0.05 * (height - height.mean())
    yield_ += particle.grain * _cloud(side_px, 2.5, rng) - 0.35 * pores
    ground = 0.16 + 0.04 * _cloud(side_px, 30.0, rng) + 0.015 * _cloud(side_px, 2.0, rng)
    pixels = condition.gain * np.where(mask, yield_, ground)
    if condition.charging:
        jumps = np.convolve(rng.normal(size=(side_px,)), np.full(3, 1 / 3), "same")
        streaks = jumps[:, None] * np.asarray(mask.any(axis=1))[:, None]
        halo = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), side_px / 16)
        pixels = pixels + condition.charging * (0.5 * streaks * halo + 0.5 * halo * mask)
    pixels = cv2.GaussianBlur(pixels, (0, 0), condition.blur_px)
    return np.asarray(np.clip(pixels + rng.normal(0, condition.noise, pixels.shape), 0, 1), np.float32)


def _cloud(side_px: int, sigma_px: float, rng: np.random.Generator) -> Floats:
    """(side, side) smooth noise of unit deviation."""
    noise = cv2.GaussianBlur(rng.normal(size=(side_px, side_px)), (0, 0), sigma_px)
    return np.asarray(noise / max(float(noise.std()), 1e-9))


def _banner(width_px: int, pixel_size_nm: float, rng: np.random.Generator) -> tuple[Pixels, int, float]:
    """The banner's pixels, and its scale bar's length in pixels and nanometres."""
    rows = max(16, round(_BANNER_SHARE * width_px))
    banner = np.zeros((rows, width_px), np.uint8)
    goal_nm = 0.25 * width_px * pixel_size_nm
    power = 10 ** np.floor(np.log10(goal_nm))
    bar_nm = float(power * max(step for step in (1, 2, 5) if step * power <= goal_nm))
    bar_px = max(4, round(bar_nm / pixel_size_nm))
    banner[rows // 2 : rows // 2 + 2, 8 : 8 + bar_px] = 255
    words = f"{rng.integers(3, 20)}.0 kV  {bar_nm / 1000:g} um"
    cv2.putText(banner, words, (width_px * 45 // 100, rows - 5), cv2.FONT_HERSHEY_SIMPLEX, rows / 45, 230, 1)
    return np.asarray(banner / 255, np.float32), bar_px, bar_nm


def _solid(
    kind: str,
    rng: np.random.Generator,
    *,
    spheres: Sequence[Sequence[float]] | Floats,
    planes: Sequence[Sequence[float]] | Floats = (),
    pits: Sequence[Sequence[float]] | Floats = (),
    grain: float = 0.02,
) -> Particle:
    solid = [np.asarray(part, np.float64).reshape(-1, 4) for part in (spheres, planes, pits)]
    reach = float((np.linalg.norm(solid[0][:, :3], axis=1) + solid[0][:, 3]).max())
    if len(solid[1]):
        reach = min(reach, float(np.abs(solid[1][:, 3]).max()) * 1.5)
    solid = [np.concatenate([part[:, :3] / reach, part[:, 3:] / reach], axis=1) for part in solid]
    solid[1] = np.asarray(planes, np.float64).reshape(-1, 4) * np.array([1, 1, 1, 1 / reach])
    return Particle(kind, solid[0], solid[1], solid[2], grain, float(rng.uniform(2, 20)))


def _sphere(rng: np.random.Generator) -> Particle:
    bumps = [[*(0.06 * rng.normal(size=3)), 0.95] for _ in range(3)]
    return _solid("sphere", rng, spheres=bumps, grain=rng.uniform(0.01, 0.03))


def _needle(rng: np.random.Generator) -> Particle:
    along = np.linspace(-1, 1, 60)
    thick = rng.uniform(0.07, 0.13) * (1 - 0.7 * np.abs(along) ** 3)
    bend = rng.uniform(-0.08, 0.08) * np.square(along)
    return _solid("needle", rng, spheres=np.stack([along, bend, 0 * along, thick], axis=1))


def _box(sides: Floats, rng: np.random.Generator, *, tilt: float = 0.03) -> Floats:
    """(6, 4) planes, slightly out of true."""
    normals = np.concatenate([np.eye(3), -np.eye(3)]) + tilt * rng.normal(size=(6, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return np.concatenate([normals, np.concatenate([sides, sides])[:, None]], axis=1)


def _plate(rng: np.random.Generator) -> Particle:
    corners = rng.integers(5, 8)
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.12, 0.12, corners)) / corners
    walls = np.stack([np.cos(angles), np.sin(angles), 0 * angles, np.full(corners, 0.8)], axis=1)
    faces = [[0, 0, 1, rng.uniform(0.06, 0.12)], [0, 0, -1, rng.uniform(0.06, 0.12)]]
    return _solid("plate", rng, spheres=[[0, 0, 0, 1.3]], planes=np.concatenate([walls, faces]), grain=0.01)


def _cube(rng: np.random.Generator) -> Particle:
    return _solid("cube", rng, spheres=[[0, 0, 0, 1.02]], planes=_box(rng.uniform(0.6, 0.68, 3), rng), grain=0.01)


def _dendrite(rng: np.random.Generator) -> Particle:
    spheres: list[list[float]] = []

    def branch(start: Floats, way: Floats, length: float, thick: float, depth: int) -> None:
        shares = np.linspace(0, 1, max(4, int(14 * length)))
        spheres.extend([*(start + share * length * way), thick * (1 - 0.5 * share)] for share in shares)
        if depth:
            for share in np.linspace(0.3, 0.9, 3):
                side = way + 1.1 * rng.normal(size=3)
                branch(start + share * length * way, side / np.linalg.norm(side), length * 0.5, thick * 0.7, depth - 1)

    for _ in range(4):
        way = rng.normal(size=3)
        branch(np.zeros(3), way / np.linalg.norm(way), 1.0, 0.09, 2)
    return _solid("dendrite", rng, spheres=spheres)


def _agglomerate(rng: np.random.Generator) -> Particle:
    spheres = [[0.0, 0.0, 0.0, 0.3]]
    for _ in range(rng.integers(14, 26)):
        host = spheres[rng.integers(len(spheres))]
        way = rng.normal(size=3)
        radius = rng.uniform(0.16, 0.34)
        centre = np.array(host[:3]) + way / np.linalg.norm(way) * 0.9 * (host[3] + radius)
        spheres.append([*centre, radius])
    return _solid("agglomerate", rng, spheres=spheres)


def _porous(rng: np.random.Generator) -> Particle:
    ways = rng.normal(size=(60, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    pits = np.concatenate([0.95 * ways, rng.uniform(0.06, 0.17, (60, 1))], axis=1)
    return _solid(
        "porous", rng, spheres=[[*(0.05 * rng.normal(size=3)), 0.96] for _ in range(3)], pits=pits, grain=0.03
    )


def _broken(rng: np.random.Generator) -> Particle:
    normals = rng.normal(size=(7, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    planes = np.concatenate([normals, rng.uniform(0.35, 0.75, (7, 1))], axis=1)
    return replace(_solid("broken", rng, spheres=[[0, 0, 0, 1.0]], planes=planes, grain=0.045), kind="broken")


_MAKERS: Final[dict[str, Callable[[np.random.Generator], Particle]]] = {
    "sphere": _sphere,
    "needle": _needle,
    "plate": _plate,
    "cube": _cube,
    "dendrite": _dendrite,
    "agglomerate": _agglomerate,
    "porous": _porous,
    "broken": _broken,
}
KINDS: Final = tuple(_MAKERS)
