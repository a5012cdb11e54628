"""What a champion of the line knows, as rows: whoever takes its place must give their answers no less likelihood.

A bundle that the line made carries some of the rows that its training held out; what the model that ships knows is written
anew by the generator that taught it. Without this, a model of a hundred rows would replace one of thirty thousand as soon as
it knew its own hundred better.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from genba_llm.line_data import as_validation, is_held_out
from genba_llm.sft_rows import BadRows, Row, read_rows
from genba_llm.so8t_bundle import is_shipped

if TYPE_CHECKING:
    from genba_llm.finetune_config import FinetuneConfig

KNOWN: Final = "known.jsonl"
METRIC: Final = "known_log2_likelihood_per_byte"
TOLERANCE: Final = 0.02  # bits for each byte of an answer
_MOST_ROWS: Final = 200
_MOST_TOKENS: Final = 1024  # of a row, whatever the training's own limit is: both models are asked the same


def keep_known(folder: Path, rows: Iterable[Row], *, share: float) -> None:
    """Write the first rows that a training with this ``validation_share`` held out into its bundle."""
    held = islice((row for row in rows if is_held_out(row, share)), _MOST_ROWS)
    (folder / KNOWN).write_text("".join(f"{row.model_dump_json()}\n" for row in held), "utf-8")


def known_rows(bundle: Path) -> list[Row]:
    """Rows that the version knows; none for one that an older release made. Raises: OSError."""
    if is_shipped(bundle):
        from genba_llm.build_own_model import taught_rows

        return taught_rows(_MOST_ROWS)
    path = bundle / KNOWN
    return list(read_rows([path], BadRows(limit=0))) if path.is_file() else []


def likelihood_of_known(
    folder: Path,
    rows: Sequence[Row],
    config: FinetuneConfig,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> float | None:
    """log₂ likelihood for each byte of the rows' answers, by the model in ``folder``; None without rows."""
    from genba_llm.base_model import load_base, load_tokenizer
    from genba_llm.so8t_line import measure

    if not rows:
        return None
    tokenizer = load_tokenizer(folder)
    data = as_validation(rows, tokenizer, config.model_copy(update={"max_tokens": _MOST_TOKENS}))
    reached: dict[str, float] = measure(
        load_base(folder, dtype=dtype, device=device), tokenizer, data, batch_size=config.batch_size
    )
    return reached["log2_likelihood_per_byte"]
