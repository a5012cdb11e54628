"""The model that ships as a version: registered once, replaced, gone back to, and trained on like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.llm.run_world import local_run

from genba_llm.base_model import load_base, load_tokenizer
from genba_llm.generation import Message, Options, Task
from genba_llm.live_model import MODEL, OWN_MODEL, LiveModel
from genba_llm.policy import Policy
from genba_llm.shipped_model import BY, register_shipped
from genba_llm.small_phi3 import load_small, stored_in_int8
from genba_llm.so8t_bundle import MODEL as WEIGHTS
from genba_llm.so8t_bundle import is_shipped
from genba_llm.so8t_line import copy_base
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.gates import judge
from genba_shared.recipe import Champion, Registration
from genba_shared.registry import Registry


@pytest.fixture
def registry(database: Database, tmp_path: Path) -> Registry:
    return Registry(database, Artifacts(str(tmp_path / "artifacts")))


def _changed(folder: Path, **values: object) -> Path:
    there = Path(shutil.copytree(OWN_MODEL, folder))
    known = json.loads((there / "bundle.json").read_text("utf-8"))
    (there / "bundle.json").write_text(json.dumps({**known, **values}))
    return there


def _trained(registry: Registry, folder: Path) -> int:
    registration = Registration(MODEL, folder, {"token_accuracy": 0.5}, data_hash="own")
    with registry.database.transaction() as session:
        return registry.register(session, registration, job_id="job_1", by="engineer").number


def test_it_is_registered_once_serves_and_is_gone_back_to(registry: Registry, tmp_path: Path) -> None:
    first = register_shipped(registry)
    assert first is not None
    assert (first.number, first.outcome, first.created_by) == (1, "promoted", BY)
    assert first.lineage.data_hash == json.loads((OWN_MODEL / "bundle.json").read_text("utf-8"))["data_hash"]
    assert (first.metrics["token_accuracy"] or 0.0) > 0.9
    assert register_shipped(registry) is None, "once"
    live = LiveModel(registry, Policy(), cache=tmp_path / "cache", refresh_s=3600, documents_by="sentences")
    live.follow()
    assert live.choose(documents=False).model == f"{MODEL}@1"
    registry.promote(
        MODEL, _trained(registry, _changed(tmp_path / "other", shipped=False)), by="engineer", reason="try"
    )
    live.follow()
    assert live.choose(documents=False).model == f"{MODEL}@2"
    registry.rollback(MODEL, by="engineer", reason="worse")
    live.follow()
    written = live.choose(documents=False)
    assert written.model == f"{MODEL}@1"
    asked = Task([Message("user", "休暇の申請方法を箇条書きにして。")], Options(temperature=0.0))
    assert "上司に日程を相談" in "".join(piece.text for piece in written.generate(asked))
    live.close()


def test_a_newer_one_takes_the_place_of_an_older_but_of_nothing_that_somebody_chose(
    registry: Registry, tmp_path: Path
) -> None:
    register_shipped(registry, _changed(tmp_path / "old", data_hash="older"))
    second = register_shipped(registry)
    assert second is not None
    assert (second.number, second.outcome) == (2, "promoted")
    _trained(registry, _changed(tmp_path / "own", shipped=False))
    assert registry.pointer(MODEL).number == 3
    third = register_shipped(registry, _changed(tmp_path / "new", data_hash="newer"))
    assert third is not None
    assert (third.number, third.outcome) == (4, "not_asked")
    assert registry.pointer(MODEL).number == 3


def test_an_alias_that_somebody_cleared_stays_clear(registry: Registry, tmp_path: Path) -> None:
    register_shipped(registry, _changed(tmp_path / "old", data_hash="older"))
    registry.clear(MODEL, "champion", by="engineer", reason="sentences only")
    register_shipped(registry)
    assert registry.pointer(MODEL).number is None


def test_its_int8_rows_are_a_base_like_any_other(tmp_path: Path) -> None:
    assert stored_in_int8(OWN_MODEL / WEIGHTS)
    model, tokenizer = load_base(OWN_MODEL / WEIGHTS), load_tokenizer(OWN_MODEL / WEIGHTS)
    ids = tokenizer("議事録の書き方を教えてください。", add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = model(input_ids=ids).logits[0]
        base = copy_base(OWN_MODEL, tmp_path / "base")
        assert not stored_in_int8(base)
        assert torch.equal(load_base(base)(input_ids=ids).logits[0], expected)
    assert torch.allclose(torch.from_numpy(load_small(base).all_logits(ids[0].numpy())), expected, atol=1e-4)


def test_a_model_of_few_rows_does_not_take_its_place_by_itself(tmp_path: Path) -> None:
    """It knows its own rows better, and far less of what the one that ships knows."""
    from genba_llm.synthesise import synthesise
    from genba_llm.training_so8t import So8tParams, so8t
    from genba_llm.what_is_known import METRIC, known_rows

    assert is_shipped(OWN_MODEL)
    assert len(known_rows(OWN_MODEL)) == 200
    run = local_run(tmp_path, seed=3)
    run.compared[MODEL] = Champion(1, OWN_MODEL)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{row.model_dump_json()}\n" for row in synthesise("general", 120, seed=5)), "utf-8")
    config = {"preset": "tiny", "max_tokens": 192, "batch_size": 4, "max_steps": 1, "validation_share": 0.2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENBA_LLM_LINE_DATA_DIR", str(tmp_path))
        fresh = {"vocab_size": 600, "hidden_size": 64, "layers": 1, "heads": 2, "kv_heads": 1}
        params = {"files": ["rows.jsonl"], "config": config, "fresh": fresh}
        made = so8t(So8tParams.model_validate(params), run).register
        again = local_run(tmp_path / "on", seed=3)
        again.compared[MODEL] = Champion(1, OWN_MODEL)
        on = so8t(So8tParams.model_validate({**params, "base": "champion"}), again).register
        unheld = {**params, "config": {**config, "validation_share": 0.0}}
        third = local_run(tmp_path / "unheld", seed=3)
        third.compared[MODEL] = Champion(1, OWN_MODEL)
        unmeasured = so8t(So8tParams.model_validate(unheld), third).register
    assert made is not None
    assert on is not None
    assert unmeasured is not None
    missed = {each.metric: each.reason for each in judge(made, 1) if not each.passed}
    assert "of version 1" in missed[METRIC]
    assert made.metrics[METRIC] < -2 < made.champion_metrics[METRIC]  # type: ignore[index]
    assert 0 < len((made.bundle / "known.jsonl").read_text("utf-8").splitlines()) < 60
    assert known_rows(made.bundle), "what it held out is what it knows"
    kept = {each.metric: each.passed for each in judge(on, 1)}
    assert kept["token_accuracy"]
    assert on.metrics[METRIC] > made.metrics[METRIC] + 2, "it went on from weights that know something"
    assert not all(each.passed for each in judge(unmeasured, 1)), "no rows held out: nothing says that it is no worse"
