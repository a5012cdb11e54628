"""Normal forms are Unicode's own, up to thirty marks on a letter; more than that is nobody's writing."""

from __future__ import annotations

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from genba_shared.text_forms import MOST_MARKS, nfc, nfkc


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=MOST_MARKS))
def test_what_people_write_comes_out_as_unicode_says(text: str) -> None:
    assert nfkc(text) == unicodedata.normalize("NFKC", text)
    assert nfc(text) == unicodedata.normalize("NFC", text)


def test_a_letter_keeps_thirty_marks_and_the_text_around_it_is_whole() -> None:
    piled = "がa" + "\u0301" * 50 + "後ろ"
    assert nfkc(piled) == unicodedata.normalize("NFKC", "がa" + "\u0301" * MOST_MARKS + "後ろ")
    long_word = "ﻱ" * 200  # Arabic letters: no marks, however many stand together
    assert nfkc(long_word) == unicodedata.normalize("NFKC", long_word)


def test_marks_that_have_to_change_places_cost_no_more_than_others() -> None:
    for pair in ("\u0301\u0316", "\uff9e\u0301", "\u0344\u0316"):
        piled = "a" + pair * 1_000_000  # left to unicodedata this takes an hour
        assert len(nfkc(piled)) <= 2 * MOST_MARKS + 1
        assert len(nfc(piled)) <= 2 * MOST_MARKS + 1
