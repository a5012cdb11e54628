"""Inner loops in two forms with the same numbers: compiled by numba, and plain NumPy where numba is missing or does not fit it."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType


@cache
def kernels_of(part: str) -> ModuleType:
    """``_<part>_numba`` of this package, or ``_<part>_numpy``."""
    try:
        return importlib.import_module(f"genba_sop._{part}_numba")
    except ImportError:
        return importlib.import_module(f"genba_sop._{part}_numpy")
