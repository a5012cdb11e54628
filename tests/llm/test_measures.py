"""Recipes that measure a champion of the line and act on it: calibrate, evaluate, retrain; and what they count with."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.llm.run_world import local_run

from genba_llm import training_measures, training_so8t
from genba_llm.evaluation import answer_rows, decision_in, family_of, grouped, scores
from genba_llm.generation import Message, Options, Task
from genba_llm.lineage import broken, read
from genba_llm.live_model import load_champion
from genba_llm.ngram import baselines
from genba_llm.packing import Sample
from genba_llm.policy import Policy
from genba_llm.sft_rows import Row
from genba_llm.small_phi3 import Cache
from genba_llm.so8t_bundle import temperature_of
from genba_llm.synthesise import core_of, synthesise
from genba_llm.verdict import Decision
from genba_shared.problems import Conflict
from genba_shared.recipe import Champion, Registration

CONFIG = {"preset": "tiny", "max_tokens": 192, "batch_size": 8, "max_steps": 80, "learning_rate": 5e-3}
SHAPE = {"vocab_size": 512, "hidden_size": 64, "layers": 2, "heads": 2, "kv_heads": 1}


def _rows(n: int) -> list[Row]:
    return list(synthesise("general", n, seed=4))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Registration:
    """A version that was trained a little."""
    folder = tmp_path_factory.mktemp("line")
    with pytest.MonkeyPatch.context() as patch:
        _data(patch, folder, _rows(200))
        run = local_run(folder / "run")
        run.compared["llm.so8t"] = None
        params = training_so8t.So8tParams(
            files=["rows.jsonl"],
            config={**CONFIG, "validation_share": 0.2},
            fresh=training_so8t.FreshParams(**SHAPE),
        )
        registration = training_so8t.so8t(params, run).register
    assert registration is not None
    return registration


def _data(patch: pytest.MonkeyPatch, folder: Path, rows: list[Row]) -> None:
    (folder / "rows.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows), "utf-8")
    patch.setenv("GENBA_LLM_LINE_DATA_DIR", str(folder))
    patch.setenv("GENBA_LLM_LINE_DEVICE", "cpu")


@pytest.fixture
def run(made: Registration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A job's run with that version as champion."""
    _data(monkeypatch, tmp_path, _rows(200))
    found = local_run(tmp_path / "job")
    found.compared["llm.so8t"] = Champion(1, made.bundle)
    return found


def test_a_calibrated_version_gives_held_out_tokens_no_less_likelihood_and_serves_with_it(run: Any) -> None:
    params = training_measures.CalibrateParams(files=["rows.jsonl"], held_out_share=0.2, max_tokens=192)
    result = training_measures.calibrate(params, run)
    assert result.register is not None
    assert result.metrics["calibrated_loss"] < result.metrics["uncalibrated_loss"]
    assert result.metrics["temperature"] == pytest.approx(result.metrics["temperature_grid"], abs=0.06)
    bundle = result.register.bundle
    assert [link.step for link in read(bundle)][-2:] == ["weights", "calibration"]
    assert broken(bundle) is None
    served = load_champion(bundle, _version(2), Policy())
    assert temperature_of(bundle) == result.metrics["temperature"]
    plain = load_champion(run.champion("llm.so8t").folder, _version(1), Policy())
    logits = _first_logits(plain)
    by_hand = (logits / temperature_of(bundle)).log_softmax(-1).max()
    asked = Task([Message("user", QUESTION)], Options(temperature=0.0, logprobs=True, max_tokens=1))
    ((said,),) = [piece.logprobs for piece in served.generate(asked) if piece.logprobs]
    assert said.logprob == pytest.approx(float(by_hand), abs=1e-4)


QUESTION = "備品の借り方は?"


def _version(number: int) -> Any:
    return type("Version", (), {"number": number})()


def _first_logits(model: Any) -> Any:
    import torch

    ids = model.inner.prompt(model.as_trained(Task([Message("user", QUESTION)])))
    return torch.from_numpy(model.inner._model.logits(ids, Cache()))


def test_a_bundle_that_was_exchanged_behind_its_lineage_is_found(run: Any) -> None:
    params = training_measures.CalibrateParams(files=["rows.jsonl"], held_out_share=0.2, max_tokens=192)
    registration = training_measures.calibrate(params, run).register
    assert registration is not None
    path = registration.bundle / "model" / "config.json"
    path.write_text(path.read_text() + "\n")
    assert broken(registration.bundle) == "weights"


