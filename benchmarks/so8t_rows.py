"""The rows that the project's own model learns from, and those that it never sees."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from genba_llm import contrast
from genba_llm.sft_rows import Row
from genba_llm.synthesise import core_of, synthesise
from genba_llm.verdict import DOMAINS

SEED: Final = 20260101
HELD_SHARE: Final = 0.1
SHARES: Final = (
    0.70,
    0.15,
    0.15,
)  # the gate has decided before this model is asked: most of what reaches it may be answered


def rows_of(per_domain: int) -> list[Row]:
    """All of them, domain by domain."""
    return [row for domain in DOMAINS for row in synthesise(domain, per_domain, seed=SEED, shares=SHARES)]


def split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows to learn, and rows whose core question is asked in none of those: another wording, or a thing never mentioned."""
    unheard = held_out_things()
    held = [_is_held(core_of(row.instruction)) or any(thing in row.instruction for thing in unheard) for row in rows]
    return [r for r, h in zip(rows, held, strict=True) if not h], [r for r, h in zip(rows, held, strict=True) if h]


def held_out_things() -> list[str]:
    """Things that nobody knows and that no row of training mentions."""
    found = contrast.lexicon("synthesise")["unknown"]
    return [thing for names in found.values() for thing in names if _is_held(thing, share=1 / 6)]


def _is_held(text: str, share: float = HELD_SHARE) -> bool:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32 < share
