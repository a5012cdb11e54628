"""The training line from files to a registered bundle, through its recipes' own functions."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from defusedxml.ElementTree import fromstring
from pydantic import ValidationError
from tests.llm.run_world import StopsAt, local_run

from genba_llm import data_line, so8t_line, training_so8t
from genba_llm.sft_rows import TooManyBadRows
from genba_llm.shards import ShardWriter, read_shards
from genba_shared.problems import Conflict, Invalid
from genba_shared.recipe import Cancelled, Run

# peft asks transformers by a name that transformers is about to rename.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
DECISIONS = ("ALLOW", "ESCALATE", "DENY", "REFUSE")
TINY: dict[str, Any] = {
    "preset": "tiny",
    "max_tokens": 96,
    "batch_size": 8,
    "max_steps": 6,
    "validation_share": 0.2,
    "max_bad_rows": 2,
}
FRESH: dict[str, Any] = {"vocab_size": 512, "hidden_size": 64, "layers": 2, "heads": 2, "kv_heads": 1}
_FRESH = training_so8t.FreshParams(**FRESH)


def _row(index: int, **changed: Any) -> dict[str, Any]:
    decision = DECISIONS[index % 4]
    return {
        "instruction": f"設備{index}番の点検表を{'確認' if index % 3 else '要約'}してください。",
        "input": "",
        "output": f"<think-task>依頼{index}</think-task><final>判定は{decision}です。</final>",
        "decision": decision,
        "domain": "general",
        "source": "test",
        "licence": "Apache-2.0",
        **changed,
    }


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("GENBA_LLM_LINE_DATA_DIR", str(folder))
    monkeypatch.setenv("GENBA_LLM_LINE_DEVICE", "cpu")
    return folder


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _prose(index: int) -> str:
    return (
        f"第{index}工程の点検では、主軸の振動値が基準を下回ることを確認しました。次回の整備は来月に予定しています。"
        f"部品{index}の交換記録は別紙に示します。異常があれば、担当者に連絡してください。"
    )


def _corpus(path: Path, n: int) -> None:
    lines = [
        json.dumps({"text": _prose(i) if i % 4 else "だめ", "licence": "own", "source": f"s{i}"}) for i in range(n)
    ]
    path.write_text("\n".join(lines), "utf-8")


def test_collecting_keeps_what_is_good_and_says_what_became_of_the_rest(tmp_path: Path, data_dir: Path) -> None:
    _corpus(data_dir / "own.jsonl", 100)
    run = local_run(tmp_path)
    result = training_so8t.collect(training_so8t.CollectParams(files=["own.jsonl"]), run)
    assert result.metrics == {"read": 100.0, "kept": 75.0}
    rows = [row for _, row in read_shards(run.artifacts, result.value["shards"])]
    assert len(rows) == 75
    assert rows[0]["source"] == "s1"
    assert rows[0]["licence"] == "own"
    assert result.value["tally"]["dropped"] == {"quality": 25}
    assert "75 kept" in result.artifacts["report.md"].read_text("utf-8")
    plots = fromstring(result.artifacts["report.svg"].read_text("utf-8"))
    shown = [each.text for each in plots.iter("{http://www.w3.org/2000/svg}text")]
    assert shown[0] == "Collected documents"
    assert shown[shown.index("Dropped") :][:3] == ["Dropped", "quality", "25"]
    assert len(list(plots.iter("{http://www.w3.org/2000/svg}rect"))) == 1 + (len(shown) - 1 - 4) // 2, "a bar each"


def test_halves_of_surrogate_pairs_in_crawled_json_do_not_stop_collecting(tmp_path: Path, data_dir: Path) -> None:
    text = json.dumps({"text": _prose(1) + "\ud83d", "url": "https://example.jp/\udc00"})
    (data_dir / "c4.json").write_text(text, "ascii")
    run = local_run(tmp_path)
    result = training_so8t.collect(training_so8t.CollectParams(files=["c4.json"]), run)
    [(_, kept)] = read_shards(run.artifacts, result.value["shards"])
    assert kept["text"] == f"{_prose(1)}?"


def test_lines_that_hold_no_document_are_skipped_up_to_a_limit_and_named(tmp_path: Path, data_dir: Path) -> None:
    _corpus(data_dir / "own.jsonl", 40)
    with (data_dir / "own.jsonl").open("a", encoding="utf-8") as file:
        file.write('\nnot json\n{"text": "手順"}\n[]\n')
    reporter = StopsAt()
    params = training_so8t.CollectParams(files=["own.jsonl"])
    result = training_so8t.collect(params, local_run(tmp_path / "some", reporter))
    assert result.metrics == {"read": 40.0, "kept": 30.0}
    assert result.value["tally"]["dropped"] == {"malformed": 3, "quality": 10}
    assert "own.jsonl:41: no JSON" in reporter.notes[0]
    few = params.model_copy(update={"max_bad_rows": 2})
    with pytest.raises(Conflict, match=r"3 rows do not match .*own\.jsonl:42: a line needs"):
        training_so8t.collect(few, local_run(tmp_path / "few"))
    (data_dir / "old.txt").write_bytes("点検の記録\n\n".encode("cp932") + "次の記録\n".encode())
    result = training_so8t.collect(
        training_so8t.CollectParams(files=["old.txt"], keep_from=0.0), local_run(tmp_path / "old")
    )
    assert result.value["tally"]["dropped"] == {"malformed": 1}
    assert result.metrics["kept"] == 1


def test_a_killed_collection_ends_with_the_same_shards(tmp_path: Path, data_dir: Path) -> None:
    _corpus(data_dir / "a.jsonl", 2000)
    _corpus(data_dir / "b.jsonl", 700)
    with (data_dir / "a.jsonl").open("a", encoding="utf-8") as file:
        file.write("\nnot json")
    paths = [data_dir / "a.jsonl", data_dir / "b.jsonl"]
    whole = data_line.collect(paths, local_run(tmp_path / "whole"), keep_from=0.7, max_bad=1, rows_per_shard=300)
    with pytest.raises(Cancelled):
        data_line.collect(
            paths, local_run(tmp_path / "cut", StopsAt(after=3)), keep_from=0.7, max_bad=1, rows_per_shard=300
        )
    resumed = data_line.collect(
        paths, local_run(tmp_path / "cut", attempt=2), keep_from=0.7, max_bad=1, rows_per_shard=300
    )
    assert resumed == whole
    assert resumed.data_hash == whole.data_hash
    assert whole.tally.n_kept == 2025


def test_a_killed_validation_goes_on_after_its_last_shard_and_ends_with_the_same(tmp_path: Path) -> None:
    runs = {name: local_run(tmp_path / name) for name in ("whole", "cut")}
    questions = [hashlib.sha256(str(index).encode()).hexdigest() for index in range(600)]
    rows = [
        _row(index, instruction=questions[index % 600], decision="MAYBE" if index % 150 == 0 else "DENY")
        for index in range(700)
    ]
    shards = {name: _stored(run, rows, per_shard=200) for name, run in runs.items()}

    def validate(name: str, run: Run) -> data_line.Collected:
        return data_line.validate(shards[name], run, evaluation=questions[7:9], max_bad=5, rows_per_shard=90)

    whole = validate("whole", runs["whole"])
    assert whole.tally.dropped == {"schema": 5, "copy": 97, "leaked": 4}
    with pytest.raises(Cancelled):
        validate("cut", dataclasses.replace(runs["cut"], reporter=StopsAt(after=2)))
    resumed = local_run(tmp_path / "cut", attempt=2)
    before = resumed.checkpoint.load()
    assert before is not None
    assert 400 < before.state["tally"]["n_read"] < 512
    assert validate("cut", resumed) == whole
    with pytest.raises(TooManyBadRows, match="6 rows do not match"):
        data_line.validate(
            [*shards["cut"], *_stored(resumed, [_row(1, decision="MAYBE")], per_shard=9)],
            local_run(tmp_path / "cut", attempt=3),
            evaluation=[],
            max_bad=5,
        )


def _stored(run: Run, rows: list[dict[str, Any]], *, per_shard: int) -> list[str]:
    writer = ShardWriter(run.artifacts, run.workdir, rows_per_shard=per_shard)
    for row in rows:
        writer.add(row)
    writer.flush()
    return writer.keys


def test_rows_come_from_plain_shards_too_and_what_is_none_is_said_once(tmp_path: Path, data_dir: Path) -> None:
    run = local_run(tmp_path)
    path = tmp_path / "rows.jsonl"
    _write(path, [_row(1), _row(2, instruction="来週の安全会議で使う資料の目次案を五つ考えてください。")])
    plain = run.artifacts.put(path, suffix=".jsonl")
    assert training_so8t.validate(training_so8t.ValidateParams(shards=[plain]), run).metrics["kept"] == 2
    none = run.artifacts.put(path, suffix=".jsonl.gz")
    with pytest.raises(Conflict, match="is no readable shard"):
        training_so8t.validate(training_so8t.ValidateParams(shards=[none]), run)
    (data_dir / "evaluation.txt").write_bytes("試験問題".encode("cp932"))
    with pytest.raises(Conflict, match=r"evaluation\.txt is no text in UTF-8"):
        training_so8t.validate(training_so8t.ValidateParams(shards=[plain], evaluation_files=["evaluation.txt"]), run)
    (data_dir / "folder").mkdir()
    with pytest.raises(Invalid, match="is a folder"):
        training_so8t.validate(training_so8t.ValidateParams(shards=[plain], evaluation_files=["folder"]), run)


def test_a_step_that_keeps_nothing_says_so(tmp_path: Path, data_dir: Path) -> None:
    _corpus(data_dir / "own.jsonl", 40)
    reporter = StopsAt()
    run = local_run(tmp_path, reporter)
    training_so8t.collect(training_so8t.CollectParams(files=["own.jsonl"], keep_from=1.0), run)
    assert reporter.notes == ["Nothing was kept of 40 read (dropped: quality 40)."]


def test_a_file_outside_of_the_data_folder_is_refused(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "secret.txt").write_text("x")
    with pytest.raises(Invalid, match=r"no '\.\./secret\.txt'"):
        training_so8t.collect(training_so8t.CollectParams(files=["../secret.txt"]), local_run(tmp_path))


def test_validation_drops_copies_leaks_and_rows_that_do_not_match(tmp_path: Path, data_dir: Path) -> None:
    run = local_run(tmp_path)
    rows = [
        _row(1, instruction="蒸気弁の閉止確認と排水の手順を、写真つきで新人向けに説明してください。"),
        _row(2, instruction="来週の安全会議で使う資料の目次案を五つ考えてください。"),
        _row(2, instruction="来週の安全会議で使う資料の目次案を五つ考えてください。"),
        _row(3, instruction="試験問題に出る秘密の質問文をそのまま覚えてください。"),
        _row(4, decision="MAYBE"),
    ]
    writer = ShardWriter(run.artifacts, run.workdir)
    for row in rows:
        writer.add(row)
    writer.flush()
    (data_dir / "evaluation.txt").write_text("試験問題に出る　秘密の質問文を　そのまま覚えてください。\n", "utf-8")
    params = training_so8t.ValidateParams(shards=writer.keys, evaluation_files=["evaluation.txt"])
    result = training_so8t.validate(params, run)
    assert result.value["tally"]["dropped"] == {"copy": 1, "leaked": 1, "schema": 1}
    assert result.metrics == {"read": 5.0, "kept": 2.0}
    with pytest.raises(Conflict, match="decision"):
        training_so8t.validate(training_so8t.ValidateParams(shards=writer.keys, max_bad_rows=0), run)


def test_shards_of_the_same_rows_have_the_same_keys(tmp_path: Path) -> None:
    keys = []
    for name in ("one", "other"):
        run = local_run(tmp_path / name)
        writer = ShardWriter(run.artifacts, run.workdir, rows_per_shard=3)
        for index in range(7):
            writer.add(_row(index))
        writer.flush()
        keys.append(writer.keys)
    assert keys[0] == keys[1]
    assert len(keys[0]) == 3
    assert gzip.decompress(run.artifacts.local_path(keys[1][2]).read_bytes()).count(b"\n") == 1


def test_a_model_made_from_nothing_becomes_a_version_with_its_files(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENBA_LLM_LINE_TENSORBOARD_DIR", str(tmp_path / "events"))
    _write(data_dir / "rows.jsonl", [_row(index) for index in range(80)])
    params = training_so8t.So8tParams(
        files=["rows.jsonl"],
        fresh=_FRESH,
        config={**TINY, "so8t": {}, "pet": True, "max_steps": 40, "learning_rate": 5e-3},
        gguf=["F16", "Q8_0"],
    )
    result = _train(params, tmp_path)
    registration = result.register
    assert registration is not None
    assert registration.model == "llm.so8t"
    assert registration.metrics["token_accuracy"] > registration.metrics["token_accuracy_of_most_frequent"]
    assert registration.metrics["burn_in_kl"] <= 1e-6
    names = {
        path.relative_to(registration.bundle).as_posix() for path in registration.bundle.rglob("*") if path.is_file()
    }
    assert {
        "bundle.json",
        "Modelfile",
        "model.F16.gguf",
        "model.Q8_0.gguf",
        "model/model.safetensors",
        "model/tokenizer.json",
    } <= names
    assert "model/burn_in.json" in names
    assert list((tmp_path / "events" / "job_test").glob("events.out.*")), "and what TensorBoard reads"
    manifest = json.loads((registration.bundle / "bundle.json").read_text())
    assert manifest["data_hash"] == registration.data_hash == result.value["data_hash"]


def _train(params: training_so8t.So8tParams, folder: Path, reporter: StopsAt | None = None, attempt: int = 1) -> Any:
    run = local_run(folder / "run", reporter, attempt=attempt)
    run.compared["llm.so8t"] = None  # there is no champion yet
    return training_so8t.so8t(params, run)


def test_a_training_killed_in_the_middle_ends_with_the_same_figures(tmp_path: Path, data_dir: Path) -> None:
    _write(data_dir / "rows.jsonl", [_row(index) for index in range(60)])
    params = training_so8t.So8tParams(files=["rows.jsonl"], fresh=_FRESH, config={**TINY, "checkpoint_every_s": 1e-6})
    whole = _train(params, tmp_path / "whole")
    with pytest.raises(Cancelled):
        _train(params, tmp_path / "cut", StopsAt(after=3))
    resumed = _train(params, tmp_path / "cut", attempt=2)
    assert resumed.metrics == whole.metrics
    assert resumed.register.data_hash == whole.register.data_hash


def test_an_adapter_on_a_base_of_the_workers_disk(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genba_llm.sft_rows import Row
    from genba_llm.so8t_line import FreshShape, make_fresh_base

    rows = [_row(index) for index in range(60)]
    _write(data_dir / "rows.jsonl", rows)
    monkeypatch.setenv("GENBA_LLM_LINE_MODELS_DIR", str(tmp_path / "models"))
    make_fresh_base(
        [Row.model_validate(row) for row in rows],
        FreshShape(**FRESH),
        tmp_path / "models" / "base",
        max_tokens=96,
        seed=0,
    )
    config = {**TINY, "train": "adapter", "so8t": {}, "lora": {"rank": 4, "alpha": 8.0}, "quantise": "int8"}
    result = _train(training_so8t.So8tParams(files=["rows.jsonl"], base="base", config=config), tmp_path)
    assert (result.register.bundle / "adapter" / "adapter_model.safetensors").is_file()
    assert (result.register.bundle / "adapter" / "so8t.safetensors").is_file()
    wrong = {**config, "lora": {"targets": ["q_proj", "o_proj"]}}
    with pytest.raises(Conflict, match=r"no layer named q_proj.*gate_up_proj"):
        _train(training_so8t.So8tParams(files=["rows.jsonl"], base="base", config=wrong), tmp_path / "wrong")


def test_a_dry_run_prints_the_memory_plan_and_trains_nothing(tmp_path: Path, data_dir: Path) -> None:
    _write(data_dir / "rows.jsonl", [_row(index) for index in range(40)])
    reporter = StopsAt()
    result = _train(
        training_so8t.So8tParams(files=["rows.jsonl"], fresh=_FRESH, config=TINY, dry_run=True),
        tmp_path,
        reporter,
    )
    assert result.register is None
    assert "MiB" in result.value["memory_plan"]
    assert reporter.logged == {}


def test_bad_input_is_refused_with_what_to_change(tmp_path: Path, data_dir: Path) -> None:
    _write(data_dir / "few.jsonl", [_row(index) for index in range(5)])
    _write(data_dir / "bad.jsonl", [_row(index) for index in range(40)] + [{"instruction": "x"}] * 3)
    with pytest.raises(Conflict, match=r"at least 16 are needed"):
        _train(training_so8t.So8tParams(files=["few.jsonl"], fresh=_FRESH, config=TINY), tmp_path / "a")
    with pytest.raises(Conflict, match=r"3 rows do not match the schema.*bad\.jsonl:41"):
        _train(training_so8t.So8tParams(files=["bad.jsonl"], fresh=_FRESH, config=TINY), tmp_path / "b")
    with pytest.raises(Conflict, match="no champion"):
        _train(training_so8t.So8tParams(files=["few.jsonl"], base="champion", config=TINY), tmp_path / "d")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"config": {"preset": "tiny", "learning_rate": -1}}, "learning_rate: Input should be greater than 0"),
        ({"config": {"preset": "tiny", "lora": {"rang": 4}}}, r"lora\.rang: Extra inputs"),
        ({"config": {"preset": "huge"}}, "no preset 'huge'; there are phi-4-mini"),
        ({"fresh": {"hidden_size": 64, "heads": 3, "kv_heads": 1}}, "3 heads of a multiple of 8"),
        ({"fresh": {"heads": 4, "kv_heads": 3}}, "heads 4 must be a multiple of kv_heads 3"),
    ],
)
def test_a_run_that_makes_no_sense_is_refused_before_it_is_a_job(params: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        training_so8t.So8tParams.model_validate(params)


def test_a_base_that_cannot_be_tuned_is_refused_before_its_rows_are_read(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENBA_LLM_LINE_MODELS_DIR", str(tmp_path))
    monkeypatch.setattr(training_so8t, "_rows", lambda *_: pytest.fail("rows were read"))
    for name, config in (("empty", None), ("bert", '{"model_type": "bert"}'), ("torn", "{")):
        (folder := tmp_path / name).mkdir()
        if config is not None:
            (folder / "config.json").write_text(config)
    for name, why in (("empty", r"config\.json is missing"), ("bert", "family 'bert'"), ("torn", "cannot be read")):
        with pytest.raises(Conflict, match=why):
            _train(training_so8t.So8tParams(files=["rows.jsonl"], base=name, config=TINY), tmp_path / f"run-{name}")


def test_a_run_that_the_memory_does_not_hold_is_refused_before_training(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(data_dir / "rows.jsonl", [_row(index) for index in range(40)])
    monkeypatch.setattr(so8t_line, "available_bytes", lambda _device, **_: 2e6)
    monkeypatch.setattr(so8t_line, "load_base", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(Conflict, match=r"run needs .* GiB and 0\.0 GiB are free on cpu"):
        _train(training_so8t.So8tParams(files=["rows.jsonl"], fresh=_FRESH, config=TINY), tmp_path / "run")
    larger = training_so8t.FreshParams(**{**FRESH, "hidden_size": 4096, "layers": 64})
    with pytest.raises(Conflict, match=r"model of this shape needs \d\d\.\d GiB"):
        _train(training_so8t.So8tParams(files=["rows.jsonl"], fresh=larger, config=TINY), tmp_path / "larger")


def test_rows_with_thinking_stand_for_their_question(tmp_path: Path, data_dir: Path) -> None:
    plain = [_row(index, output="<final>短い答え。</final>") for index in range(30)]
    thinking = [_row(index) for index in range(30)]
    _write(data_dir / "rows.jsonl", plain + thinking)
    params = training_so8t.So8tParams(files=["rows.jsonl"], prefer_thinking=True)
    rows = training_so8t._rows(params, local_run(tmp_path), 0)
    assert len(rows) == 30
    assert all(row.has_thinking for row in rows)
