"""What a regular expression asks of a text, in words: whoever sends a malformed id is told how one looks.

The words stand where the expression does, so that they change together. Knows no service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORDS: dict[str, str] = {}
_WITHOUT_NUL = "must not hold the character U+0000"
_ONE_LINE = "must be one line without control characters"


def pattern(regex: str, must: str) -> str:
    """``regex`` for a field's ``pattern``; ``must`` is what its callers read instead (``"must be 64 hex digits"``)."""
    return _WORDS.setdefault(regex, must) and regex


def in_words(regex: str) -> str | None:
    """What ``regex`` asks for; None for one that nobody has put into words."""
    return _WORDS.get(regex)


def message(error: Mapping[str, Any]) -> str:
    """What to tell a caller of one of pydantic's errors."""
    said = str(error["msg"])
    if error["type"] != "string_pattern_mismatch":
        return said
    return in_words(error["ctx"]["pattern"]) or said


for _regex in (r"^[^\x00]*$", r"^[^\x00]+$", r"^[^\u0000]*$"):
    pattern(_regex, _WITHOUT_NUL)
for _regex in (r"^[^\x00-\x1f]*$", r"^[^\x00-\x1f]+$", r"^[^\x00-\x1f\x7f]+$"):
    pattern(_regex, _ONE_LINE)
