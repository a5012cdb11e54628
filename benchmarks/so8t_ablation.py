"""Do the rotations and PET help? A 2×2 over seeds: with and without each, everything else equal.

    python -m benchmarks.so8t_ablation [--seeds 5] [--steps 50]

Every arm of a seed starts from the same weights, sees the same rows in the same order, and is measured on the same held-out
questions, whose cores no arm saw. The differences to the plain arm are paired by seed; their 95 % intervals are Student's.
The bar is not to be worse: an arm fails it if the upper end of its interval is more than 1 % of the plain arm's loss.
Whatever comes out is printed.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from genba_llm.base_model import load_base, load_tokenizer
from genba_llm.build_own_model import local_run, split
from genba_llm.finetune import Finetuning, finetune
from genba_llm.finetune_config import config_of
from genba_llm.line_data import as_validation, prepare
from genba_llm.so8t_line import FreshShape, make_fresh_base
from genba_llm.synthesise import synthesise
from genba_llm.verdict import DOMAINS

ARMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "SO8T": {"so8t": {}},
    "PET": {"pet": True},
    "SO8T + PET": {"so8t": {}, "pet": True},
}
SHAPE = FreshShape(vocab_size=1024, hidden_size=64, layers=2, heads=2, kv_heads=1)
BAR = 0.01


def run_seed(seed: int, steps: int, per_domain: int) -> dict[str, float]:
    """The held-out loss of every arm, in nats a token."""
    rows = [row for domain in DOMAINS for row in synthesise(domain, per_domain, seed=seed)]
    learnt, held = split(rows)
    losses = {}
    with tempfile.TemporaryDirectory() as name:
        base = make_fresh_base(learnt, SHAPE, Path(name) / "base", max_tokens=192, seed=seed)
        tokenizer = load_tokenizer(base)
        shared = {"preset": "tiny", "max_tokens": 192, "batch_size": 8, "max_steps": steps, "learning_rate": 5e-3}
        plain = config_of({**shared, "validation_share": 0.0})
        prepared = prepare(learnt, tokenizer, plain)
        held_out = as_validation(held, tokenizer, plain)
        for arm, parts in ARMS.items():
            config = config_of({**shared, "validation_share": 0.0, "checkpoint_every_s": 3600.0, **parts})
            folder = Path(name) / arm.replace(" ", "")
            folder.mkdir()
            training = Finetuning(load_base(base), config, seed=seed)
            try:
                finetune(training, prepared.data, local_run(folder, seed=seed))
                losses[arm] = training.validation_loss(held_out)
            finally:
                training.close()
    return losses


def interval(differences: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float, float]:
    """Mean and Student's 95 % interval. Shape: (seeds,)."""
    n = len(differences)
    mean = float(differences.mean())
    half = float(stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return mean, mean - half, mean + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--per-domain", type=int, default=60)
    given = parser.parse_args()
    torch.set_num_threads(1)
    say = sys.stdout.write
    began = time.monotonic()
    found = []
    for seed in range(given.seeds):
        found.append(run_seed(seed, given.steps, given.per_domain))
        say(f"seed {seed}: " + "  ".join(f"{arm} {loss:.4f}" for arm, loss in found[-1].items()) + "\n")
        sys.stdout.flush()
    table = {arm: np.array([losses[arm] for losses in found]) for arm in ARMS}
    plain = float(table["plain"].mean())
    say(f"\n{given.seeds} seeds, {given.steps} steps; plain: {plain:.4f} nats a held-out token\n")
    say(f"{'':12}{'loss':>9}{'Δ':>10}{'95 % interval':>24}{'Δ in %':>9}  no worse than 1 %\n")
    for arm in list(ARMS)[1:]:
        mean, low, high = interval(table[arm] - table["plain"])
        verdict = "yes" if high <= BAR * plain else "not shown" if low <= BAR * plain else "no"
        say(
            f"{arm:12}{table[arm].mean():9.4f}{mean:+10.4f}   [{low:+.4f}, {high:+.4f}]{100 * mean / plain:+9.2f}  {verdict}\n"
        )
    both = table["SO8T + PET"] - table["SO8T"] - table["PET"] + table["plain"]
    mean, low, high = interval(both)
    say(f"interaction: {mean:+.4f} [{low:+.4f}, {high:+.4f}]; {time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main()
