"""Samples of different lengths into rows of one length, without one sample seeing another.

A packed row carries several samples; positions start anew at each, attention stays inside it, and only what the assistant
says is learnt. Arrays in, arrays out: knows no tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100


@dataclass(frozen=True)
class Sample:
    """Token ids, the first ``n_prompt`` of which are given and not learnt."""

    ids: tuple[int, ...]
    n_prompt: int

    @property
    def n_learnt(self) -> int:
        """Tokens that have a loss."""
        return max(0, len(self.ids) - max(1, self.n_prompt))


@dataclass(frozen=True)
class Batch:
    """One forward pass.

    ``input_ids``, ``labels``, ``segments``, ``positions``: (B, T) int64; labels are −100 where nothing is learnt and stand
    at the token itself (the loss shifts them); segments count the samples of a row from 1, 0 is padding.
    """

    input_ids: Tensor
    labels: Tensor
    segments: Tensor
    positions: Tensor

    def attention(self) -> Tensor:
        """(B, 1, T, T) bool, True where a token may look: back, and inside its own sample. Padding looks at itself."""
        t = self.segments.shape[1]
        same = self.segments.unsqueeze(2) == self.segments.unsqueeze(1)  # (B, T, T)
        causal = torch.ones(t, t, dtype=torch.bool, device=same.device).tril()
        return (same & causal).unsqueeze(1)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(
            self.input_ids.to(device), self.labels.to(device), self.segments.to(device), self.positions.to(device)
        )


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put samples into rows of ``capacity`` tokens, best fit, longest first; the same input gives the same rows.

    Raises: ValueError for a sample longer than a row.
    """
    rows: list[list[int]] = []
    rooms: list[int] = []
    by_room: dict[int, list[int]] = {}
    for index in sorted(range(len(lengths)), key=lambda each: (-lengths[each], each)):
        length = lengths[index]
        if length > capacity:
            message = f"Sample {index} has {length} tokens, a row holds {capacity}."
            raise ValueError(message)
        room = next((room for room in range(length, capacity + 1) if by_room.get(room)), None) if rows else None
        if room is None:
            row = len(rows)
            rows.append([index])
            rooms.append(capacity - length)
        else:
            row = by_room[room].pop()
            rows[row].append(index)
            rooms[row] = room - length
        by_room.setdefault(rooms[row], []).append(row)
    return rows


def collate(rows: Sequence[Sequence[Sample]], *, length: int, pad_id: int) -> Batch:
    """Lay each row's samples one behind the other, padded to ``length``."""
    shape = (len(rows), length)
    input_ids = torch.full(shape, pad_id, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    segments = torch.zeros(shape, dtype=torch.long)
    positions = torch.zeros(shape, dtype=torch.long)
    for b, samples in enumerate(rows):
        start = 0
        for number, sample in enumerate(samples, start=1):
            end = start + len(sample.ids)
            learnt = start + max(1, sample.n_prompt)  # a sample's first token has nothing before it to be told from
            input_ids[b, start:end] = torch.tensor(sample.ids, dtype=torch.long)
            labels[b, learnt:end] = input_ids[b, learnt:end]
            segments[b, start:end] = number
            positions[b, start:end] = torch.arange(end - start)
            start = end
    return Batch(input_ids, labels, segments, positions)


class Order:
    """Which rows a step sees: a fresh permutation for every epoch, made from the seed, so that a step number is a position."""

    def __init__(self, n_rows: int, *, rows_per_step: int, seed: int) -> None:
        if n_rows < 1:
            raise ValueError("There are no rows.")
        self.n_rows = n_rows
        self.rows_per_step = rows_per_step
        self._seed = seed
        self._epoch = -1
        self._permutation: list[int] = []

    @property
    def steps_per_epoch(self) -> int:
        """Steps until every row was seen; the last one runs over into the next epoch."""
        return -(-self.n_rows // self.rows_per_step)

    def rows(self, step: int) -> list[int]:
        """The rows of a step, counted from 0."""
        first = step * self.rows_per_step
        return [self._row(position) for position in range(first, first + self.rows_per_step)]

    def _row(self, position: int) -> int:
        epoch, place = divmod(position, self.n_rows)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(hash((self._seed, epoch)) & 0x7FFF_FFFF)
            self._permutation = torch.randperm(self.n_rows, generator=generator).tolist()
            self._epoch = epoch
        return self._permutation[place]


def micro_batches(rows: Sequence[Sequence[Sample]], size: int) -> Iterator[Sequence[Sequence[Sample]]]:
    """``rows`` in groups of ``size``."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
