"""The command that makes the model that ships, in small: the recipe's own code, the same bytes twice, and where it is from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from genba_llm import build_own_model as build
from genba_llm.finetune_config import config_of
from genba_llm.lineage import broken, read
from genba_llm.live_model import load_bundle
from genba_llm.packing import Sample
from genba_llm.policy import Policy
from genba_llm.so8t_line import FreshShape
from genba_llm.sureness import Answers, Told, fit_bound
from genba_llm.synthesise import synthesise
from genba_llm.verdict import DOMAINS

SHAPE = FreshShape(vocab_size=800, hidden_size=64, layers=1, heads=2, kv_heads=1)
CONFIG = config_of({**build.CONFIG.model_dump(mode="json"), "max_steps": 3, "batch_size": 4})


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("GENBA_LLM_LINE_DEVICE", "cpu")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def _built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(build, "SHAPE", SHAPE)
    rows = list(synthesise("general", 6, seed=1))
    monkeypatch.setattr(build, "held_wordings", lambda: rows)
    folder.mkdir()
    monkeypatch.setattr(build, "code_commit", lambda: "changed" if (folder / "shipped").exists() else "clean")
    learnt, held = build.split(build.all_rows(400))
    assert held
    bundle = build.train(learnt, folder, CONFIG, SHAPE)
    build.ship(bundle, folder / "shipped", rows=len(learnt))
    with monkeypatch.context() as fewer:  # pieces of work that it is asked to speak of
        fewer.setattr(build, "DOMAINS", DOMAINS[:1])
        build.add_reader(folder / "shipped", learnt)
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "shipped").rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_makes_the_same_files_and_they_say_where_they_are_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (_built(tmp_path / name, monkeypatch) for name in ("one", "two"))
    assert first == second
    shipped = tmp_path / "one" / "shipped"
    document = json.loads((shipped / "bundle.json").read_text("utf-8"))
    assert (document["shipped"], document["recipe"], document["seed"]) == (True, "llm.so8t", build.SEED)
    assert document["config"]["max_steps"] == document["steps"] == 3
    assert document["code_commit"] == document["reader"]["code_commit"] == "clean"
    assert {"token_accuracy", "held_wordings_right", "held_wordings_wrong"} <= set(document["metrics"])
    chain = read(shipped)
    assert broken(shipped) is None
    assert [link.step for link in chain] == ["data", "base", "weights", "topics"]
    assert chain[0].sha256 == document["data_hash"]
    made = load_bundle(shipped, "made", Policy())
    assert (made.sure_from, made.topic_from) == (document["sure_from"], document["topic_from"])
    assert made.topics is not None
    assert made.speaks_of == document["speaks_of"]
    (shipped / "model" / "model.safetensors").write_bytes(b"other")
    assert broken(shipped) == "weights"


def test_wordings_to_judge_by_are_asked_by_no_row_to_learn() -> None:
    learnt, _ = build.split(build.all_rows(3000))
    questions = {row.instruction.casefold() for row in learnt}
    held = build.held_wordings(200)
    assert len({row.instruction for row in held}) == 200
    assert not questions & {row.instruction.casefold() for row in held}


def test_it_answers_only_from_where_wrong_answers_cost_less_than_right_ones_give() -> None:
    sure = [Told(0.95, says=True, right=True)] * 8
    guesses = [Told(0.4, says=True, right=False)] * 3 + [Told(0.45, says=True, right=True)] * 2
    answers = Answers([*sure, *guesses, Told(0.9, says=False, right=True)], [True] * 13 + [False])
    bound = fit_bound(answers)
    assert bound == pytest.approx(0.41)
    assert answers.counted(bound) == pytest.approx({"right": 10 / 14, "wrong": 0.0, "silent": 3 / 14})
    assert answers.counted(0.0)["wrong"] == pytest.approx(3 / 14)


def test_a_prompts_tokens_come_in_pieces_now_and_then_and_say_the_same(tmp_path: Path) -> None:
    from genba_llm.base_model import load_tokenizer
    from genba_llm.line_data import prepare
    from genba_llm.so8t_line import make_fresh_base

    rows, _ = build.split(build.all_rows(300))
    tokenizer = load_tokenizer(make_fresh_base(rows, SHAPE, tmp_path, max_tokens=256, seed=1))

    def samples(share: float) -> list[Sample]:
        found = prepare(rows, tokenizer, CONFIG.model_copy(update={"token_splits": share}))
        return sorted((s for group in found.data.train for s in group), key=lambda s: tokenizer.decode(s.ids))

    whole, pieces = samples(0.0), samples(0.3)
    assert pieces == samples(0.3)
    assert [tokenizer.decode(each.ids) for each in pieces] == [tokenizer.decode(each.ids) for each in whole]
    assert sum(each.n_prompt for each in pieces) > 1.1 * sum(each.n_prompt for each in whole)
    assert sum(each.n_learnt for each in pieces) == sum(each.n_learnt for each in whole)
