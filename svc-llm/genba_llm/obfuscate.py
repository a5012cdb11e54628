"""Twelve ways to hide a sentence from a filter, for training and for the test of what the normaliser undoes.

Each is a text → text function that keeps the sentence readable for a person, or decodable for a model.
"""

from __future__ import annotations

import base64
import codecs
import random
from collections.abc import Callable

from genba_llm.features import reading
from genba_llm.kana import hiragana_of, romaji_of_kana
from genba_llm.verdict import Language

Rng = random.Random
Transform = Callable[[str, Rng], str]
_LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}
_BOUND = tuple("ぁぃぅぇぉゃゅょっー")
_LOOKALIKES = {"a": "а", "e": "е", "o": "о", "p": "р", "c": "с", "y": "у", "x": "х", "i": "і", "s": "ѕ", "A": "А", "B": "В", "E": "Е", "H": "Н", "K": "К", "M": "М", "O": "О", "P": "Р", "T": "Т"}  # fmt: skip
_PADDING = {
    "ja": ("今日は会議の資料をまとめています。", "天気がよいので散歩に行きたいです。", "昨日は美味しいカレーを食べました。", "来週の出張の予定も確認してください。"),
    "en": ("I am preparing slides for a meeting.", "The weather is lovely today.", "Yesterday I cooked a nice curry.", "Please also remind me of next week's trip."),
}  # fmt: skip


def _fullwidth(text: str, rng: Rng) -> str:
    del rng
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "　" if c == " " else c for c in text)


def _halfwidth_kana(text: str, rng: Rng) -> str:
    """Japanese in the other widths: Latin full, katakana as it is, every mark in its compatibility form."""
    return (
        _fullwidth(text, rng)
        .replace("。", "｡")
        .replace("、", "､")
        .replace("「", "｢")
        .replace("」", "｣")
        .replace("ー", "ｰ")
    )


def _zero_width(text: str, rng: Rng) -> str:
    return "".join(c + rng.choice(("", "\u200b", "\u200d", "\u2060")) for c in text)


def _bidi(text: str, rng: Rng) -> str:
    del rng
    return " ".join(f"\u202a{word}\u202c" for word in text.split(" "))


def _combining(text: str, rng: Rng) -> str:
    return "".join(c + (rng.choice("\u0336\u0335\u0332") if c.isalpha() else "") for c in text)


def _homoglyph(text: str, rng: Rng) -> str:
    return "".join(_LOOKALIKES[c] if c in _LOOKALIKES and rng.random() < 0.7 else c for c in text)


def _variation(text: str, rng: Rng) -> str:
    """Invisible variation selectors behind every third character."""
    return "".join(c + ("\ufe0f" if rng.random() < 0.4 else "") for c in text)


def _leet(text: str, rng: Rng) -> str:
    return "".join(_LEET[c.lower()] if c.lower() in _LEET and rng.random() < 0.6 else c for c in text)


def _kana(text: str, rng: Rng) -> str:
    del rng
    return hiragana_of(reading(text))


def _spaced(text: str, rng: Rng) -> str:
    del rng
    return "  ".join(" ".join(word) for word in text.split(" "))


def _punctuated(text: str, rng: Rng) -> str:
    mark = rng.choice(".-_*")
    return " ".join(mark.join(word) for word in text.split(" "))


def _base64(text: str, rng: Rng) -> str:
    del rng
    return base64.b64encode(text.encode()).decode()


def _hex(text: str, rng: Rng) -> str:
    del rng
    return text.encode().hex()


def _rot13(text: str, rng: Rng) -> str:
    del rng
    return codecs.encode(text, "rot13")


def _romaji(text: str, rng: Rng) -> str:
    """Word by word in Latin letters, as one writes without a Japanese keyboard."""
    del rng
    from genba_llm.features import surfaces

    said: list[str] = []
    for kana in (hiragana_of(reading(word)) for word in surfaces(text)):
        if said and (said[-1].endswith("っ") or kana.startswith(_BOUND)):  # つくっ|て is one word in Latin letters
            said[-1] += kana
        else:
            said.append(kana)
    return " ".join(part for part in map(romaji_of_kana, said) if part.strip())


def _padded(language: Language) -> Transform:
    def pad(text: str, rng: Rng) -> str:
        before, after = rng.sample(_PADDING[language], 2)
        gap = " " if language == "en" else ""
        return gap.join((before, text, after))

    return pad


TRANSFORMS: dict[Language, dict[str, Transform]] = {
    "en": {
        "fullwidth": _fullwidth, "zero_width": _zero_width, "bidi": _bidi, "combining": _combining,
        "homoglyph": _homoglyph, "leet": _leet, "spaced": _spaced, "punctuated": _punctuated,
        "base64": _base64, "hex": _hex, "rot13": _rot13, "padded": _padded("en"),
    },
    "ja": {
        "fullwidth": _halfwidth_kana, "zero_width": _zero_width, "bidi": _bidi, "combining": _combining,
        "variation": _variation, "kana": _kana, "spaced": _spaced, "punctuated": _punctuated,
        "base64": _base64, "hex": _hex, "romaji": _romaji, "padded": _padded("ja"),
    },
}  # fmt: skip
