"""What a model thinks stays inside, wherever a stream is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genba_llm.thinking import Filter, Mode, final_of

QUADRUPLE = (
    "<think-task>MARK1 the user asks <b>this</b></think-task>\n<think-safety>MARK2 1 < 2</think-safety>"
    "<think-policy>MARK3 cites <final> in words</think-policy><final>The answer: 1 < 2 & <b>bold</b>.</final> MARK4"
)


def through(pieces: list[str], mode: Mode = "final_only", *, starts_hidden: bool = False) -> str:
    found = Filter(mode, starts_hidden=starts_hidden)
    return "".join(found.feed(piece) for piece in pieces) + found.finish()


@pytest.mark.parametrize("mode", ["final_only", "strip"])
def test_at_every_cut_only_the_final_text_leaves(mode: Mode) -> None:
    for at in range(len(QUADRUPLE) + 1):
        answer = through([QUADRUPLE[:at], QUADRUPLE[at:]], mode).strip()
        assert answer == "The answer: 1 < 2 & <b>bold</b>.", at


FOREIGN = {
    "gpt-oss": "<|channel|>analysis<|message|>SECRET<|end|><|start|>assistant<|channel|>commentary to=functions.a<|message|>"
    "SECRET<|call|><|start|>assistant<|channel|>final<|message|>{}<|return|>",
    "magistral": "[THINK]SECRET [1] [x[/THINK]{}",
    "kimi": "◁think▷SECRET◁/think▷{}",
    "seed": "<seed:think>SECRET</seed:think>{}",
    "cohere": "<|START_THINKING|>SECRET<|END_THINKING|><|START_RESPONSE|>{}<|END_RESPONSE|>",
    "openthinker": "<|begin_of_thought|>SECRET<|end_of_thought|><|begin_of_solution|>{}<|end_of_solution|>",
}


@pytest.mark.parametrize("family", FOREIGN)
def test_thoughts_of_other_families_stay_inside_at_every_cut(family: str) -> None:
    answer = "It is 25 Nm [1], [THIN] and a[0] ◁."
    said = FOREIGN[family].format(answer)
    for at in range(len(said) + 1):
        assert through([said[:at], said[at:]], "strip") == answer, at
    assert through(list(said), "strip") == answer
    cut = said[: said.rindex("SECRET") + 6]
    assert "SECRET" not in through(list(cut), "strip")


@given(st.lists(st.integers(0, len(QUADRUPLE)), max_size=30))
@settings(max_examples=200, deadline=None)
def test_at_any_number_of_cuts_only_the_final_text_leaves(cuts: list[int]) -> None:
    places = sorted({0, len(QUADRUPLE), *cuts})
    pieces = [QUADRUPLE[start:end] for start, end in itertools.pairwise(places)]
    assert through(pieces).strip() == "The answer: 1 < 2 & <b>bold</b>."


_PARTS = [
    "<think-task>",
    "</think-task>",
    "<think>",
    "</think>",
    "<final>",
    "</final>",
    "<FINAL>",
    "＜think＞",
    "<",
    "<th",
    "x",
    "</",
    "<|im_end|>",
]


@given(st.lists(st.sampled_from(_PARTS), max_size=12), st.integers(0, 12))
@settings(max_examples=300, deadline=None)
def test_a_text_inside_an_open_thought_never_leaves(parts: list[str], at: int) -> None:
    """Whatever tags come before, a marker after an opening tag that nothing closed stays inside."""
    text = "".join(parts[:at]) + "<think-safety>SECRET"
    for mode in ("final_only", "strip"):
        assert "SECRET" not in through(list(text), mode)
        assert "SECRET" not in (final_of(text, mode=mode)[0] or "")


def test_text_without_tags_is_a_thought_where_only_the_final_counts() -> None:
    assert final_of("just some text") == (None, "just some text")
    assert final_of("just some text", mode="strip") == ("just some text", "")


def test_a_thought_that_is_cut_off_never_leaves() -> None:
    assert through(["<think>half a thou"], "strip") == ""
    assert through(["hello <thin"], "strip") == "hello "
    assert through(["<final>hello</fin"]) == "hello"
    assert through(["<think-task>a<final>b</final>"]) == ""  # fail closed: the thought did not end


def test_a_stage_that_was_not_closed_ends_where_the_next_begins() -> None:
    assert final_of("<think-task>a<think-safety>b<think-policy>c</think-policy><final>d</final>")[0] == "d"


def test_a_model_whose_prompt_opened_the_thought() -> None:
    assert through(["reason", "ing</thi", "nk>answer"], "strip", starts_hidden=True) == "answer"
    assert final_of("reasoning</think>answer", mode="strip") == ("answer", "reasoning</think>")


@pytest.mark.parametrize(
    "tag", ["<THINK>", "< think >", "<think id='1'>", "＜think＞", "<thinking>", "<think_safety>", "<reasoning>"]
)
def test_tags_are_known_however_they_are_written(tag: str) -> None:
    assert through(list(f"a{tag}b"), "strip") == "a"


@pytest.mark.parametrize(
    "text", ["a < b and c > d", "List<String> x", "<table><tr>", "<", "x <- y", "<https://a.b>", "5<6"]
)
def test_other_angle_brackets_pass(text: str) -> None:
    assert through(list(text), "strip") == text


@pytest.mark.parametrize(
    "text",
    [
        "<longcat_think>SECRET</longcat_think>ok",
        "<unused94>thought\nSECRET<unused95>ok",
        "<|inner_prefix|>SECRET<|inner_suffix|>ok",
        "<|think|>SECRET<|/think|>ok",
        "<thoughts>SECRET</thoughts>ok",
        "<chain-of-thought>SECRET</chain-of-thought>ok",
        "<think_never_used_51bce0c785ca>SECRET</think_never_used_51bce0c785ca>ok",
        "<think note='" + "x" * 90 + "'>SECRET</think>ok",
        "<think=deep>SECRET</think>ok",
        "<think><think>SECRET</think>SECRET</think>ok",
    ],
)
def test_thoughts_stay_inside_however_a_model_marks_or_nests_them(text: str) -> None:
    for mode in ("strip", "final_only"):
        assert "SECRET" not in through(list(text), mode)
    assert through(list(text), "strip") == through([text], "strip") == "ok"


def test_what_follows_a_thought_that_began_twice_leaves_once_nothing_more_can_end_it() -> None:
    found = Filter("strip", starts_hidden=True)
    assert found.feed("<think>a thought</think>an ") + found.feed("answer") == ""
    assert found.finish() == "an answer"
    assert through(list("<think>of <think> tags</think>said<final>answer</final>"), "strip") == "answer"


_MARKUP = [
    "<", ">", "/", "think", "ing", "-task", "_x1", " ", "=", '"', "final", "thought", "chain", "_of_", "|", "[", "]", "THINK", "a",
    "◁", "▷", "unused94", "inner",
]  # fmt: skip


@given(st.lists(st.sampled_from(_MARKUP), max_size=24))
@settings(max_examples=500, deadline=None)
def test_where_a_stream_is_cut_changes_nothing(parts: list[str]) -> None:
    text = "".join(parts)
    for mode in ("final_only", "strip"):
        assert through(list(text), mode) == through(parts, mode) == through([text], mode)


def test_control_tokens_are_no_text() -> None:
    assert through(list("hello<|im_end|> you"), "strip") == "hello you"


def test_a_piece_that_cannot_become_a_tag_is_not_held() -> None:
    found = Filter("strip")
    assert found.feed("a <b") == "a <b"
    assert found.feed(" <thi") == " "
    assert found.feed("s is it") == "<this is it"
