"""How good a text is to train on, and which domain it belongs to: counting characters and keywords, many texts at a time.

quality = .3·length + .4·Japanese + .2·punctuation + .1·diversity, each in [0, 1]; a text is kept from .7 on. A text that
repeats itself (diversity below .2) loses in proportion: a page of one character would pass otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from genba_llm.policy_state import default_policy
from genba_llm.verdict import Domain

Scores = npt.NDArray[np.float64]
KEPT_FROM = 0.7
MIN_CHARS, MAX_CHARS = 100, 1000
_REPETITIVE = 0.2
_JAPANESE, _PUNCTUATION = 1, 2
_DIVERSE = (
    5.0  # distinct characters / sqrt(2·length) of ordinary prose of 100 to 1000 characters; above it counts as full
)

GENERAL: Domain = "general"


@functools.cache
def _classes() -> npt.NDArray[np.uint8]:
    """What each code point counts as: Japanese, punctuation, or neither. Code points past the table are neither."""
    table = np.zeros(0x1_0000, np.uint8)
    for first, last in ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F)):
        table[first : last + 1] = _JAPANESE
    for character in "々〆ー":
        table[ord(character)] = _JAPANESE
    for character in "。、．，！？「」『』（）・：；.,!?()":
        table[ord(character)] = _PUNCTUATION
    return table


def quality(texts: Sequence[str]) -> Scores:
    """The score of each text.

    Args:    texts: n strings.
    Returns: (n,) in [0, 1]; 0 for an empty text.
    """
    n_chars = np.array([len(text) for text in texts], np.int64)
    scores = np.zeros(len(texts))
    some = np.flatnonzero(n_chars)
    if not some.size:
        return scores
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _classes()[np.minimum(codes, 0xFFFF)]
    lengths = n_chars[some]
    starts = np.cumsum(lengths) - lengths
    japanese = np.add.reduceat((kinds == _JAPANESE).astype(np.int32), starts) / lengths
    marks = np.add.reduceat((kinds == _PUNCTUATION).astype(np.int32), starts) / lengths
    distinct = np.array([len(set(text)) for text in texts if text])
    diversity = np.minimum(1.0, distinct / np.sqrt(2.0 * lengths) / _DIVERSE)
    scores[some] = np.minimum(1.0, diversity / _REPETITIVE) * (
        0.3 * _length(lengths)
        + 0.4 * japanese
        + 0.2
        * np.clip(np.minimum(marks / 0.02, (0.3 - marks) / 0.1), 0.0, 1.0)  # full from 2 % to 20 %, none from 30 %
        + 0.1 * diversity
    )
    return scores


def _length(n_chars: npt.NDArray[np.int64]) -> Scores:
    """Full from 100 to 1000 characters, falling off in proportion on either side."""
    return np.minimum(1.0, np.minimum(n_chars / MIN_CHARS, MAX_CHARS / np.maximum(n_chars, 1)))


@functools.cache
def _keywords() -> dict[Domain, tuple[str, ...]]:
    """The words by which the policy that ships tells the domains of requests: documents are told by the same."""
    return {name: tuple(word.lower() for word in rules.keywords) for name, rules in default_policy().domains.items()}


def domain_of(text: str) -> Domain:
    """The domain whose keywords occur most often, at least twice in all; ``general`` otherwise. Ties go to the first."""
    lowered = text.lower()
    counts = {domain: sum(map(lowered.count, words)) for domain, words in _keywords().items()}
    best = max(counts, key=lambda domain: counts[domain])
    return best if counts[best] >= 2 else GENERAL
