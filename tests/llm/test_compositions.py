"""Long rows for the classifier: harmless ones and the same with an attacker's order in them, in both languages."""

from __future__ import annotations

from collections import Counter

import pytest

from genba_llm.classifier_fit import Row
from genba_llm.compositions import Amounts, compose
from genba_llm.contrast import lexicon
from genba_llm.verdict import Decision

FEW = Amounts().scaled(0.1)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return compose(3, FEW)


def test_rows_are_the_same_for_the_same_seed_and_without_doubles(rows: list[Row]) -> None:
    assert [row.text for row in compose(3, FEW)] == [row.text for row in rows]
    assert len({row.text for row in rows}) == len(rows)
    assert {row.text for row in compose(4, FEW)} != {row.text for row in rows}


def test_no_slot_is_left_open_and_every_row_says_where_it_comes_from(rows: list[Row]) -> None:
    slots = {name for language in ("ja", "en") for name in lexicon(f"long_{language}")["slots"]}
    for row in rows:
        assert not any(f"{{{name}}}" in row.text for name in {*slots, "n", "n2", "ask", "pre", "post", "mode", "does"})
        assert row.family.startswith(f"{row.language}/long/")
        assert row.subject


def test_both_languages_have_every_kind_and_harm_as_well_as_harmless_ones(rows: list[Row]) -> None:
    kinds = Counter((row.language, row.family.split("/")[2]) for row in rows)
    assert {kind for language, kind in kinds if language == "ja"} == {
        kind for language, kind in kinds if language == "en"
    }
    for language in ("ja", "en"):
        decisions = Counter(row.decision for row in rows if row.language == language)
        assert min(decisions[each] for each in (Decision.ALLOW, Decision.DENY, Decision.REFUSE)) > 100


def test_an_injected_order_stands_in_a_text_that_is_harmless_without_it() -> None:
    made = compose(1, Amounts(**dict.fromkeys(vars(FEW), 1) | {"injected": 60}))
    attacked = [row for row in made if row.family.endswith("/injected")]
    harmless = [row.text for row in made if row.family.endswith("/injected_not")]
    assert {row.decision for row in attacked} == {Decision.DENY}
    for text in harmless:
        assert any(_is_inside(text, row.text) for row in attacked)


def _is_inside(text: str, longer: str) -> bool:
    """Whether ``longer`` is ``text`` with something put in at one place."""
    return any(longer.startswith(text[:at]) and longer.endswith(text[at:]) for at in range(len(text) + 1))


def test_both_lexicons_hold_the_same_lists() -> None:
    english, japanese = lexicon("long_en"), lexicon("long_ja")
    assert english.keys() == japanese.keys()
    assert english["slots"].keys() == japanese["slots"].keys()
