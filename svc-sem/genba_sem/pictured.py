"""Text against pictures by OpenCLIP, where its weights are on this machine: rows of views beside those of the encoder that decides.

It supports and never decides: what it finds joins what words, shapes and labels find. Rows are kept like those of any second encoder
(``describing``), by the job ``sem.index_pictures``; a text is compared with the particles that have them. Knows no HTTP.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from genba_sem.encoders import unit
from genba_sem.tables import DescriptionRow, ParticleRow
from genba_shared import records
from genba_shared.encoders import EncoderUnavailable, OpenClip, open_openclip
from genba_shared.principal import Principal
from genba_shared.telemetry import get_logger

Rows = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

log = get_logger(__name__)

_PROMPTS: Final = ("{}", "a scanning electron micrograph of {}", "a particle: {}")
_MARGIN: Final = 1.15
_SPREAD: Final = (
    3.0  # deviations above the mean cosine that count as a full match: cosines of text and picture have no scale
)
_LEAST_COMPARED: Final = 3


class ClipEncoder:
    """Views as OpenCLIP sees them. Threads may share it."""

    def __init__(self, clip: OpenClip) -> None:
        self._clip = clip
        self.id = self.kind = clip.id
        self.name = clip.id.partition("@")[0]
        self.raw_dim = self.dim = clip.dim

    def describe(self, pixels: Rows, mask: Mask) -> Rows:
        """(dim,) of the square around the particle (H, W); the whole picture where the mask is empty."""
        grey = np.asarray(np.clip(_square(pixels, mask), 0, 1) * 255, np.uint8)
        return np.asarray(self._clip.encode_images([np.repeat(grey[..., None], 3, axis=2)])[0], np.float32)

    def embed(self, raw: Rows) -> Rows:
        """(N, dim): they are unit rows already, but for the precision that they are kept in."""
        return unit(raw)

    def text_row(self, texts: Sequence[str]) -> Rows:
        """(dim,) unit: the mean of what is asked, in several wordings."""
        rows = self._clip.encode_texts([prompt.format(text) for text in texts for prompt in _PROMPTS])
        mean = rows.mean(0)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), np.float32)


class TextEncoder:
    """The installation's model for text, opened when it is first needed."""

    def __init__(self, name: str | None, weights: Path | None) -> None:
        """name: ``openclip:…``, None for an installation without; weights: a file or a folder, the local hub cache when None."""
        self._name, self._weights = name, weights
        self._encoder: ClipEncoder | None = None
        self._one_at_a_time = threading.Lock()

    def opened(self) -> ClipEncoder | None:
        """None where none is set. Raises: EncoderUnavailable (503) without its weights or libraries."""
        if self._name is None:
            return None
        with self._one_at_a_time:
            if self._encoder is None:
                self._encoder = ClipEncoder(open_openclip(self._name, self._weights))
            return self._encoder

    def for_search(self) -> ClipEncoder | None:
        """The same, and None where it cannot be opened: words are searched all the same."""
        try:
            return self.opened()
        except EncoderUnavailable as why:
            log.warning("text_encoder_unavailable", encoder=self._name, detail=str(why))
            return None


def _square(pixels: Rows, mask: Mask) -> Rows:
    if not mask.any():
        return pixels
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    side = round(max(rows[-1] - rows[0], columns[-1] - columns[0], 8) * _MARGIN)
    top, left = ((span[0] + span[-1] - side) // 2 for span in (rows, columns))
    padded = cv2.copyMakeBorder(pixels, side, side, side, side, cv2.BORDER_REPLICATE)
    return np.asarray(padded[top + side : top + 2 * side, left + side : left + 2 * side], np.float32)


def fits(
    session: Session,
    principal: Principal,
    encoder: ClipEncoder,
    texts: Sequence[str],
    where: Sequence[ColumnElement[bool]],
) -> dict[str, float]:
    """How well pictures fit a text, in [0, 1], by particle: its best view, against all particles that have rows; read a page at a time.

    Nothing while fewer than three have.
    """
    query = (
        select(DescriptionRow.particle_id, DescriptionRow.raw)
        .join(ParticleRow, ParticleRow.id == DescriptionRow.particle_id)
        .where(DescriptionRow.described_by == encoder.kind, records.visible(ParticleRow, principal), *where)
        .execution_options(yield_per=2000)
    )
    text = encoder.text_row(texts)
    best: dict[str, float] = {}
    for page in session.execute(query).partitions():
        raw = np.stack([np.frombuffer(held, np.float16) for _, held in page]).astype(np.float32)
        for (particle_id, _), cosine in zip(page, encoder.embed(raw) @ text, strict=True):
            best[particle_id] = max(best.get(particle_id, -1.0), float(cosine))
    if len(best) < _LEAST_COMPARED:
        return {}
    cosines = np.array(list(best.values()))
    middle, spread = float(cosines.mean()), max(float(cosines.std()), 1e-6)
    found = {each: (cosine - middle) / spread / _SPREAD for each, cosine in best.items()}
    return {each: min(1.0, fit) for each, fit in found.items() if fit > 0}
