"""``genba llm train``: what a run file may say, and what one step hands to the next. The command itself: ``tests/lifecycle``."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from genba_llm.cli import app
from genba_llm.line_cli import BadRunFile, filled_in, read_run

WHOLE = """
so8t: {config: {preset: tiny, validation_share: 0.2}, gguf: [F16]}
evaluate: {most_rows: 50}
collect: {files: [notes.jsonl]}
synthesise: {per_domain: 40}
calibrate:
"""


def _file(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, "utf-8")
    return path


def test_steps_come_in_the_lines_order_and_rows_are_always_checked(tmp_path: Path) -> None:
    steps = read_run(_file(tmp_path, WHOLE))
    assert list(steps) == ["collect", "synthesise", "validate", "so8t", "calibrate", "evaluate"]
    assert steps["calibrate"] == {}
    assert list(read_run(_file(tmp_path, "so8t: {files: [rows.jsonl]}"))) == ["so8t"]


def test_each_step_gets_what_those_before_it_made_and_keeps_what_the_file_says(tmp_path: Path) -> None:
    steps = read_run(_file(tmp_path, WHOLE))
    results = {name: {"value": {"shards": [f"{name}.jsonl"]}} for name in ("collect", "synthesise", "multimodal")}
    assert filled_in("collect", steps["collect"], steps, {}) == {"files": ["notes.jsonl"]}
    assert filled_in("validate", {}, steps, results) == {"shards": ["synthesise.jsonl", "multimodal.jsonl"]}
    results["validate"] = {"value": {"shards": ["checked.jsonl"]}}
    assert filled_in("so8t", steps["so8t"], steps, results) == {
        "shards": ["checked.jsonl"],
        "texts": ["collect.jsonl"],
        "config": {"preset": "tiny", "validation_share": 0.2},
        "gguf": ["F16"],
    }
    assert filled_in("evaluate", {"most_rows": 50}, steps, results) == {
        "shards": ["checked.jsonl"],
        "held_out_share": 0.2,
        "most_rows": 50,
    }
    assert filled_in("evaluate", {"held_out_share": 1.0}, steps, results)["held_out_share"] == 1.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("so8t: {", "cannot be read"),
        ("- so8t", "must hold a part for each step"),
        ("so8t: 3", "must hold a part for each step"),
        ("train: {}", "no step 'train'"),
        ("collect: {files: [a]}", "no part so8t"),
        ("so8t: {config: {preset: huge}}", "no preset 'huge'"),
        ("so8t: {config: {learning_rate: -1}}", "learning_rate"),
    ],
)
def test_a_file_that_describes_no_line_is_refused_before_anything_is_sent(tmp_path: Path, text: str, said: str) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(BadRunFile, match=said):
        read_run(path)
    assert CliRunner().invoke(app, ["train", str(path), "--url", "http://127.0.0.1:1"]).exit_code == 2
