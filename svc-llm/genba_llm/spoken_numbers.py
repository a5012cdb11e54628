"""Numbers as people read them aloud or take them apart: ゼロきゅうゼロのいちにさんし…, 〇九〇の一二三四…, ０・９・０・…, oh nine oh.

A run of digits is found with whatever stands between them, and handed out as the groupings that it may mean, the digits in
ASCII. What kind of number that is, and whether it is one at all, is ``personal_data``'s to say.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from genba_llm.kana import hiragana_of

LEAST_DIGITS: Final = 7
_WORDS: Final = {
    "ぜろ": "0", "れい": "0", "まる": "0", "いち": "1", "に": "2", "にー": "2", "さん": "3", "よん": "4", "し": "4", "ご": "5", "ごー": "5",
    "ろく": "6", "なな": "7", "しち": "7", "はち": "8", "きゅう": "9", "きゅー": "9", "く": "9",
    "zero": "0", "oh": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "niner": "9",
    "〇": "0", "零": "0", "一": "1", "二": "2", "三": "3", "四": "4", "五": "5", "六": "6", "七": "7", "八": "8", "九": "9",
}  # fmt: skip
_TELLING: Final = ("zero", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_PARTICLES: Final = frozenset({"に", "し", "ご", "く", "さん"})  # digits only among digits
_TO_KATAKANA: Final = {code - 0x60: code for code in range(0x30A1, 0x30F7)}
_HIRAGANA = [word for word in _WORDS if "ぁ" <= word[0] <= "ゖ"]
_KANA = "|".join(sorted([*_HIRAGANA, *(word.translate(_TO_KATAKANA) for word in _HIRAGANA)], key=len, reverse=True))
_ENGLISH = "|".join(word for word in _WORDS if word.isascii())
_WRITTEN = r"(?:\d|[〇零一二三四五六七八九]|ゼロ|マル|レイ)"
_LIGHT = r"[ \t\r\n\u3000・･·•、，,．.。/／|｜_＿\ufe0f\u20e3]"
_DASH = r"[-‐‑‒–—―−－ｰー~〜～()（）の]|ノ|ハイフン|はいふん|ダッシュ|だっしゅ|かっこ|カッコ|とじ|dash\b|hyphen\b"
_FILLER = (
    r"から始ま(?:って|り)|ではじまり|で始まり|で|です|が|は|と|に|次|つぎ|その|後|あと|続けて|続いて|つづいて|それから|そして|最後"
    r"|真ん中|まんなか|下[4４四]桁|「|」|then\b|and\b|followed by\b|next\b|finally\b"
)
_BETWEEN = rf"(?>{_LIGHT}|{_DASH}){{0,3}}"
_WITHIN_WORDS = rf"(?>{_LIGHT}|{_DASH}|{_FILLER}){{0,8}}"
_MORE = f"{{{LEAST_DIGITS - 1},}}"
_RUNS = (
    re.compile(rf"(?<![\dA-Za-z-]){_WRITTEN}(?>{_WITHIN_WORDS}{_WRITTEN}){_MORE}"),
    re.compile(rf"(?>{_KANA})(?>{_BETWEEN}(?>{_KANA})){_MORE}"),
    re.compile(
        rf"(?<![A-Za-z])(?>{_ENGLISH})(?![A-Za-z])(?>{_WITHIN_WORDS}(?<![A-Za-z])(?>{_ENGLISH})(?![A-Za-z])){_MORE}",
        re.IGNORECASE,
    ),
)
_DIGITS = (
    re.compile(_WRITTEN),
    re.compile(_KANA),
    re.compile(rf"(?<![A-Za-z])(?:{_ENGLISH})(?![A-Za-z])", re.IGNORECASE),
)
_IS_DASH, _IS_FILLER = re.compile(_DASH), re.compile(_FILLER)
_ENDS_CLAUSE = re.compile(r"[\n、。]")
_MOST_DIGITS: Final = 24
_DASHED, _SENTENCE, _NEVER = 3, 4, 5  # ranks of what stands between digits


@dataclass(frozen=True)
class Said:
    """Characters ``start`` to ``end`` say ``digits``, its groups parted by ``-``. ``loose``: nothing but single digits, or words
    of a sentence, stood in a row, so that something else has to say what they are. ``firm``: の or dashes part the groups, as they
    do in telephone numbers.
    """

    start: int
    end: int
    digits: str
    loose: bool
    firm: bool


@dataclass(frozen=True)
class _Digit:
    start: int
    end: int
    value: str
    particle: bool


def said_numbers(text: str) -> Iterator[Said]:
    """Every way in which the runs of ``text`` that plain patterns do not read may be meant, likelier ones first."""
    lowered = text.lower()
    english = any(word in lowered for word in _TELLING)  # looked for first: the pattern costs more than all the others
    for run, digit in zip(_RUNS if english else _RUNS[:-1], _DIGITS, strict=False):
        for found in run.finditer(text):
            yield from _readings(text, [_digit(each) for each in digit.finditer(text, found.start(), found.end())])


def _digit(match: re.Match[str]) -> _Digit:
    word = hiragana_of(match.group().lower())
    value = _WORDS.get(word) or str(unicodedata.digit(word))
    return _Digit(match.start(), match.end(), value, word in _PARTICLES)


def _readings(text: str, digits: list[_Digit]) -> Iterator[Said]:
    """The run as it stands, its lines and clauses each, and all that without particles at the ends, which sound like digits."""
    parts: list[list[_Digit]] = [[digits[0]]]
    for before, digit in itertools.pairwise(digits):
        if _ENDS_CLAUSE.search(text, before.end, digit.start):
            parts.append([])
        parts[-1].append(digit)
    for part in [digits, *(parts if len(parts) > 1 else [])]:
        if len(part) > _MOST_DIGITS:
            continue
        for first, last in itertools.product(range(3), range(len(part), len(part) - 3, -1)):
            left_out = [*part[:first], *part[last:]]
            if last - first >= LEAST_DIGITS and all(each.particle for each in left_out):
                yield from _groupings(text, part[first:last])


def _groupings(text: str, digits: list[_Digit]) -> Iterator[Said]:
    """Parted wherever something stands; and where single digits do, parted only where more than between them stands."""
    ranks = [_rank(text[a.end : b.start]) for a, b in itertools.pairwise(digits)]
    for weakest in (*sorted({rank for rank in ranks if rank}), _NEVER):
        merged = any(0 < rank < weakest for rank in ranks)
        if merged and 0 in ranks:
            return  # longer groups are not run together
        marks = ("" if rank < weakest else "-" for rank in ranks)
        said = digits[0].value + "".join(mark + each.value for mark, each in zip(marks, digits[1:], strict=True))
        loose, firm = merged or max(ranks) == _SENTENCE, {*ranks} <= {0, _DASHED}
        yield Said(digits[0].start, digits[-1].end, said, loose=loose, firm=firm)


def _rank(between: str) -> int:
    """How much stands between two digits: nothing, blanks, a mark, a dash, words."""
    if not between:
        return 0
    if _IS_FILLER.search(_IS_DASH.sub("", between)):
        return _SENTENCE
    if _IS_DASH.search(between):
        return _DASHED
    return 2 if between.strip(" \t\u3000\ufe0f\u20e3") else 1
