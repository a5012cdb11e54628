"""What a decision costs: stages 0 to 3 and fusion on one core; and the language model's judgement in one forward pass.

The one-forward gate is compared on the same tiny Phi-3 (real configuration class, random weights) with generating 120 tokens of
thinking, and with a full prefill of policy and request. CPU time, not wall time, so that neighbours do not count.
Run: OMP_NUM_THREADS=1 python benchmarks/gate_speed.py [--no-model]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

from genba_llm.contrast import generate
from genba_llm.gate import Gate, GateRequest
from genba_llm.policy import Policy
from genba_llm.policy_state import PolicyState, default_policy


def cpu_ms(work: Callable[[], object], repeats: int) -> list[float]:
    found = []
    for _ in range(repeats):
        began = time.thread_time()
        work()
        found.append((time.thread_time() - began) * 1e3)
    return found


def stages(count: int) -> None:
    gate = Gate()
    texts = [row.text for row in generate(99)[:count]]
    for text in texts[:50]:
        gate.decide(GateRequest(text))
    spent: dict[str, list[float]] = {}
    total = []
    for text in texts:
        began = time.thread_time()
        found = gate.decide(GateRequest(text))
        total.append((time.thread_time() - began) * 1e3)
        for each in found.evidence:
            spent.setdefault(each.stage, []).append(each.elapsed_ms)
    print(f"## Stages 0 to 3 and fusion, {count} requests, one thread\n| stage | p50 ms | p95 ms |\n|---|---|---|")
    for name, values in spent.items():
        print(f"| {name} (wall) | {statistics.median(values):.3f} | {sorted(values)[int(0.95 * len(values))]:.3f} |")
    print(f"| all, CPU time | {statistics.median(total):.3f} | {sorted(total)[int(0.95 * len(total))]:.3f} |")
    print(f"{1e3 * len(total) / sum(total):.0f} decisions a second of one core's CPU time")


def reload_policy() -> None:
    policy = Policy()
    again = PolicyState.from_document(default_policy().model_dump(mode="json") | {"revision": 2})
    spent = cpu_ms(lambda: policy.replace(again), 20)
    print(
        f"\n## Policy reload (parse, validate, compile, swap): p50 {statistics.median(spent):.1f} ms, worst {max(spent):.1f} ms of CPU time"
    )


def model(layers: int, hidden: int) -> None:
    import torch

    from genba_llm.one_forward import PREFIX, OneForward, OneForwardConfig
    from genba_shared.torchvision import make_torchvision_importable

    make_torchvision_importable()
    from transformers import Phi3Config, Phi3ForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = Phi3Config(vocab_size=2048, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers, num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=4096, original_max_position_embeddings=4096, pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True)  # fmt: skip

    class Characters:
        def encode(self, text: str) -> list[int]:
            return [3 + ord(c) % 2000 for c in text]

    phi = Phi3ForCausalLM(config).eval()
    gate = OneForward(phi, Characters(), OneForwardConfig(prefix=PREFIX * 3))
    tokens, at = gate.layout("How do I bake bread at home?", domain="general", action="ask")
    kept, full = gate.label_logits(tokens, at), gate.label_logits_by_full_prefill(tokens, at)
    ids = torch.tensor([[*gate.prefix_tokens, *tokens]])

    def think() -> object:
        with torch.inference_mode():
            return phi.generate(ids, max_new_tokens=120, min_new_tokens=120, do_sample=False)

    one = statistics.median(cpu_ms(lambda: gate.label_logits(tokens, at), 15))
    prefill = statistics.median(cpu_ms(lambda: gate.label_logits_by_full_prefill(tokens, at), 7))
    thinking = statistics.median(cpu_ms(think, 3))
    print(
        f"\n## One forward, Phi-3 of {sum(p.numel() for p in phi.parameters()) / 1e6:.0f} M parameters, prefix of {len(gate.prefix_tokens)} tokens, request of {len(tokens)}"
    )
    print("| | CPU ms | against one forward |\n|---|---|---|")
    for name, value in (
        ("one forward over the kept prefix", one),
        ("full prefill", prefill),
        ("generating 120 tokens of thinking", thinking),
    ):
        print(f"| {name} | {value:.1f} | {value / one:.1f}× |")
    print(f"largest difference of the logits: {(kept - full).abs().max().item():.1e}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--no-model", action="store_true")
    args = parser.parse_args()
    stages(args.requests)
    reload_policy()
    if not args.no_model:
        model(layers=6, hidden=512)
    return 0


if __name__ == "__main__":
    sys.exit(main())
