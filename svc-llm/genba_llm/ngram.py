"""What counting alone reaches: n-gram models of the very tokens that a language model is measured on.

Tokens in, nats out. A model whose held-out loss is no better has learnt no more than which token follows which few.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from genba_llm.packing import Sample

_LONGEST: Final = 4
Context = tuple[int, ...]


@dataclass(frozen=True)
class Baselines:
    """Mean cross-entropy in nats for each learnt token."""

    unigram: float
    bigram: float
    fourgram: float


def baselines(train: Sequence[Sample], held_out: Sequence[Sample], *, vocab_size: int) -> Baselines:
    """All three, counted on ``train`` and measured on ``held_out``.

    The unigram adds one to every count; a longer one backs off to the next shorter by Witten and Bell (1991): a context with
    many different followers leaves much to it.
    """
    counts = [Counter[tuple[Context, int]]() for _ in range(_LONGEST)]
    before = [Counter[Context]() for _ in range(_LONGEST)]
    kinds = [Counter[Context]() for _ in range(_LONGEST)]
    for context, token in _learnt(train):
        for order in range(_LONGEST):
            known = context[len(context) - order :]
            if len(known) == order:
                counts[order][known, token] += 1
                before[order][known] += 1
    for order in range(_LONGEST):
        kinds[order].update(known for known, _ in counts[order])
    total = before[0][()] + vocab_size
    nats, n = [0.0] * _LONGEST, 0
    for context, token in _learnt(held_out):
        p = (counts[0][(), token] + 1) / total
        nats[0] -= math.log(p)
        for order in range(1, _LONGEST):
            known = context[len(context) - order :]
            if len(known) == order and (seen := before[order][known]):
                types = kinds[order][known]
                p = (counts[order][known, token] + types * p) / (seen + types)
            nats[order] -= math.log(p)
        n += 1
    if not n:
        return Baselines(math.nan, math.nan, math.nan)
    return Baselines(nats[0] / n, nats[1] / n, nats[3] / n)


def _learnt(samples: Iterable[Sample]) -> Iterator[tuple[Context, int]]:
    """Each learnt token with up to three before it."""
    for sample in samples:
        for at in range(max(1, sample.n_prompt), len(sample.ids)):
            yield tuple(sample.ids[max(0, at - _LONGEST + 1) : at]), sample.ids[at]
