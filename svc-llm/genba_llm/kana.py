"""Romaji to kana and katakana to hiragana: the readings in which Japanese hides from a filter made for kanji."""

from __future__ import annotations

import re

from genba_llm.words import words

_VOWELS = "aiueo"
_ROWS = {
    "": "あいうえお", "k": "かきくけこ", "s": "さしすせそ", "t": "たちつてと", "n": "なにぬねの", "h": "はひふへほ",
    "m": "まみむめも", "r": "らりるれろ", "g": "がぎぐげご", "z": "ざじずぜぞ", "d": "だぢづでど", "b": "ばびぶべぼ",
    "p": "ぱぴぷぺぽ", "v": ("ゔぁ", "ゔぃ", "ゔ", "ゔぇ", "ゔぉ"), "f": ("ふぁ", "ふぃ", "ふ", "ふぇ", "ふぉ"),
    "j": ("じゃ", "じ", "じゅ", "じぇ", "じょ"), "l": "らりるれろ", "c": ("か", "し", "く", "せ", "こ"),
}  # fmt: skip
_YOUON = {
    "ky": "き", "sy": "し", "ty": "ち", "ny": "に", "hy": "ひ", "my": "み", "ry": "り", "gy": "ぎ", "zy": "じ", "jy": "じ",
    "dy": "ぢ", "by": "び", "py": "ぴ", "sh": "し", "ch": "ち", "cy": "ち",
}  # fmt: skip
_IRREGULAR = {
    "shi": "し", "chi": "ち", "tsu": "つ", "fu": "ふ", "ji": "じ", "she": "しぇ", "che": "ちぇ", "ya": "や", "yu": "ゆ",
    "yo": "よ", "wa": "わ", "wo": "を", "wi": "うぃ", "we": "うぇ", "ti": "てぃ", "di": "でぃ", "dwu": "どぅ", "twu": "とぅ",
}  # fmt: skip


def _syllables() -> dict[str, str]:
    table = {onset + vowel: kana for onset, row in _ROWS.items() for vowel, kana in zip(_VOWELS, row, strict=True)}
    for onset, kana in _YOUON.items():
        table |= {
            onset + "a": kana + "ゃ",
            onset + "u": kana + "ゅ",
            onset + "o": kana + "ょ",
            onset + "e": kana + "ぇ",
        }
    return table | _IRREGULAR | {"ti": "ち", "tu": "つ", "si": "し", "hu": "ふ", "zi": "じ", "-": "ー"}


_TABLE = _syllables()
_LONG = str.maketrans({"ā": "aa", "ī": "ii", "ū": "uu", "ē": "ee", "ō": "ou", "â": "aa", "î": "ii", "û": "uu", "ê": "ei", "ô": "ou"})  # fmt: skip
_WORD = re.compile(r"[a-z'\-ぁ-ゖー]+")
_TO_HIRAGANA = {code: code - 0x60 for code in range(0x30A1, 0x30F7)}
# Words that no Japanese sentence in romaji does without: particles, endings, question words.
_FUNCTION_WORDS = frozenset(words("romaji_function_words"))


def kana_of_romaji(text: str) -> str | None:
    """The hiragana of a sentence in romaji; None if the text does not look like one."""
    lowered = text.lower().translate(_LONG)
    words = _WORD.findall(lowered)
    if len(words) < 2:
        return None
    kana = [_word(word) for word in words]
    whole = sum(each is not None for each in kana)
    function_words = sum(word in _FUNCTION_WORDS for word in words)
    if whole < 0.8 * len(words) or function_words < max(1, len(words) // 8):
        return None
    return "".join(each if each is not None else word for each, word in zip(kana, words, strict=True))


def hiragana_of(text: str) -> str:
    """``text`` with katakana as hiragana; everything else stays."""
    return text.translate(_TO_HIRAGANA)


def _word(word: str) -> str | None:
    """The hiragana of one word in Hepburn or Kunrei spelling, or None where it is not Japanese."""
    kana, at = [], 0
    while at < len(word):
        piece = next((word[at : at + size] for size in (3, 2, 1) if word[at : at + size] in _TABLE), None)
        if piece is not None:
            kana.append(_TABLE[piece])
            at += len(piece)
        elif word[at] >= "ぁ":  # somebody typed a letter of it in kana
            kana.append(word[at])
            at += 1
        elif word[at] == "n":
            kana.append("ん")
            at += 2 if word[at + 1 : at + 2] == "'" else 1
        elif word[at] == "m" and word[at + 1 : at + 2] in {"b", "p", "m"}:
            kana.append("ん")
            at += 1
        elif at + 1 < len(word) and (word[at] == word[at + 1] or word[at : at + 3] == "tch"):
            kana.append("っ")
            at += 1
        else:
            return None
    return "".join(kana)


def romaji_of_kana(text: str) -> str:
    """Hepburn for kana, words run together; what is no kana stays."""
    kana, parts, at = hiragana_of(text), [], 0
    while at < len(kana):
        piece = next((kana[at : at + size] for size in (2, 1) if kana[at : at + size] in _TO_ROMAJI), None)
        if piece is not None:
            parts.append(_TO_ROMAJI[piece])
            at += len(piece)
        elif kana[at] == "っ" and (after := kana[at + 1 : at + 3]):
            latin = _TO_ROMAJI.get(after) or _TO_ROMAJI.get(after[:1]) or ""
            parts.append("t" if latin.startswith("ch") else latin[:1])
            at += 1
        else:
            parts.append("n" if kana[at] == "ん" else kana[at])
            at += 1
    return "".join(parts)


_TO_ROMAJI = {
    kana: latin for latin, kana in sorted(_TABLE.items(), key=lambda each: len(each[0])) if latin[0] not in "lc"
}
_TO_ROMAJI |= {"し": "shi", "ち": "chi", "つ": "tsu", "ふ": "fu", "じ": "ji", "ー": "-"}
_TO_ROMAJI |= {f"{first}{small}": onset + vowel for first, onset in (("し", "sh"), ("ち", "ch"), ("じ", "j")) for small, vowel in (("ゃ", "a"), ("ゅ", "u"), ("ょ", "o"))}  # fmt: skip
