"""Fine-tuning Phi-4-mini's full shape on one GPU: step time and memory of QLoRA with and without SO8T and PET, and the burn-in.

    python benchmarks/so8t_gpu.py [--quantise int8 nf4] [--steps 4] [--rounds 1] [--work FOLDER]

The weights are random (the shape is what costs). The base is written once as a folder, as a user's would be, and loaded by
the line's own loader; the preset ``phi-4-mini`` is what trains: batches of 2 rows of 2,048 tokens, gradient checkpointing,
LoRA rank 64 on every linear layer, the paged 8-bit optimiser. Variants run in processes of their own. Every token of a row
is learnt, the dearest case. Peak memory is what the allocator handed out; beside it what the line's plan says before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from genba_shared.torchvision import make_torchvision_importable

VARIANTS: dict[str, dict[str, Any]] = {
    "QLoRA (peft)": {"so8t": None, "pet": False},
    "QLoRA + SO8T": {"so8t": {}, "pet": False},
    "QLoRA + SO8T + PET": {"so8t": {}, "pet": True},
}
BURN_IN = "burn-in"
SHAPE = {
    "vocab_size": 200_064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "partial_rotary_factor": 0.75,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GIB = float(1 << 30)


def write_base(folder: Path) -> None:
    """Phi-4-mini's shape with random weights in bfloat16."""
    make_torchvision_importable()
    from transformers import Phi3Config, Phi3ForCausalLM

    torch.manual_seed(0)
    with torch.device("cuda"):
        model = Phi3ForCausalLM(Phi3Config(**SHAPE)).to(torch.bfloat16)
    model.save_pretrained(folder)


def measure(base: Path, variant: dict[str, Any], *, quantise: str, steps: int, accumulation: int) -> dict[str, float]:
    """Seconds for a step after one to warm up, peak GiB of the allocator, and the plan's GiB."""
    from genba_llm.base_model import compute_dtype, empty_model, load_base
    from genba_llm.finetune import Data, Finetuning
    from genba_llm.finetune_config import config_of
    from genba_llm.memory_plan import memory_plan
    from genba_llm.packing import Sample

    config = config_of({"preset": "phi-4-mini", "quantise": quantise, "accumulation": accumulation, **variant})
    planned = memory_plan(empty_model(base), config)
    model = load_base(base, quantise=config.quantise, dtype=compute_dtype("cuda", config), device="cuda")
    loaded = torch.cuda.memory_allocated()
    training = Finetuning(model, config, seed=0)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(
        3, SHAPE["vocab_size"], (config.batch_size * accumulation, config.max_tokens), generator=generator
    )
    rows = [[Sample(tuple(each.tolist()), 8)] for each in ids]
    data = Data(rows, [], config.max_tokens, 0)
    training.step(rows, data, step=1, n_steps=100)
    torch.cuda.reset_peak_memory_stats()
    spent, loss = [], 0.0
    for step in range(2, steps + 2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        loss = training.step(rows, data, step=step, n_steps=100)["loss"]
        torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    return {
        "step_s": statistics.median(spent),
        "peak_gib": torch.cuda.max_memory_allocated() / GIB,
        "weights_gib": loaded / GIB,
        "planned_gib": planned.total / GIB,
        "tokens": ids.numel(),
        "loss": loss,
        "paged": float(type(training.optimiser).__name__ == "PagedAdamW8bit"),
    }


def burn_in(base: Path) -> dict[str, float]:
    """The certificate of rotations drawn at σ = .1, burnt into the full shape in single precision."""
    from genba_llm.base_model import load_base
    from genba_llm.burn_in import burn_with_certificate
    from genba_llm.so8t import So8tGates

    model = load_base(base, dtype=torch.float32, device="cuda")
    gates = So8tGates.for_model(model)
    with torch.no_grad():
        gates.theta.copy_(0.1 * torch.randn(gates.theta.shape, generator=torch.Generator().manual_seed(0)))
    probes = torch.randint(3, SHAPE["vocab_size"], (4, 64), generator=torch.Generator().manual_seed(1))
    began = time.perf_counter()
    found = burn_with_certificate(model, gates, probes).as_json()
    return {"seconds": time.perf_counter() - began} | {key: float(each) for key, each in found.items() if key != "side"}


def main() -> int:
    """Print the tables. Exit code 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quantise", nargs="+", choices=("int8", "nf4"), default=["int8", "nf4"])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--accumulation", type=int, default=8)
    parser.add_argument("--work", type=Path, help="where the base is written (8 GB)")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        folder, quantise, name = args.one
        print(json.dumps(_one(Path(folder), quantise, name, args)))
        return 0
    if not torch.cuda.is_available():
        print("There is no GPU here: nothing was measured.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        base = Path(work) / "base"
        write_base(base)
        torch.cuda.empty_cache()
        print(
            f"{torch.cuda.get_device_name()}, Phi-4-mini's shape, {args.accumulation} × 2 rows of 2,048 tokens a step",
            flush=True,
        )
        for quantise in args.quantise:
            _compare(base, quantise, args)
        found = _child(base, "none", BURN_IN, args)
        print("burn-in at σ = .1, fp32: " + ", ".join(f"{key} {value:.3g}" for key, value in found.items()))
    return 0


def _one(base: Path, quantise: str, name: str, args: argparse.Namespace) -> dict[str, float]:
    if name == BURN_IN:
        return burn_in(base)
    return measure(base, VARIANTS[name], quantise=quantise, steps=args.steps, accumulation=args.accumulation)


def _compare(base: Path, quantise: str, args: argparse.Namespace) -> None:
    told: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in range(args.rounds):
        for name, rounds in told.items():
            rounds.append(_child(base, quantise, name, args))
    plain = {key: statistics.median(each[key] for each in told["QLoRA (peft)"]) for key in ("step_s", "peak_gib")}
    print(
        f"\n{quantise:<20} {'s a step':>9} {'× QLoRA':>8} {'tokens/s':>9} {'peak GiB':>9} {'× QLoRA':>8} {'planned':>8}"
    )
    for name, rounds in told.items():
        of = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        print(
            f"{name:<20} {of['step_s']:9.3f} {of['step_s'] / plain['step_s']:8.3f} {of['tokens'] / of['step_s']:9.0f}"
            f" {of['peak_gib']:9.2f} {of['peak_gib'] / plain['peak_gib']:8.3f} {of['planned_gib']:8.2f}"
            f"   weights {of['weights_gib']:.2f} GiB, loss {of['loss']:.3f}, paged optimiser {'yes' if of['paged'] else 'no'}",
            flush=True,
        )


def _child(base: Path, quantise: str, name: str, args: argparse.Namespace) -> dict[str, float]:
    options = [f"--{each}={getattr(args, each)}" for each in ("steps", "accumulation")]
    command = [sys.executable, __file__, "--one", str(base), quantise, name, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} ({quantise}) failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
