"""A text as hashed features: character 1–5-grams, words with their neighbours, and the concepts that it joins. Integers
out, no vocabulary to ship.

Character n-grams are hashed for all positions at once with NumPy (a rolling polynomial, then a mixer); words come from
Sudachi where the text is Japanese and from a pattern where it is not. Both halves are scaled to unit length on their own, so that a long
text is no louder than a short one.
"""

from __future__ import annotations

import functools
import itertools
import re
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from genba_llm.concepts import concept_grams
from genba_shared.text_forms import nfkc

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MAX_CHARS = 4000
_MAX_N = 5
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_JAPANESE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff々〆]+")
_WORDS = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+|[\u3040-\u30ff\u3400-\u9fff々〆]+")


@dataclass(frozen=True)
class FeatureConfig:
    """``bits``: features are hashed into 2**bits columns. The weights are the parts' lengths against the characters' 1."""

    bits: int = 19
    word_weight: float = 1.0
    concept_weight: float = 1.5

    @property
    def size(self) -> int:
        return 1 << self.bits


Features = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


def features(text: str, config: FeatureConfig) -> Features:
    """The columns of ``text`` and their values, part by part; a column may occur in more than one part."""
    lowered = text[:MAX_CHARS].lower()
    parts = (
        (_characters(lowered, config.bits), 1.0),
        (_hashed(_word_grams(words_of(lowered)), config.bits), config.word_weight),
        (_hashed(concept_grams(lowered), config.bits), config.concept_weight),
    )
    values = [np.full(len(columns), weight / max(len(columns), 1) ** 0.5, np.float32) for columns, weight in parts]
    return np.concatenate([columns for columns, _ in parts]), np.concatenate(values)


def matrix(texts: Sequence[str], config: FeatureConfig) -> csr_matrix:
    """(N, 2**bits) float32, a row for each text."""
    from scipy.sparse import csr_matrix

    rows = [features(text, config) for text in texts]
    ends = np.cumsum([0] + [len(columns) for columns, _ in rows])
    columns = np.concatenate([columns for columns, _ in rows]) if rows else np.empty(0, np.int64)
    values = np.concatenate([values for _, values in rows]) if rows else np.empty(0, np.float32)
    return csr_matrix((values, columns, ends), shape=(len(rows), config.size))


def words_of(lowered: str) -> list[str]:
    """The words of a text in lower case: Sudachi's normalised forms for Japanese, runs of letters else."""
    words: list[str] = []
    for match in _WORDS.finditer(lowered):
        run = match.group()
        words += _sudachi_words(run) if run[0] > "\u3000" else [run]
    return words


def _characters(text: str, bits: int) -> npt.NDArray[np.int64]:
    """(K,) distinct columns of the character 1–5-grams, the text's edges included."""
    codes = np.frombuffer(f" {text} ".encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    rolling, hashes = codes.copy(), []
    for n in range(1, _MAX_N + 1):
        if n > 1:
            if len(codes) < n:
                break
            rolling = rolling[:-1] * _STEP + codes[n - 1 :]
        mixed = (rolling + np.uint64(n)) * _MIX
        hashes.append((mixed ^ (mixed >> np.uint64(32))) * _MIX >> np.uint64(64 - bits))
    return np.unique(np.concatenate(hashes).astype(np.int64))


def _word_grams(words: Sequence[str]) -> list[str]:
    """Words, pairs, triples, and pairs with one word between."""
    grams = [f"1{a}" for a in words]
    grams += [f"2{a} {b}" for a, b in itertools.pairwise(words)]
    grams += [f"3{a} {b} {c}" for a, b, c in zip(words, words[1:], words[2:], strict=False)]
    return grams + [f"4{a} {c}" for a, c in zip(words, words[2:], strict=False)]


def _hashed(grams: Sequence[str], bits: int) -> npt.NDArray[np.int64]:
    """(K,) distinct columns."""
    if not grams:
        return np.empty(0, np.int64)
    codes = np.fromiter((zlib.crc32(gram.encode("utf-8", "surrogatepass")) for gram in grams), np.uint64, len(grams))
    mixed = (codes + np.uint64(77)) * _MIX
    return np.unique(((mixed ^ (mixed >> np.uint64(32))) * _MIX >> np.uint64(64 - bits)).astype(np.int64))


_local = threading.local()


def _sudachi_words(run: str) -> list[str]:
    tokenizer, mode = _tokenizer()
    return [morpheme.normalized_form() for morpheme in tokenizer.tokenize(run, mode)]


def _tokenizer() -> tuple[Any, Any]:
    """One of Sudachi's tokenizers for each thread: they are not to be shared."""
    found: tuple[Any, Any] | None = getattr(_local, "tokenizer", None)
    if found is None:
        from sudachipy import SplitMode

        found = _local.tokenizer = (_dictionary().tokenizer(), SplitMode.C)
    return found


@functools.cache
def _dictionary() -> Any:
    from sudachipy import Dictionary

    return Dictionary(dict="core")


def reading(text: str) -> str:
    """The whole of ``text`` as it is read, in katakana; what has no reading stays. For training on kana-only writing."""
    tokenizer, mode = _tokenizer()
    parts = [m.reading_form() if _JAPANESE.match(m.surface()) else m.surface() for m in tokenizer.tokenize(text, mode)]
    return nfkc("".join(parts))


def surfaces(text: str) -> list[str]:
    """The words of a text as they are written, by Sudachi."""
    tokenizer, mode = _tokenizer()
    return [morpheme.surface() for morpheme in tokenizer.tokenize(text, mode)]