def test_an_evaluation_stands_beside_trivial_answers_and_the_quantised_model(run: Any) -> None:
    params = training_measures.EvaluateParams(files=["rows.jsonl"], held_out_share=0.2, max_tokens=192)
    result = training_measures.evaluate(params, run)
    compared, n = result.value["compared"], result.value["rows"]
    assert set(compared) == {"tuned", "quantised"}
    assert sum(part["rows"] for part in result.value["by_family"].values()) == n
    assert result.value["by_domain"]["general"]["rows"] == n
    assert compared["quantised"]["loss"] == pytest.approx(compared["tuned"]["loss"], rel=0.05)
    assert compared["quantised"]["loss"] != compared["tuned"]["loss"]
    assert compared["tuned"]["decision_readable"] > 0.5
    assert 0 < compared["tuned"]["pet_share"] < 1
    assert result.register is None
    report = result.artifacts["report.md"].read_text("utf-8")
    assert "| false_allow_rate |" in report
    assert "always_commonest" in report


def test_retraining_goes_on_from_the_champion_and_its_gates_name_what_it_decided(run: Any) -> None:
    params = training_measures.RetrainParams(
        files=["rows.jsonl"], config={**CONFIG, "validation_share": 0.2, "max_steps": 5, "learning_rate": 1e-4}
    )
    result = training_measures.retrain(params, run)
    assert result.register is not None
    gates = {gate.metric: gate for gate in result.register.gates}
    assert gates["macro_f1"].at_least == pytest.approx(result.value["before"]["macro_f1"] - 0.01)
    assert gates["false_allow_rate"].at_most == pytest.approx(result.value["before"]["false_allow_rate"] + 0.01)
    assert "log2_likelihood_per_byte" in gates
    champion = json.loads((run.champion("llm.so8t").folder / "lineage.json").read_text())
    retrained = json.loads((result.register.bundle / "lineage.json").read_text())
    assert retrained[1]["sha256"] != champion[1]["sha256"], "its base is the champion"


def test_without_a_champion_or_held_out_rows_there_is_nothing_to_measure(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Conflict, match="held out"):
        training_measures.calibrate(training_measures.CalibrateParams(files=["rows.jsonl"], held_out_share=1e-9), run)
    run.compared["llm.so8t"] = None
    with pytest.raises(Conflict, match="no champion"):
        training_measures.evaluate(training_measures.EvaluateParams(files=["rows.jsonl"]), run)


def test_answers_of_a_batch_are_those_of_each_alone(made: Registration) -> None:
    from genba_llm.base_model import load_base, load_tokenizer

    model, tokenizer = load_base(made.bundle / "model"), load_tokenizer(made.bundle / "model")
    rows = _rows(6)
    together = [each.text for each in answer_rows(model, tokenizer, rows, batch_size=6)]
    alone = [each.text for each in answer_rows(model, tokenizer, rows, batch_size=1)]
    for one, other in zip(together, alone, strict=True):  # one that does not end has less room among longer ones
        assert one == other or ("</final>" not in one and other.startswith(one))


def test_a_decision_is_read_where_the_thinking_states_it_and_else_counts_as_escalated() -> None:
    assert (
        decision_in("<think-safety>DENY?</think-safety><think-policy>ALLOW default@1</think-policy>") is Decision.ALLOW
    )
    assert decision_in("判定はREFUSEです。") is Decision.REFUSE
    assert decision_in("わかりません。") is None
    rows = _rows(40)
    answers = [_answered(row, row.output if row.decision != "ALLOW" else "?") for row in rows]
    found = scores(answers)
    assert found["false_allow_rate"] == 0.0
    assert found["over_refusal_rate"] == 1.0
    assert found["decision_accuracy"] == np.mean([row.decision != "ALLOW" for row in rows])
    assert {name.split()[0] for name in grouped(answers, family_of)} == {row.decision for row in rows}


def _answered(row: Row, text: str) -> Any:
    from genba_llm.evaluation import Answered

    return Answered(row, text, decision_in(text))


def test_counting_models_agree_with_counting_by_hand() -> None:
    train = [Sample((5, 1, 2, 1, 2), 1)]
    found = baselines(train, [Sample((1, 2), 1)], vocab_size=8)
    p_uni = (2 + 1) / (4 + 8)  # token 2 was learnt twice of four, one added to each of eight
    p_bi = (2 + 1 * p_uni) / (2 + 1)  # after 1 came 2 twice, one kind of follower
    assert found.unigram == pytest.approx(-math.log(p_uni))
    assert found.bigram == pytest.approx(-math.log(p_bi))


def test_two_questions_that_differ_in_their_setting_have_one_core() -> None:
    assert core_of("84号棟です。備品の借り方は?") == core_of("案件3の件です。備品の借り方は?") == "備品の借り方は?"
    assert core_of("Building 7. Decide the loss.") == "Decide the loss."
