"""What SO8T costs beside plain LoRA: time and memory of a training step, same model, same rows, same adapter.

    python benchmarks/so8t_step.py [--hidden 768] [--layers 8] [--steps 6] [--rounds 3]

Variants run in processes of their own, in turns, and are compared by CPU seconds; the median over rounds counts. The maps
table gives one layer of Phi-4-mini's width (384 blocks): forward, and forward with backward.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

VARIANTS: dict[str, dict[str, Any]] = {
    "LoRA (peft)": {"so8t": None, "pet": False},
    "LoRA + SO8T": {"so8t": {}, "pet": False},
    "LoRA + SO8T + PET": {"so8t": {}, "pet": True},
}


def measure(variant: dict[str, Any], *, hidden: int, layers: int, steps: int) -> dict[str, float]:
    """CPU seconds for a step after one to warm up, and the process's peak memory in MiB."""
    from genba_llm.finetune import Data, Finetuning
    from genba_llm.finetune_config import config_of
    from genba_llm.packing import Sample
    from genba_shared.torchvision import make_torchvision_importable

    make_torchvision_importable()
    from transformers import Phi3Config, Phi3ForCausalLM

    torch.manual_seed(0)
    model = Phi3ForCausalLM(
        Phi3Config(
            vocab_size=4096,
            hidden_size=hidden,
            intermediate_size=hidden * 8 // 3,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 64,
            num_key_value_heads=max(1, hidden // 192),
            partial_rotary_factor=0.75,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    config = config_of(
        {
            "quantise": "none",
            "lora": {"rank": 64, "alpha": 128.0},
            "max_tokens": 256,
            "batch_size": 2,
            "accumulation": 4,
            "gradient_checkpointing": False,
            **variant,
        }
    )
    generator = torch.Generator().manual_seed(1)
    rows = [[Sample(tuple(torch.randint(3, 4096, (256,), generator=generator).tolist()), 8)] for _ in range(8)]
    data, training = Data(rows, [], 256, 0), Finetuning(model, config, seed=0)
    training.step(rows, data, step=1, n_steps=100)
    began = time.process_time()
    for step in range(2, steps + 2):
        training.step(rows, data, step=step, n_steps=100)
    spent = (time.process_time() - began) / steps
    return {"cpu_s": spent, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def maps(blocks: int = 384, rounds: int = 30) -> list[tuple[str, float, float, float]]:
    """Name, forward ms, forward and backward ms, and the largest |RᵀR − I| at angles of σ = .1, for one layer."""
    from genba_llm.rotations import cayley, exponential, orthogonality_error, skew

    def neumann(theta: torch.Tensor) -> torch.Tensor:
        """Five terms of the Neumann series in place of the solve, as peft does by default."""
        a = skew(theta)
        eye = torch.eye(8)
        power, total = a, eye + 2 * a
        for _ in range(2):
            power = power @ a
            total = total + 2 * power
        return total + power @ a

    found = []
    for name, make in (("Cayley, solve", cayley), ("exponential", exponential), ("Neumann-5 (peft)", neumann)):
        theta = (0.1 * torch.randn(blocks, 28, generator=torch.Generator().manual_seed(0))).requires_grad_()
        forward = _ms(partial(make, theta), rounds)
        both = _ms(partial(_there_and_back, make, theta), rounds)
        found.append((name, forward, both, orthogonality_error(make(theta))))
    return found


def _there_and_back(make: Callable[[torch.Tensor], torch.Tensor], theta: torch.Tensor) -> None:
    make(theta).square().sum().backward()


def _ms(work: Callable[[], object], rounds: int) -> float:
    work()
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return 1e3 * statistics.median(spent)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.variant:
        print(json.dumps(measure(VARIANTS[args.variant], hidden=args.hidden, layers=args.layers, steps=args.steps)))
        return
    told: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in range(args.rounds):
        for name in VARIANTS:
            command = [
                sys.executable,
                __file__,
                "--variant",
                name,
                *(f"--{each}={getattr(args, each)}" for each in ("hidden", "layers", "steps")),
            ]
            told[name].append(
                json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            )
    print(
        f"Phi-3 family, {args.layers} layers of {args.hidden}, LoRA rank 64 on every linear layer, 2,048 tokens a step, one thread\n"
    )
    print(f"{'':<20} {'CPU s a step':>13} {'× LoRA':>8} {'peak MiB':>9} {'× LoRA':>8}")
    base_s, base_mib = (statistics.median(each[key] for each in told["LoRA (peft)"]) for key in ("cpu_s", "peak_mib"))
    for name, rounds in told.items():
        seconds, mib = (statistics.median(each[key] for each in rounds) for key in ("cpu_s", "peak_mib"))
        print(f"{name:<20} {seconds:13.3f} {seconds / base_s:8.3f} {mib:9.0f} {mib / base_mib:8.3f}")
    print(f"\n{'map, 384 blocks':<20} {'forward ms':>11} {'+ backward ms':>14} {'|RᵀR − I|':>11}")
    for name, forward, both, error in maps():
        print(f"{name:<20} {forward:11.2f} {both:14.2f} {error:11.1e}")


if __name__ == "__main__":
    main()
