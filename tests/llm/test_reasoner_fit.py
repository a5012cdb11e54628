"""What a language model's judgement is worth in the gate: fitted on labelled rows, nothing for noise, and never a looser bound."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.llm.phi3_world import tiny_phi3
from tests.llm.run_world import local_run
from tests.llm.test_backends import make_tiny_phi3

from genba_llm.fusion import Fusion, Joined, Signals, default_fusion, load_fusion
from genba_llm.gate import Gate, GateRequest
from genba_llm.one_forward import OneForward, OneForwardConfig
from genba_llm.reasoner_fit import Judged, fit_joined
from genba_llm.training_review import GateReasonerParams, gate_reasoner
from genba_llm.verdict import Decision
from genba_shared.problems import Conflict, Invalid
from genba_shared.recipe import Run

WORDS = {"blimvo": Decision.ALLOW, "zorpak": Decision.REFUSE}  # words that the classifier never met


class Characters:
    """A tokenizer of one token a character, into the tiny model's 128 entries."""

    def encode(self, text: str) -> list[int]:
        return [3 + ord(c) % 125 for c in text]


def request(number: int) -> tuple[str, Decision]:
    word = list(WORDS)[number % 2]
    return f"{word} {number:03d} {word}", WORDS[word]


@pytest.fixture(scope="module")
def taught() -> OneForward:
    """A tiny Phi-3 of its real configuration class, taught in a few steps what the two words mean."""
    torch.manual_seed(0)
    config = OneForwardConfig(prefix="A or D.\n", most_tokens=40)
    model = tiny_phi3(layers=2)
    judge = OneForward(model, Characters(), config, version="one-forward:taught")
    labels = torch.tensor([judge._label(label) for label in config.labels])
    laid = [judge.layout(request(n)[0], domain="general", action="ask") for n in range(16)]
    ids = torch.tensor([judge.prefix_tokens + tokens for tokens, _ in laid])  # all of one length
    at = torch.tensor(laid[0][1]) + len(judge.prefix_tokens)
    truth = torch.tensor([int(request(n)[1]) for n in range(16)])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        logits = model.train()(input_ids=ids, logits_to_keep=at).logits[..., labels]  # (16, S, 4)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), truth.repeat_interleave(len(at)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return OneForward(model, Characters(), config, version="one-forward:taught")


def run(folder: Path) -> Run:
    """A run that knows that there is no champion yet, so that it needs no database."""
    return dataclasses.replace(local_run(folder), compared={"llm.gate_classifier": None})


def allow_of(gate: Gate, text: str) -> float:
    found = gate.decide(GateRequest(text)).stage("fusion")
    assert found is not None
    return found.scores["allow"]


def own_rows(folder: Path, monkeypatch: pytest.MonkeyPatch, *, rows: int = 240) -> GateReasonerParams:
    lines = [{"text": text, "decision": decision.name} for text, decision in map(request, range(rows))]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    monkeypatch.setenv("GENBA_LLM_LINE_DATA_DIR", str(folder))
    return GateReasonerParams(rows_file="rows.jsonl", rows=max(rows, 200))


def test_a_model_that_knows_gets_a_say_and_the_gate_decides_with_it(
    taught: OneForward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = gate_reasoner(own_rows(tmp_path, monkeypatch), run(tmp_path), reasoner=taught)
    assert result.metrics["weight"] > 0.3
    assert result.metrics["loss_joined"] < result.metrics["loss_alone"]
    assert result.metrics["over_refusal_rate"] <= result.metrics["over_refusal_rate_alone"]
    assert result.register is not None
    assert all(
        result.metrics[gate.metric] <= gate.at_most for gate in result.register.gates if gate.at_most is not None
    )
    fusion = load_fusion(result.register.bundle)
    assert fusion.joined is not None
    assert fusion.joined.reasoner == "one-forward:taught"
    assert fusion.joined.allow_from >= default_fusion().allow_from
    with_it, without = Gate(fusion=fusion, reasoner=taught), Gate(fusion=fusion)
    for number in (301, 303):  # zorpak
        assert with_it.decide(GateRequest(request(number)[0])).decision is not Decision.ALLOW
    harmful = [request(number)[0] for number in range(301, 321, 2)]
    allowed = [allow_of(gate, text) for gate in (with_it, without) for text in harmful]
    assert np.mean(allowed[:10]) < np.mean(allowed[10:])


def test_a_model_of_random_weights_gets_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_tiny_phi3(tmp_path / "tiny-phi3")
    monkeypatch.setenv("GENBA_LLM_BACKEND_FOLDER", str(folder))
    result = gate_reasoner(GateReasonerParams(rows=240), run(tmp_path))
    assert result.metrics["weight"] == 0.0
    assert result.metrics["loss_joined"] == pytest.approx(result.metrics["loss_alone"])
    assert result.value["reasoner"] == "one-forward:tiny-phi3"
    assert result.metrics["allow_from"] >= default_fusion().allow_from


def test_a_model_that_nobody_fitted_can_only_make_the_gate_more_cautious() -> None:
    unsure, sure = np.log([0.7, 0.1, 0.1, 0.1]), np.array([0.9997, 0.0001, 0.0001, 0.0001])
    fusion = Fusion(allow_from=0.8, joined=Joined("another", 0.9, 1.0, 0.8))
    asked = Signals(unsure, unsure, unsure, sure, "one-forward:new")
    assert fusion.decide(asked).decision is Decision.ESCALATE
    fitted = Fusion(allow_from=0.8, joined=Joined("one-forward:new", 0.9, 1.0, 0.8))
    assert fitted.decide(asked).decision is Decision.ALLOW
    certain = np.log([0.97, 0.01, 0.01, 0.01])
    against = Signals(certain, certain, certain, sure[::-1].copy(), "one-forward:new")
    assert fusion.decide(against).decision > Decision.ALLOW


def test_the_threshold_with_a_model_keeps_the_bound_and_is_never_lower() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(900):
        truth = Decision.REFUSE if number % 3 == 0 else Decision.ALLOW
        alone, said = rng.dirichlet([4, 1, 1, 1] if truth is Decision.ALLOW else [2, 1, 1, 2], 2)
        rows.append(Judged(alone, said, truth))
    found = fit_joined(rows, "m", alpha=0.05, least_allow=0.6)
    assert 0.0 < found.joined.weight < 1.0
    assert found.joined.allow_from >= 0.6
    assert found.false_allow_rate <= 0.05 + 2 * (0.05 * 0.95 / found.dangerous) ** 0.5
    with pytest.raises(ValueError, match="at least 19"):
        fit_joined(rows[:60], "m", alpha=0.05, least_allow=0.6)
    with pytest.raises(ValueError, match="harmless"):
        fit_joined([row for row in rows if row.truth], "m", alpha=0.05, least_allow=0.6)


def test_without_a_model_or_with_too_few_rows_it_says_what_is_missing(
    taught: OneForward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GENBA_LLM_BACKEND_FOLDER", raising=False)
    with pytest.raises(Invalid, match="GENBA_LLM_BACKEND_FOLDER"):
        gate_reasoner(GateReasonerParams(), run(tmp_path))
    with pytest.raises(Conflict, match="dangerous rows"):
        gate_reasoner(own_rows(tmp_path, monkeypatch, rows=100), run(tmp_path), reasoner=taught)
