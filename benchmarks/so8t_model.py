"""Train the project's own tiny model by its own line, and see whether its answers are worth anything.

    python -m benchmarks.so8t_model [--per-domain 3000] [--steps 900] [--out FOLDER]

Rows come from the generator alone. What is held out are *questions*: a core that was asked in training under another number
or in another room does not count as new. Losses stand beside a unigram and a bigram model of the same tokens, decisions
beside always saying the commonest one. Nothing is tuned on what is reported here.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from genba_llm import evaluation
from genba_llm.base_model import load_base, load_tokenizer
from genba_llm.finetune_config import FinetuneConfig, config_of
from genba_llm.line_data import as_validation, encode
from genba_llm.ngram import baselines
from genba_llm.sft_rows import Row
from genba_llm.so8t_bundle import MODEL
from genba_llm.so8t_line import FreshShape, make_fresh_base, measure, train_line
from genba_llm.synthesise import core_of, synthesise
from genba_llm.verdict import DOMAINS
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.principal import Clearance, Principal
from genba_shared.recipe import Checkpoint, LocalReporter, Run
from genba_shared.settings import Platform

SEED = 20260101
HELD_SHARE = 0.1
SHAPE = FreshShape(vocab_size=4096, hidden_size=128, layers=4, heads=4, kv_heads=2)


class _Quiet(LocalReporter):
    """Says how far it is every hundred steps."""

    def metrics(self, step: int, values: Any) -> None:
        if step % 100 == 0:
            super().metrics(step, {name: values[name] for name in ("loss", "lr")})

    def progress(self, fraction: float, message: str) -> None:
        """Nothing: the steps are told."""


def split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows to learn, and rows whose core question is asked in none of those."""

    def is_held(row: Row) -> bool:
        digest = hashlib.sha256(core_of(row.instruction).encode()).digest()
        return int.from_bytes(digest[:4], "big") / 2**32 < HELD_SHARE

    held = [is_held(row) for row in rows]
    return [r for r, h in zip(rows, held, strict=True) if not h], [r for r, h in zip(rows, held, strict=True) if h]


def local_run(folder: Path, *, seed: int = SEED) -> Run:
    """A run from a shell."""
    who = Principal("builder", ("admin",), frozenset({"*"}), Clearance.SECRET)
    return Run(
        job_id="job_build",
        attempt=1,
        seed=seed,
        workdir=folder,
        checkpoint=Checkpoint(folder / "checkpoints"),
        principal=who,
        platform=Platform(home=folder / "home"),
        database=Database(f"sqlite:///{folder / 'genba.db'}"),
        artifacts=Artifacts(str(folder / "artifacts")),
        reporter=_Quiet(sys.stderr),
    )


def report(
    folder: Path, learnt: Sequence[Row], held: Sequence[Row], config: FinetuneConfig, *, most: int
) -> dict[str, Any]:
    """Everything that is said of the model."""
    model, tokenizer = load_base(folder / MODEL), load_tokenizer(folder / MODEL)
    data = as_validation(held, tokenizer, config)
    samples = [s for row in learnt if (s := encode(tokenizer, row, max_tokens=config.max_tokens))]
    counted = baselines(samples, [s for packed in data.validation for s in packed], vocab_size=len(tokenizer))
    answers = evaluation.answer_rows(model, tokenizer, held[:: max(1, len(held) // most)][:most])
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "f16_bytes": 2 * sum(p.numel() for p in model.parameters()),
        "rows_learnt": len(learnt),
        "rows_held_out": len(held),
        "rows_answered": len(answers),
        "loss": measure(model, tokenizer, data, batch_size=config.batch_size),
        "unigram_loss": counted.unigram,
        "bigram_loss": counted.bigram,
        "scores": evaluation.scores(answers),
        "trivial": evaluation.trivial(answers),
        "by_family": evaluation.grouped(answers, evaluation.family_of),
        "by_domain": evaluation.grouped(answers, lambda row: row.domain),
        "samples": [{"q": a.row.instruction, "wanted": a.row.output, "said": a.text} for a in answers[::40]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-domain", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--answered", type=int, default=600)
    parser.add_argument("--out", type=Path, help="where the bundle is kept")
    given = parser.parse_args()
    config = config_of({"preset": "tiny", "max_tokens": 256, "batch_size": 16, "max_steps": given.steps})
    rows = [row for domain in DOMAINS for row in synthesise(domain, given.per_domain, seed=SEED)]
    learnt, held = split(rows)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = make_fresh_base(learnt, SHAPE, folder / "base", max_tokens=config.max_tokens, seed=SEED)
        began = time.monotonic()
        finished = train_line(learnt, base, config, local_run(folder), device="cpu", gguf=["F16"])
        took_s = time.monotonic() - began
        found = report(finished.folder, learnt, held, config, most=given.answered)
        if given.out:
            shutil.copytree(finished.folder, given.out, dirs_exist_ok=True)
    out = io.StringIO()
    json.dump({"train_s": round(took_s, 1), **found}, out, indent=1, ensure_ascii=False)
    sys.stdout.write(out.getvalue() + "\n")


if __name__ == "__main__":
    main()
