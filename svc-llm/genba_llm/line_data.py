"""Rows and documents as a run learns them: tokens, split into training and held out by a hash of the text, packed.

What is held out follows from the text alone, so that a later evaluation, and another model, hold out the same rows.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from genba_llm.finetune import Data
from genba_llm.finetune_config import FinetuneConfig
from genba_llm.packing import Sample, pack
from genba_llm.refused import Refused
from genba_llm.sft_rows import Row, messages

MIN_ROWS = 16
Packed = list[list[Sample]]


class NotEnoughRows(Refused):
    """Too few rows fit to be trained on."""


@dataclass(frozen=True)
class Prepared:
    """``data`` is what a run takes; ``held_texts`` are pieces of documents that it never saw, packed alike."""

    data: Data
    held_texts: Packed
    data_hash: str
    n_too_long: int

    @property
    def texts(self) -> Data:
        """The held-out documents in the place of the validation rows."""
        return Data((), self.held_texts, self.data.length, self.data.pad_id)


def is_held_out(row: Row, share: float) -> bool:
    """Whether a row is kept from training when ``share`` of them are."""
    return _is_held(f"{row.instruction}\n{row.input}", share)


def _is_held(text: str, share: float) -> bool:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32 < share


def prepare(rows: Iterable[Row], tokenizer: Any, config: FinetuneConfig, *, documents: Iterable[str] = ()) -> Prepared:
    """Everything a run learns from. Of a row only the answer is learnt, of a document all of it.

    Raises: NotEnoughRows.
    """
    train: list[Sample] = []
    held_out: list[Sample] = []
    held_texts: list[Sample] = []
    digest, too_long, splits = hashlib.sha256(), 0, _Splits(tokenizer, config.token_splits)
    for row in rows:
        sample = encode(tokenizer, row, max_tokens=config.max_tokens)
        if sample is None:
            too_long += 1
            continue
        digest.update(row.model_dump_json().encode())
        if is_held_out(row, config.validation_share):
            held_out.append(sample)
        else:
            train.append(splits.applied(sample, max_tokens=config.max_tokens))
    if len(train) < MIN_ROWS:
        message = f"{len(train)} rows fit into {config.max_tokens} tokens and may be trained on; at least {MIN_ROWS} are needed."
        raise NotEnoughRows(message)
    for text in documents:
        digest.update(text.encode())
        held = _is_held(text, config.validation_share)
        (held_texts if held else train).extend(pieces(tokenizer, text, max_tokens=config.max_tokens))
    packed_train, packed_held = _packed(train, config.max_tokens), _packed(held_out, config.max_tokens)
    data = Data(packed_train, packed_held, config.max_tokens, _pad(tokenizer))
    return Prepared(data, _packed(held_texts, config.max_tokens), digest.hexdigest(), too_long)


class _Splits:
    """Tokens of prompts in two pieces now and then, by chance: a word is then known by its parts as well, and what a template
    always wrote in one token is read when somebody writes it otherwise (after Provilkov et al. 2020, BPE dropout).
    """

    def __init__(self, tokenizer: Any, share: float) -> None:
        self._share = share
        self._ids: dict[str, int] = tokenizer.get_vocab() if share else {}
        special = set(tokenizer.all_special_ids) if share else set()
        self._tokens = {index: token for token, index in self._ids.items() if index not in special}

    def applied(self, sample: Sample, *, max_tokens: int) -> Sample:
        """The sample, or one with other tokens for the same prompt; the same sample always gives the same."""
        if not self._share:
            return sample
        rng = random.Random(hashlib.sha256(repr(sample.ids).encode()).digest())  # noqa: S311 - sampling, no secret
        prompt: list[int] = []
        for index in sample.ids[: sample.n_prompt]:
            prompt += self._halves(index, rng) if rng.random() < self._share else [index]
        ids = (*prompt, *sample.ids[sample.n_prompt :])
        return Sample(ids, len(prompt)) if len(ids) <= max_tokens else sample

    def _halves(self, index: int, rng: random.Random) -> list[int]:
        token = self._tokens.get(index, "")
        pairs = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [pair for pair in pairs if pair[0] in self._ids and pair[1] in self._ids]
        return [self._ids[half] for half in rng.choice(known)] if known else [index]


def as_validation(rows: Iterable[Row], tokenizer: Any, config: FinetuneConfig) -> Data:
    """Rows to measure on, none to train on; those that do not fit are left out. Raises: NotEnoughRows when none fits."""
    samples = [found for row in rows if (found := encode(tokenizer, row, max_tokens=config.max_tokens)) is not None]
    if not samples:
        raise NotEnoughRows(f"No row fits into {config.max_tokens} tokens.")
    return Data((), _packed(samples, config.max_tokens), config.max_tokens, _pad(tokenizer))


def encode(tokenizer: Any, row: Row, *, max_tokens: int) -> Sample | None:
    """A row as token ids of which only the answer is learnt; None for one that does not fit.

    The prompt is what the chat template writes with the generation prompt, so training and serving agree on every token.
    """
    talk = messages(row)
    start = _ids(tokenizer, talk[:-1], prompt=True)
    whole = _ids(tokenizer, talk, prompt=False)
    if len(whole) > max_tokens or whole[: len(start)] != start:
        return None
    return Sample(tuple(whole), len(start))


def pieces(tokenizer: Any, text: str, *, max_tokens: int) -> Iterator[Sample]:
    """A document as samples that are learnt whole; the last one ends with the end token."""
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    for start in range(0, len(ids), max_tokens):
        if len(piece := ids[start : start + max_tokens]) > 1:  # of a single token nothing is learnt
            yield Sample(tuple(piece), 0)


def _ids(tokenizer: Any, talk: Sequence[dict[str, Any]], *, prompt: bool) -> list[int]:
    text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=prompt)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _packed(samples: Sequence[Sample], length: int) -> Packed:
    return [[samples[index] for index in group] for group in pack([len(each.ids) for each in samples], length)]


def _pad(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)
