"""Real video files of a second or two, cheap enough to be uploaded by the dozen."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

FPS = 8
WIDTH, HEIGHT = 96, 64


def film(path: Path, *, seconds: float, seed: int) -> Path:
    """A block that wanders over a table, and changes its way in the middle: two steps, if one wants to see them."""
    rng = np.random.default_rng(seed)
    table = np.random.default_rng(1).integers(90, 130, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    frames = int(seconds * FPS)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for k in range(frames):
            sweep = abs((k + rng.normal(0, 0.3)) / 5 % 2 - 1)
            across, down = (sweep, 0.3) if k < frames / 2 else (0.6, sweep)
            x, y = int(6 + (WIDTH - 36) * across), int(6 + (HEIGHT - 30) * down)
            picture = table.copy()
            picture[y : y + 18, x : x + 24] = (240, 60, 30) if k < frames / 2 else (20, 70, 235)
            picture[y + 3 : y + 15 : 4, x + 2 : x + 22] = 20
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
