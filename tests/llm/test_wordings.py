"""Questions in people's own words: what a pattern stands for, what is held out, and what rows are made of them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from genba_llm import contrast, wordings
from genba_llm.synthesise import Mix, is_small_talk, not_known, synthesise, work_names
from genba_llm.thinking import final_of
from genba_llm.verdict import DOMAINS

NAMES = [name for domain in DOMAINS for name in work_names(domain, "ja")]


def test_a_pattern_stands_for_its_parts_and_for_what_may_be_left_out() -> None:
    rng = random.Random(0)
    found = {wordings.expand("(休み|有給)(は|)、?いつ", rng) for _ in range(200)}
    assert found == {f"{a}{b}{c}いつ" for a in ("休み", "有給") for b in ("は", "") for c in ("、", "")}
    assert {wordings.expand("(a|b (c|d))", rng) for _ in range(100)} == {"a", "b c", "b d"}
    assert wordings.expand(r"\d times \d", rng)[0] in "123456789"


@pytest.mark.parametrize("language", ["ja", "en"])
def test_every_piece_of_work_has_wordings_and_no_other_thing_has(language: Any) -> None:
    known = contrast.lexicon(f"wordings_{language}")
    assert set(known) == set(NAMES)
    for name, kinds in known.items():
        assert set(kinds) == {"n", "v", "q", "not"}, name
        for line in "\n".join(kinds.values()).splitlines():
            assert line.count("(") == line.count(")"), line


@pytest.mark.parametrize("language", ["ja", "en"])
def test_a_wording_that_is_held_out_is_never_one_to_learn(language: Any) -> None:
    every = {name: kinds["q"].splitlines() for name, kinds in contrast.lexicon(f"wordings_{language}").items()}
    held = wordings.held_names(language, "q")
    assert 5 < len(held) < len(every) / 3
    for name in held:
        learnt, kept = (set(wordings._lines(name, language, "q", part)) for part in ("learnt", "held"))
        assert learnt
        assert kept
        assert learnt | kept == set(every[name])
        assert not learnt & kept


def test_rows_answer_what_is_asked_in_own_words_and_not_what_sounds_alike() -> None:
    mix = Mix(work=0.5, unknown=0.5, talk=0.0, documents=0.0, own_words=1.0)
    rows = list(synthesise("general", 300, seed=4, shares=(1.0, 0.0, 0.0), mix=mix))
    assert rows == list(synthesise("general", 400, seed=4, shares=(1.0, 0.0, 0.0), mix=mix))[:300]
    finals = [final_of(row.output)[0] for row in rows]
    silent = sum(final in {not_known("ja"), not_known("en")} for final in finals)
    assert 110 < silent < 190
    plain = {text for form in contrast.lexicon("synthesise")["asked"].values() for text in form["ja"]}
    names = {name for work in contrast.lexicon("knowledge")["general"] for name in work["names"]["ja"]}
    templates = {text.format(x=name) for text in plain for name in names}
    assert not templates & {row.instruction for row in rows}


@pytest.mark.parametrize("language", ["ja", "en"])
def test_every_form_that_a_frame_asks_for_can_be_answered_and_as_many_ask_as_are_wanted(language: Any) -> None:
    frames, forms = contrast.lexicon("wordings_frames"), contrast.lexicon("synthesise")["answered"]
    assert set(frames["noun"]) | set(frames["verb"]) <= set(forms)
    rng = random.Random(5)
    for wanted in (0.0, 0.4, 1.0):
        asked = [wordings.asks_for(rng.choice(NAMES), language, rng, other_forms=wanted).form for _ in range(400)]
        share = sum(form != "tell" for form in asked) / len(asked)
        assert share == pytest.approx(0.6 * wanted, abs=0.08), "two in five are whole questions, which ask to be told"


def test_small_talk_comes_as_people_type_it_in_the_share_of_languages_that_is_asked_for() -> None:
    mix = Mix(work=0.0, unknown=0.0, talk=1.0, documents=0.0, japanese=0.5)
    rows = list(synthesise("general", 200, seed=4, shares=(1.0, 0.0, 0.0), mix=mix))
    assert all(is_small_talk(row) for row in rows)
    assert not [row for row in rows if set(row.instruction) & set("()|")]
    english = sum(row.instruction.isascii() for row in rows)
    assert 60 < english < 140
    assert any(row.instruction.startswith("good ") for row in rows)
    assert any(row.instruction.startswith("Good ") for row in rows)
