"""What an author may write: the order that follows, every contradiction named, and files that are no procedure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from genba_shared.problems import Invalid
from genba_sop.authoring import AuthoredProcedure, contradictions, parse, read_steps_file
from genba_sop.procedures import _parsed


def authored(*steps: dict[str, Any]) -> AuthoredProcedure:
    return AuthoredProcedure.model_validate({"title": "t", "steps": list(steps)})


def after(*steps: dict[str, Any]) -> list[tuple[str, ...]]:
    return [step.after for step in parse(authored(*steps), procedure_id="p").steps]


def fields(*steps: dict[str, Any]) -> list[str]:
    return [fault["field"] for fault in contradictions(authored(*steps))]


def test_ordered_steps_wait_for_the_one_before() -> None:
    assert after({"id": "a"}, {"id": "b"}, {"id": "c"}) == [(), ("a",), ("b",)]


def test_neighbouring_any_order_steps_are_one_block_that_the_next_waits_for() -> None:
    any_order = {"order": "any"}
    steps = ({"id": "a"}, {"id": "b"} | any_order, {"id": "c"} | any_order, {"id": "d"}, {"id": "e"} | any_order)
    assert after(*steps) == [(), ("a",), ("a",), ("b", "c"), ("d",)]


def test_leaving_an_optional_step_out_does_not_cut_the_chain() -> None:
    assert after({"id": "a"}, {"id": "b", "optional": True}, {"id": "c"}) == [(), ("a",), ("b", "a")]


def test_written_preconditions_replace_the_default() -> None:
    assert after({"id": "a"}, {"id": "b", "after": []}, {"id": "c", "after": ["a", "a"]}) == [(), (), ("a",)]


def test_a_critical_steps_severity_is_critical_unless_it_is_written() -> None:
    steps = parse(
        authored({"id": "a", "critical": True}, {"id": "b", "severity": "minor"}, {"id": "c"}), procedure_id="p"
    ).steps
    assert [step.severity for step in steps] == ["critical", "minor", "major"]


def test_a_text_may_be_bare_and_one_language_stands_in_for_the_other() -> None:
    first, second, third = parse(
        authored({"id": "a", "name": "Open"}, {"id": "b", "name": {"ja": "閉める"}}, {"id": "c"}), procedure_id="p"
    ).steps
    assert (first.name.en, second.name.en, second.name.ja, third.name.en) == ("Open", "閉める", "閉める", "c")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([{"id": "a"}, {"id": "a"}], ["steps[1].id"]),
        ([{"id": "a", "after": ["x"]}], ["steps[0].after"]),
        ([{"id": "a", "after": ["a"]}], ["steps[0].after"]),
        ([{"id": "a", "min_s": 5, "max_s": 4}], ["steps[0].min_s"]),
        ([{"id": "a", "critical": True, "optional": True}], ["steps[0].optional"]),
        ([{"id": "a", "after": ["b"]}, {"id": "b", "after": ["a"]}], ["steps[0].after"]),
        ([{"id": "a", "after": ["c"]}, {"id": "b"}, {"id": "c"}], ["steps[0].after"]),
        ([{"id": "a", "after": ["b"]}, {"id": "b", "after": []}], ["steps[0].after"]),
    ],
)
def test_a_contradiction_names_its_field(steps: list[dict[str, Any]], expected: list[str]) -> None:
    assert fields(*steps) == expected


def test_a_circle_is_shown_whole() -> None:
    faults = contradictions(authored({"id": "a", "after": ["c"]}, {"id": "b"}, {"id": "c"}))
    assert "a → c → b → a" in faults[0]["message"]


def test_a_procedure_without_any_title_is_told_so() -> None:
    bare = AuthoredProcedure.model_validate({"title": {}, "steps": [{"id": "a"}]})
    assert [fault["field"] for fault in contradictions(bare)] == ["title"]


names = st.sampled_from("abcdef")


@given(st.lists(st.fixed_dictionaries({"id": names}, optional={
    "after": st.lists(names, max_size=3), "order": st.sampled_from(["ordered", "any"]), "optional": st.booleans(),
}), min_size=1, max_size=6))  # fmt: skip
def test_what_parses_is_a_partial_order_along_the_list(steps: list[dict[str, Any]]) -> None:
    written = authored(*steps)
    if contradictions(written):
        with pytest.raises(Invalid):
            parse(written, procedure_id="p")
        return
    seen: set[str] = set()
    for step in parse(written, procedure_id="p").steps:
        assert set(step.after) <= seen
        seen.add(step.id)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("title: [", "line"),
        ("just words", "mapping"),
        ("steps: []", "title"),
        ("title: t\nsteps: []", "steps"),
        ("title: t\nsteps: [{id: 'a b'}]", "steps[0].id"),
        ("title: t\nsteps: [{id: a, min_s: .nan}]", "steps[0].min_s"),
        ("title: t\nsteps: [{id: a, min_s: soon}]", "steps[0].min_s"),
        (
            "title: t\nsteps: [{id: a}]\ngolds: [{video: g.mp4, steps: [{id: a, start_s: -1, end_s: 2}]}]",
            "golds[0].steps[0].start_s",
        ),
        ("!!python/object/apply:os.system ['true']", "YAML"),
    ],
)
def test_a_file_that_is_no_procedure_is_told_where(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "steps.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Invalid) as problem:
        read_steps_file(path)
    assert word in problem.value.detail
    assert "steps.yaml" in problem.value.detail


def test_a_steps_file_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "steps.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(Invalid, match="larger"):
        read_steps_file(path)


def test_aliases_that_multiply_are_bounded_by_the_shape(tmp_path: Path) -> None:
    """A YAML bomb: nine levels of nine references are not expanded, for no field takes such a shape."""
    levels = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    levels += [f"{c}: &{c} [{', '.join(['*' + p] * 9)}]" for p, c in zip("abcdefgh", "bcdefghi", strict=True)]
    (tmp_path / "steps.yaml").write_text("\n".join(levels), encoding="utf-8")
    with pytest.raises(Invalid):
        read_steps_file(tmp_path / "steps.yaml")


def test_what_is_written_out_reads_back_the_same(tmp_path: Path) -> None:
    written = authored({"id": "a", "name": {"en": "A", "ja": "あ"}, "tool": "key"}, {"id": "b", "order": "any"})
    (tmp_path / "steps.yaml").write_text(yaml.safe_dump(written.model_dump(), allow_unicode=True), encoding="utf-8")
    assert read_steps_file(tmp_path / "steps.yaml") == written


def test_a_document_is_parsed_once_and_another_one_of_the_same_version_anew() -> None:
    one, other = (json.dumps({"title": title, "steps": [{"id": "a"}]}) for title in ("one", "other"))
    kept = _parsed(one, "p", 1)
    assert _parsed(one, "p", 1) is kept
    assert (kept.title.en, _parsed(other, "p", 1).title.en, _parsed(one, "p", 2).version) == ("one", "other", 2)
    assert _parsed.cache_info().maxsize == 256
