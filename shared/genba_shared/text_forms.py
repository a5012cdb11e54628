"""Unicode's normal forms for texts that anybody may send: linear in their length, whatever is stacked on a letter.

Putting combining marks in order is quadratic in Python's ``unicodedata`` (100,000 marks: nine seconds in which the process
answers nobody), so a letter keeps thirty of them, as many as Unicode's Stream-Safe Text Format (UAX #15) allows.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Final, Literal

MOST_MARKS: Final = 30
# Runs without what surely is no mark: ASCII and Latin, kana, Chinese characters, Hangul, full-width forms.
_SUSPECT = re.compile(
    f"[^\u0000-\u02ff\u3000-\u3029\u3030-\u3098\u309b-\u9fff\uac00-\ud7a3\uff00-\uff9d]{{{MOST_MARKS + 1},}}"
)


def nfkc(text: str) -> str:
    """``text`` in NFKC."""
    return text if text.isascii() else _normal("NFKC", text)


def nfc(text: str) -> str:
    """``text`` in NFC."""
    return text if text.isascii() else _normal("NFC", text)


def _normal(form: Literal["NFC", "NFKC"], text: str) -> str:
    return unicodedata.normalize(form, _SUSPECT.sub(_without_piles, text))


def _without_piles(match: re.Match[str]) -> str:
    kept, marks = [], 0
    for each in match.group():
        marks = marks + 1 if _is_mark(each) else 0
        if marks <= MOST_MARKS:
            kept.append(each)
    return "".join(kept)


@functools.lru_cache(4096)
def _is_mark(character: str) -> bool:
    return unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) != 0
