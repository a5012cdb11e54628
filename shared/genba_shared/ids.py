"""Identifiers that sort by the time they were made and are safe in a URL: ``vid_01j9…``. Know not what they name."""

from __future__ import annotations

import secrets
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32, lower case: the digits of a ULID
_RANDOM_BITS = 80

_lock = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """``prefix_`` and a ULID in lower case: 48 bits of milliseconds, then 80 random bits.

    Within a process ids strictly increase, even inside one millisecond; across processes they sort to the millisecond.
    """
    global _last  # noqa: PLW0603 (one counter per process is what makes ids increase)
    fresh = (time.time_ns() // 1_000_000 << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
    with _lock:
        _last = fresh if fresh > _last else _last + 1
        number = _last
    return f"{prefix}_{_base32(number)}"


def _base32(number: int) -> str:
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))
