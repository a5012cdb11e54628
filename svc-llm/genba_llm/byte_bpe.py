"""Byte-level BPE as GPT-2 defined it, read from a ``tokenizer.json``: text to token ids and back, without any library.

Knows the one splitting rule of ``tokenizer_training``. Control tokens are never read out of a text: whoever builds a prompt
names them by their ids, so nothing that a user writes can become one.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

_CONTRACTION: Final = re.compile(r"'(?:s|t|re|ve|m|ll|d)")
# GPT-2's rule over a text's character classes: Letter, Number, Other, white space (a blank is ``_``).
_SPLIT: Final = re.compile(r"_?L+|_?N+|_?O+|[_s]+(?![LNO])|[_s]+")
_SPACE: Final = frozenset("\t\n\v\f\r\x85")
_CACHED_WORDS: Final = 20_000


class NoByteBpe(ValueError):
    """The tokenizer is another kind, or splits text by another rule."""


class ByteBpe:
    """One tokenizer. Safe to use from several threads."""

    def __init__(self, document: dict[str, Any]) -> None:
        """``document``: what ``tokenizer.json`` holds. Raises: NoByteBpe."""
        model, pre = document.get("model") or {}, document.get("pre_tokenizer") or {}
        plain = pre.get("type") == "ByteLevel" and pre.get("use_regex", True) and not pre.get("add_prefix_space")
        if model.get("type") != "BPE" or not plain or document.get("normalizer"):
            raise NoByteBpe("The tokenizer is no plain byte-level BPE.")
        self._vocab: dict[str, int] = model["vocab"]
        merges = (tuple(each.split(" ")) if isinstance(each, str) else tuple(each) for each in model["merges"])
        self._rank: dict[tuple[str, ...], int] = {pair: rank for rank, pair in enumerate(merges)}
        added = document.get("added_tokens") or []
        self.control: dict[str, int] = {each["content"]: int(each["id"]) for each in added}
        self._special = {int(each["id"]) for each in added if each["special"]}
        letters = _byte_letters()
        self._letter_of = [letters[byte] for byte in range(256)]
        byte_of = {letter: byte for byte, letter in letters.items()}
        self._bytes = {
            index: bytes(byte_of[letter] for letter in token)
            for token, index in self._vocab.items()
            if all(letter in byte_of for letter in token)
        }
        self._bytes |= {index: text.encode() for text, index in self.control.items()}
        self._word = functools.lru_cache(_CACHED_WORDS)(self._merged)

    @classmethod
    def load(cls, path: Path) -> ByteBpe:
        """From a ``tokenizer.json``. Raises: NoByteBpe; OSError."""
        return cls(json.loads(path.read_text("utf-8")))

    def encode(self, text: str) -> list[int]:
        """Token ids; nothing in ``text`` is a control token."""
        return [token for word in split_words(text) for token in self._word(word)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text without control tokens that vanish; half characters become U+FFFD."""
        data = b"".join(self._bytes.get(each, b"") for each in ids if each not in self._special)
        return data.decode("utf-8", "replace")

    def _merged(self, word: str) -> tuple[int, ...]:
        parts = [self._letter_of[byte] for byte in word.encode("utf-8", "replace")]
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: self._rank.get(pair, len(self._rank)))
            if best not in self._rank:
                break
            joined: list[str] = []
            at = 0
            while at < len(parts):
                if at + 1 < len(parts) and (parts[at], parts[at + 1]) == best:
                    joined.append(parts[at] + parts[at + 1])
                    at += 2
                else:
                    joined.append(parts[at])
                    at += 1
            parts = joined
        return tuple(self._vocab[part] for part in parts)


def split_words(text: str) -> Iterator[str]:
    """A text's words, blanks before them included, by GPT-2's rule; together they are the text."""
    classes = "".join(map(_class_of, text))
    at = 0
    while at < len(text):
        found = _CONTRACTION.match(text, at) or _SPLIT.match(classes, at)
        if found is None:  # every character has a class
            raise AssertionError
        yield text[at : found.end()]
        at = found.end()


@functools.lru_cache(8192)
def _class_of(character: str) -> str:
    if character == " ":
        return "_"
    kind = unicodedata.category(character)
    if character in _SPACE or kind[0] == "Z":
        return "s"
    return kind[0] if kind[0] in "LN" else "O"


def _byte_letters() -> dict[int, str]:
    """GPT-2's letter for each byte: itself where it can be printed, the next free code point where not."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {byte: chr(byte) for byte in shown}
    hidden = (byte for byte in range(256) if byte not in letters)
    return letters | {byte: chr(256 + number) for number, byte in enumerate(hidden)}
