"""How this service compiles its inner loops. The one place that names numba's options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(kernel: Kernel) -> Kernel:
    """Compile at the first call, keep the machine code on disk, leave the GIL; the type stays the Python function's."""
    done: Kernel = njit(cache=True, nogil=True)(kernel)
    return done


def compiled_fused(kernel: Kernel) -> Kernel:
    """As ``compiled``, and a product and a sum may become one instruction: faster, the last bit may differ."""
    done: Kernel = njit(cache=True, nogil=True, fastmath={"contract"})(kernel)
    return done
