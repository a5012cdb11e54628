"""svc-llm's training line in one story, over real processes: from raw text files to an answer that a model of our own wrote.

Collect, synthesise, validate, fine-tune, register, promote, hot-swap; the worker is killed with -9 twice on the way, and
everything that comes out equals what an undisturbed run makes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.e2e.world import Genba, Shell, until, up
from tests.llm.run_world import local_run

from genba_gateway.client import Client, Job, Refused
from genba_llm import training_so8t
from genba_llm.lineage import broken, read, sha256_of_files
from genba_shared.artifacts import Artifacts
from genba_shared.recipe import Registration, Run, seed_of

pytestmark = [pytest.mark.xdist_group("so8t_story"), pytest.mark.long]

MODEL = "llm.so8t"
WITHIN_S = 300.0  # only ends a test that is broken
QUESTION = "備品の借り方を教えてください。"
CONFIG = {
    "preset": "tiny",
    "max_tokens": 192,
    "batch_size": 8,
    "max_steps": 60,
    "learning_rate": 5e-3,
    "validation_share": 0.1,
    "so8t": {},
    "pet": True,
    "checkpoint_every_s": 0.5,
}
FRESH = {"vocab_size": 768, "hidden_size": 64, "layers": 2, "heads": 2, "kv_heads": 1}


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """Raw text as it lies on a worker's disk: a company's notes, half of them not worth learning."""
    folder = tmp_path / "corpora"
    folder.mkdir()
    with (folder / "notes.jsonl").open("w", encoding="utf-8") as file:
        for number in range(3000):
            good = (
                f"第{number}工程の点検では、主軸の振動値が基準を下回ることを確認しました。次回の整備は来月に予定しています。"
                f"部品{number}の交換記録は別紙に示します。異常があれば、担当者に連絡し、指示を受けてから作業を再開してください。"
            )
            text = good if number % 50 == 0 else "だめ"
            file.write(json.dumps({"text": text, "licence": "own", "source": f"note {number}"}) + "\n")
    (folder / "evaluation.txt").write_text(f"{QUESTION}\n", "utf-8")
    return folder


@pytest.fixture
def genba(tmp_path: Path, corpora: Path) -> Iterator[Genba]:
    settings = {
        "GENBA_LOG_FORMAT": "json",
        "GENBA_TRAINING_LEASE_S": "3",
        "GENBA_TRAINING_HEARTBEAT_S": "0.1",
        "GENBA_LLM_MODEL_REFRESH_S": "0.3",
        "GENBA_LLM_LINE_DATA_DIR": str(corpora),
        "GENBA_LLM_LINE_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
    }
    with up(tmp_path / "home", settings=settings) as found:
        yield found


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the worker is told: sums in another order are other sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_raw_text_becomes_an_answer_though_the_worker_is_killed_twice(
    genba: Genba, one_thread: None, tmp_path: Path
) -> None:
    with Client(genba.url, genba.admin_key) as client:
        assert _ask(client)["model"] == f"{MODEL}@1", "the model that ships"

        # ---- data: read, written, checked; the first kill falls among the rows
        collected = client.jobs.wait(client.jobs.submit("llm.collect", {"files": ["notes.jsonl"]}).id)
        assert _value(collected)["tally"]["dropped"] == {"quality": 2940}
        asked = {"per_domain": 3000, "domains": ["general", "business", "medical"], "seed": 3}
        written = _killed(genba, client, client.jobs.submit("llm.synthesise", asked), after=0.0)
        checks = {"shards": _value(written)["shards"], "evaluation_files": ["evaluation.txt"]}
        checked = client.jobs.wait(client.jobs.submit("llm.validate", checks).id)

        # ---- training: killed in the middle, resumed; promoted by a decision, as it knows less than the model that ships
        params = {
            "shards": _value(checked)["shards"],
            "texts": _value(collected)["shards"],
            "config": CONFIG,
            "fresh": FRESH,
            "gguf": ["Q8_0"],
        }
        trained = _killed(genba, client, client.jobs.submit("llm.so8t", params), after=0.3)
        assert trained.result is not None
        registered = trained.result["registered"]
        assert (registered["number"], registered["outcome"]) == (2, "gate_failed")
        assert any(each.startswith("known_log2_likelihood_per_byte") for each in registered["missed"])
        client.models.promote(MODEL, 2, reason="our own rows only", gates="overridden")

        # ---- served without a restart, by its name, with the thinking kept in
        answer: dict[str, Any] = until(
            lambda: _by(client, f"{MODEL}@2"), within_s=WITHIN_S, what="the champion's answer"
        )
        text = answer["choices"][0]["message"]["content"]
        assert text, answer
        assert "think" not in text
        assert "依頼の意図を読む" not in text, "what the rows think stays in"
        models = [each["id"] for each in client.request("GET", "/v1/llm/models")["data"]]
        assert models == [f"{MODEL}@2", "genba-extractive-1"]

        # ---- and nothing of it depends on the kills
        alone = local_run(tmp_path / "undisturbed", seed=seed_of(written.id))
        same = training_so8t.synthesise(training_so8t.SynthesiseParams(**asked), alone)
        assert same.value["shards"] == _value(written)["shards"]
        kept = Artifacts(str(genba.home / "artifacts"))
        run = dataclasses.replace(local_run(tmp_path / "undisturbed", seed=seed_of(trained.id)), artifacts=kept)
        undisturbed = _train(params, run)
        assert trained.result["metrics"] == undisturbed.metrics
        bundle = _bundle_of(genba)
        assert broken(bundle) is None
        assert [link.step for link in read(bundle)] == ["data", "base", "weights", "gguf"]
        weights = ["model/model.safetensors", "model.Q8_0.gguf"]
        assert sha256_of_files(bundle, weights) == sha256_of_files(undisturbed.bundle, weights)

        # ---- and the model that ships is one move away
        client.models.rollback(MODEL, reason="story")
        until(lambda: _by(client, f"{MODEL}@1"), within_s=WITHIN_S, what="the answer of the model that ships")


def test_one_command_runs_the_line_and_takes_up_where_it_was(genba: Genba, corpora: Path, tmp_path: Path) -> None:
    steps = {
        "collect": {"files": ["notes.jsonl"]},
        "synthesise": {"per_domain": 300, "domains": ["general"], "seed": 3},
        "validate": {"evaluation_files": ["evaluation.txt"]},
        "so8t": {"config": CONFIG, "fresh": FRESH},
        "evaluate": {"most_rows": 30, "max_tokens": 192, "quantised": False},
    }
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(steps), "utf-8")  # JSON is YAML
    llm = Shell(genba, "llm")
    hidden = (corpora / "evaluation.txt").rename(corpora / "not-yet.txt")
    said = llm("train", str(path))
    assert said.code == 1, said.out
    assert "llm.validate failed: There is no 'evaluation.txt'" in said.err
    hidden.rename(corpora / "evaluation.txt")  # mended: the same command tries that step anew, and no other
    said = llm("train", str(path))
    assert said.code == 1, said.out
    assert f"genba models promote {MODEL} 2 --override-gates" in said.err
    with Client(genba.url, genba.admin_key) as client:
        client.models.promote(MODEL, 2, reason="our own rows only", gates="overridden")
    for _ in range(2):
        said = llm("train", str(path))
        assert said.code == 0, said.err
        for word in ("collect", "validate", f"{MODEL}@2 gate_failed", "token_accuracy", "decision_accuracy", "weights"):
            assert word in said.out, said.out
    with Client(genba.url, genba.admin_key) as client:
        ran = [job.recipe for job in client.jobs.list()]
    assert sorted(ran) == [
        f"llm.{name}" for name in sorted(["collect", "evaluate", "so8t", "synthesise", "validate", "validate"])
    ], "the last time found the jobs of those before"
    (tmp_path / "bad.yaml").write_text("so8t: {base: nowhere}", "utf-8")
    failed = llm("train", str(tmp_path / "bad.yaml"))
    assert failed.code == 1
    assert "llm.so8t failed" in failed.err


def _train(params: dict[str, Any], run: Run) -> Registration:
    run.compared[MODEL] = None
    made = training_so8t.so8t(training_so8t.So8tParams(**params), run).register
    assert made is not None
    return made


def _bundle_of(genba: Genba) -> Path:
    """What svc-llm loaded when the version that was trained came."""
    (manifest,) = (genba.home / "models").rglob("000002-*/lineage.json")
    return manifest.parent


def _killed(genba: Genba, client: Client, job: Job, *, after: float) -> Job:
    """The job at its end, whose worker got a kill -9 when it was ``after`` done."""

    def is_so_far() -> bool:
        now = client.jobs.get(job.id)
        return now.status == "running" and now.progress >= after

    until(is_so_far, every_s=0.01, within_s=WITHIN_S, what="the middle")
    old = genba.kill("worker")
    until(lambda: genba.process.pid_of("worker") != old, within_s=WITHIN_S, what="the worker's restart")
    done = client.jobs.wait(job.id)
    assert (done.status, done.attempt) == ("succeeded", 2), done
    return done


def _value(job: Job) -> dict[str, Any]:
    assert job.succeeded, job
    assert job.result is not None
    value: dict[str, Any] = job.result["value"]
    return value


def _ask(client: Client) -> dict[str, Any]:
    turns = [{"role": "user", "content": QUESTION}]
    body = {"messages": turns, "temperature": 0, "max_tokens": 400}
    found: dict[str, Any] = client.request("POST", "/v1/llm/chat/completions", json=body)
    return found


def _by(client: Client, model: str) -> dict[str, Any]:
    """The answer if it is this model's, else nothing: also while the process that loads it is too busy to take new work."""
    try:
        answer = _ask(client)
    except Refused as refused:
        if refused.status != 503:
            raise
        return {}
    return answer if answer["model"] == model else {}
