"""torchvision beside torch's CPU build from PyPI, where its compiled operators do not load and ``import torchvision`` fails.

open_clip and transformers import it for image transforms, which need no operator. Torch is loaded when asked and not before.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

_declared: list[Any] = []  # torch forgets the schemas when their library object goes


def make_torchvision_importable() -> None:
    """Do nothing where torchvision is absent or whole; else declare the two operators that it looks up on import.

    Call it before the first import of open_clip or transformers. Raises: ImportError without torch.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as err:
        if "torchvision::nms" not in str(err):
            raise
        _declare_operators(importlib.import_module("torch"))
        for half_loaded in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[half_loaded]
        importlib.import_module("torchvision")


def _declare_operators(torch: Any) -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
