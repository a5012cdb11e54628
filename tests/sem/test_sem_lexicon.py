"""Shape words of both languages mean measures; what they do not mean, they do not match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba_sem.lexicon import CONCEPTS, concepts_in, shape_fit

NEEDLE = {"aspect_ratio": 0.2, "circularity": 0.4, "solidity": 0.97, "diameter_um": 1.0}
BALL = {"aspect_ratio": 0.97, "circularity": 0.95, "solidity": 0.98, "diameter_um": 1.0}
CLUMP = {"aspect_ratio": 0.7, "circularity": 0.5, "solidity": 0.72, "diameter_um": 1.0}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("needle-like particles", ["needle"]),
        ("針状の粒子", ["needle"]),
        ("Needles", ["needle"]),
        ("球状で滑らか", ["spherical", "smooth"]),
        ("spherical", ["spherical"]),
        ("large agglomerates", ["aggregate", "large"]),
        ("凝集体", ["aggregate"]),
        ("大きい凝集", ["aggregate", "large"]),
        ("out of focus", ["blurred"]),
        ("割れのある縁", ["cracked"]),
        ("クラックの入った粒子", ["cracked"]),
        ("grounded", []),
        ("工程B 14番", []),
        ("", []),
    ],
)
def test_a_text_names_the_shapes_that_it_speaks_of(text: str, names: list[str]) -> None:
    assert [concept.name for concept in concepts_in(text)] == names


@pytest.mark.parametrize(
    ("word", "best"), [("needle", NEEDLE), ("球状", BALL), ("aggregate", CLUMP), ("針状", NEEDLE), ("凝集", CLUMP)]
)
def test_a_shape_word_prefers_its_shape(word: str, best: dict[str, float]) -> None:
    [concept] = concepts_in(word)
    fits = {name: shape_fit(concept, measured, {}) for name, measured in (("n", NEEDLE), ("b", BALL), ("c", CLUMP))}
    mine = shape_fit(concept, best, {})
    assert mine > 0.5
    assert sorted(fits.values())[1] < 0.5 < max(fits.values()) == mine


def test_what_was_not_measured_fits_no_shape() -> None:
    [concept] = concepts_in("needle")
    assert shape_fit(concept, {"aspect_ratio": None}, {}) == 0


@given(st.text(max_size=60))
def test_any_text_is_understood_as_something_or_nothing(text: str) -> None:
    assert set(concepts_in(text)) <= set(CONCEPTS)
