"""How a bundle of ``llm.so8t`` lies on disk, for those who write it and those who serve it. Loads no framework."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

BUNDLE: Final = "bundle.json"
MODEL: Final = "model"
ADAPTER: Final = "adapter"
CALIBRATION: Final = "calibration.json"


def describe(folder: Path) -> dict[str, Any]:
    """What ``bundle.json`` says. Raises: ValueError for one that is no object; OSError without one."""
    found = json.loads((folder / BUNDLE).read_text("utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{BUNDLE} must hold an object.")  # noqa: TRY004 - it is the bundle that is wrong
    return found


def is_shipped(folder: Path) -> bool:
    """Whether the bundle is the model that ships, calibrated or not. Raises: as ``describe``."""
    return bool(describe(folder).get("shipped"))


def temperature_of(folder: Path) -> float:
    """What a bundle's logits are divided by; 1 for one that was never calibrated. Raises: ValueError for one that makes no sense."""
    path = folder / CALIBRATION
    if not path.is_file():
        return 1.0
    value = float(json.loads(path.read_text("utf-8"))["temperature"])
    if not 0.05 <= value <= 20.0:
        raise ValueError(f"The bundle's temperature is {value:g}.")
    return value
