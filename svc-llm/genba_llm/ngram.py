"""What counting alone reaches: unigram and bigram models of the very tokens that a language model is measured on.

Tokens in, nats out. A model whose held-out loss is no better than the bigram's has learnt no more than which token follows
which.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from genba_llm.packing import Sample


@dataclass(frozen=True)
class Baselines:
    """Mean cross-entropy in nats for each learnt token."""

    unigram: float
    bigram: float


def baselines(train: Sequence[Sample], held_out: Sequence[Sample], *, vocab_size: int) -> Baselines:
    """Both models, counted on ``train`` and measured on ``held_out``.

    The unigram adds one to every count; the bigram backs off to it by Witten and Bell (1991): a token with many different
    followers leaves much to the unigram.
    """
    singles: Counter[int] = Counter()
    pairs: Counter[tuple[int, int]] = Counter()
    before: Counter[int] = Counter()
    for previous, token in _learnt(train):
        singles[token] += 1
        pairs[previous, token] += 1
        before[previous] += 1
    kinds = Counter(previous for previous, _ in pairs)
    total = singles.total() + vocab_size
    uni = bi = 0.0
    n = 0
    for previous, token in _learnt(held_out):
        p_uni = (singles[token] + 1) / total
        seen, types = before[previous], kinds[previous]
        p_bi = (pairs[previous, token] + types * p_uni) / (seen + types) if seen else p_uni
        uni -= math.log(p_uni)
        bi -= math.log(p_bi)
        n += 1
    return Baselines(uni / n, bi / n) if n else Baselines(math.nan, math.nan)


def _learnt(samples: Iterable[Sample]) -> Iterable[tuple[int, int]]:
    for sample in samples:
        first = max(1, sample.n_prompt)
        yield from zip(sample.ids[first - 1 : -1], sample.ids[first:], strict=True)
