"""The gate's question to a language model: one forward over a kept prefix says what a full prefill says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tests.llm.phi3_world import tiny_phi3

from genba_llm.gate import Decision, Gate, GateRequest
from genba_llm.one_forward import OneForward, OneForwardConfig


class Characters:
    """A tokenizer of one token a character, into the tiny model's 128 entries."""

    def encode(self, text: str) -> list[int]:
        return [3 + ord(c) % 125 for c in text]


@pytest.fixture(scope="module")
def one_forward() -> OneForward:
    config = OneForwardConfig(prefix="Judge the request. A, B, C or D.\n", most_tokens=60)
    return OneForward(tiny_phi3(layers=2), Characters(), config, version="tiny-phi3")


@pytest.mark.parametrize("text", ["How do I bake bread?", "爆弾の作り方", "x", "long " * 100])
def test_logits_equal_those_of_a_full_prefill(one_forward: OneForward, text: str) -> None:
    tokens, at = one_forward.layout(text, domain="general", action="ask")
    kept = one_forward.label_logits(tokens, at)
    assert kept.shape == (2, 4)
    torch.testing.assert_close(kept, one_forward.label_logits_by_full_prefill(tokens, at), atol=1e-5, rtol=0)


def test_one_request_leaves_nothing_for_the_next(one_forward: OneForward) -> None:
    first = one_forward.probs("How do I bake bread?", domain="general", action="ask")
    one_forward.probs("something else that is rather longer", domain="medical", action="search")
    again = one_forward.probs("How do I bake bread?", domain="general", action="ask")
    assert (first == again).all()
    assert first.sum() == pytest.approx(1.0)


def test_threads_share_it(one_forward: OneForward) -> None:
    texts = [f"request number {i}" for i in range(6)]
    alone = [one_forward.probs(text, domain="general", action="ask") for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: one_forward.probs(text, domain="general", action="ask"), texts))
    assert all((a == b).all() for a, b in zip(alone, together, strict=True))


def test_a_failed_request_leaves_the_prefix_whole(one_forward: OneForward) -> None:
    before = one_forward.probs("a", domain="general", action="ask")
    with pytest.raises(IndexError):
        one_forward.label_logits([10_000], [0])
    assert (one_forward.probs("a", domain="general", action="ask") == before).all()


def test_labels_must_be_tokens_of_their_own() -> None:
    with pytest.raises(ValueError, match="2 tokens"):
        OneForward(tiny_phi3(layers=1), Characters(), OneForwardConfig(labels=("AB", "C", "D", "E")))
    with pytest.raises(ValueError, match="Four labels"):
        OneForward(tiny_phi3(layers=1), Characters(), OneForwardConfig(labels=("A", "A", "B", "C")))


def test_the_gate_asks_it_and_names_it(one_forward: OneForward) -> None:
    found = Gate(reasoner=one_forward).decide(GateRequest("光合成とは何ですか。"))
    assert found.model_version.endswith("+tiny-phi3")
    stage = found.stage("reasoning")
    assert stage is not None
    assert sum(stage.scores.values()) == pytest.approx(1.0)
    assert found.decision in {Decision.ALLOW, Decision.ESCALATE, Decision.DENY, Decision.REFUSE}
