"""Rows of the shop floor and the office for the classifier: ordinary requests and what nobody may ask, from the same lists."""

from __future__ import annotations

from collections import Counter

import pytest

from genba_llm.classifier_fit import Row
from genba_llm.contrast import lexicon
from genba_llm.verdict import Decision
from genba_llm.workplace import Amounts, work_rows

FEW = Amounts().scaled(0.1)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return work_rows(3, FEW)


def test_rows_are_the_same_for_the_same_seed_and_without_doubles(rows: list[Row]) -> None:
    assert [row.text for row in work_rows(3, FEW)] == [row.text for row in rows]
    assert len({row.text for row in rows}) == len(rows)
    assert {row.text for row in work_rows(4, FEW)} != {row.text for row in rows}


def test_no_slot_is_left_open_and_every_row_has_a_family_and_a_subject(rows: list[Row]) -> None:
    for row in rows:
        assert "{" not in row.text
        assert row.family.startswith(f"{row.language}/")
        assert row.subject


def test_both_languages_have_ordinary_and_dangerous_rows(rows: list[Row]) -> None:
    kinds = Counter((row.language, row.decision > Decision.ALLOW) for row in rows)
    assert min(kinds[language, dangerous] for language in ("ja", "en") for dangerous in (True, False)) > 200


def test_ordinary_and_dangerous_requests_speak_of_the_same_things() -> None:
    for language in ("ja", "en"):
        words = lexicon(f"work_{language}")
        ordinary, dangerous = (" ".join(words[kind]) for kind in ("requests", "demands"))
        for slot in ("machine", "material", "place", "system", "device", "check", "record", "secret"):
            assert f"{{{slot}}}" in ordinary, (language, slot)
            assert f"{{{slot}}}" in dangerous, (language, slot)


def test_both_lexicons_hold_the_same_lists() -> None:
    japanese, english = lexicon("work_ja"), lexicon("work_en")
    for part in ("slots", "fields"):
        assert set(japanese[part]) == set(english[part])
