"""Encoders by name: the embedded default, and those whose weights the user brings. A name says what; the settings say where.

``hlg-shape-v1`` needs nothing. ``dino:NAME`` and ``onnx:NAME`` are folders below the installation's folder of encoders, or, for
DINO, a model in the local Hugging Face cache. Lanes, bundles and jobs hold names and never paths, so that a bundle is worth the same on
another machine; that the weights are the same ones is checked by the encoder's id.
"""

from __future__ import annotations

import threading
from pathlib import Path

from genba_sem.dino import ONNX_PREFIX, PREFIX, DinoEncoder, open_dino, open_onnx
from genba_sem.encoders import Encoder, HlgShape
from genba_shared.encoders import EncoderUnavailable


class Encoders:
    """The encoders of this process, each opened once."""

    def __init__(self, folder: Path | None) -> None:
        """folder: where weights lie."""
        self._folder = folder
        self._open: dict[str, DinoEncoder] = {}
        self._one_at_a_time = threading.Lock()

    def opened(self, name: str) -> Encoder:
        """The encoder. Raises: EncoderUnavailable (503) for a name that is none, or without weights."""
        if name == HlgShape.name:
            return HlgShape({})
        with self._one_at_a_time:
            if name not in self._open:
                self._open[name] = self._made(name)
            return self._open[name]

    def _made(self, name: str) -> DinoEncoder:
        prefix, _, what = name.partition(":")
        here = self._below(what)
        if f"{prefix}:" == ONNX_PREFIX and here is not None:
            encoder = open_onnx(here)
        elif f"{prefix}:" == PREFIX:
            encoder = open_dino(what if here is None else here)
        else:
            raise EncoderUnavailable(
                f"There is no encoder {name} here: {HlgShape.name}, dino:NAME and onnx:NAME are known, "
                "and NAME is a folder below GENBA_SEM_ENCODERS_DIR."
            )
        encoder.name = name
        return encoder

    def _below(self, what: str) -> Path | None:
        if self._folder is None or not what:
            return None
        path = (self._folder / what).resolve()
        return path if path.is_relative_to(self._folder.resolve()) and path.is_dir() else None
