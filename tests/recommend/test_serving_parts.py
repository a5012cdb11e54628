"""The parts that lists are made of: exact search, spreading, chance, counts that fade, a shelf that changes, a vector index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genba_recommend.catalogue import Entry, Shelf, Wanted
from genba_recommend.dataset import Item, User
from genba_recommend.index import Choice, ExactIndex, Lift, highest, ranked
from genba_recommend.index_vectors import VectorIndex, build
from genba_recommend.people import Did, People, Person
from genba_recommend.popularity import Fading, log_prior
from genba_recommend.ranking import intra_list_distance, pick, spread
from genba_shared.vectors_edge import EdgeVectors

NOBODY = np.zeros(0, np.int64)


def units(rng: np.random.Generator, n: int, dim: int = 16) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rows = rng.normal(size=(n, dim)).astype(np.float32)
    out: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return out


@pytest.mark.parametrize("size", [0, 1, 5, 127, 128, 1000, 20_000])
@pytest.mark.parametrize("n", [1, 7, 40])
def test_the_highest_are_the_highest(size: int, n: int) -> None:
    scores = np.random.default_rng(size).normal(size=size).astype(np.float32)
    assert highest(scores, n).tolist() == np.argsort(-scores, kind="stable")[:n].tolist()


def test_ties_go_to_the_lower_row_however_many_there_are() -> None:
    scores = np.zeros(5000, np.float32)
    assert ranked(np.arange(5000), scores, 3)[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("share", [0.01, 0.2, 0.6, 1.0])
def test_exact_search_keeps_to_what_is_allowed_and_leaves_out_what_was_seen(share: float) -> None:
    rng = np.random.default_rng(3)
    vectors, bias = units(rng, 3000), rng.normal(size=3000).astype(np.float32)
    allowed, query = rng.random(3000) < share, units(rng, 1)[0] * 10
    seen = rng.choice(3000, 50, replace=False)
    rows, scores = ExactIndex(vectors).best(query, Choice.of(bias, allowed), seen, 20)
    right = vectors @ query + bias
    right[~allowed] = -np.inf
    right[seen] = -np.inf
    expected = [row for row in np.argsort(-right)[:20] if right[row] > -np.inf]
    assert rows.tolist() == expected
    assert scores == pytest.approx(right[expected], abs=1e-4)


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_a_lift_raises_what_is_allowed_and_nothing_else(share: float) -> None:
    rng = np.random.default_rng(5)
    vectors, bias = units(rng, 3000), rng.normal(size=3000).astype(np.float32)
    allowed, query = rng.random(3000) < share, units(rng, 1)[0] * 5
    lift = Lift(np.sort(rng.choice(3000, 400, replace=False)), (8 * rng.normal(size=400)).astype(np.float32))
    seen = rng.choice(3000, 50, replace=False)
    rows, scores = ExactIndex(vectors).best(query, Choice.of(bias, allowed), seen, 20, lift=lift)
    right = vectors @ query + bias
    right[lift.rows] += lift.by
    right[~allowed] = right[seen] = -np.inf
    expected = np.argsort(-right)[:20]
    assert rows.tolist() == expected.tolist()
    assert scores == pytest.approx(right[expected], abs=1e-4)


def test_a_choice_under_another_bias_is_searched_as_if_it_were_made_anew() -> None:
    rng = np.random.default_rng(5)
    vectors, query = rng.normal(size=(4000, 8)).astype(np.float32), rng.normal(size=8).astype(np.float32)
    bias, other = rng.normal(size=(2, 4000)).astype(np.float32)
    index = ExactIndex(vectors)
    for allowed in (rng.random(4000) < 0.1, rng.random(4000) < 0.8):
        choice = Choice.of(bias, allowed)
        index.best(query, choice, NOBODY, 20)  # what it keeps of this must do for the next
        found = index.best(query, choice.under(other), NOBODY, 20)
        anew = ExactIndex(vectors).best(query, Choice.of(other, allowed), NOBODY, 20)
        assert found[0].tolist() == anew[0].tolist()
        assert found[1].tolist() == anew[1].tolist()


def test_the_vector_index_finds_what_exact_search_finds(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    centres = units(rng, 40, 32)
    vectors = centres[rng.integers(0, 40, 4000)] + 0.15 * rng.normal(size=(4000, 32)).astype(np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    bias = np.log(rng.pareto(1.5, 4000) + 0.1).astype(np.float32)
    ids = [f"v{n}" for n in range(4000)]
    store = EdgeVectors(tmp_path / "vectors")
    try:
        assert build(store, "recommend-test-v1", "towers", ids[:3900], vectors[:3900], builder="local")
        assert build(store, "recommend-test-v1", "towers", ids[:3900], vectors[:3900], builder="local")  # there already
        row_by_id = {item: row for row, item in enumerate(ids)}
        index = VectorIndex(
            store, "recommend-test-v1", "towers", vectors, row_of=row_by_id.get, later=np.arange(3900, 4000)
        )
        allowed = rng.random(4000) < 0.7
        choice, found, wanted = Choice.of(bias, allowed), 0, 0
        for query in units(rng, 30, 32) / np.float32(0.07):
            seen = rng.choice(4000, 30, replace=False)
            rows, scores = index.best(query, choice, seen, 20)
            exact, exact_scores = ExactIndex(vectors).best(query, choice, seen, 20)
            assert allowed[rows].all()
            assert not set(rows.tolist()) & set(seen.tolist())
            assert scores[0] == pytest.approx(exact_scores[0], rel=1e-4)
            found, wanted = found + len(set(rows.tolist()) & set(exact.tolist())), wanted + 20
        assert found / wanted >= 0.95
        # What is lifted is found wherever it lies, and by itself where the towers count nothing.
        lift = Lift(np.sort(rng.choice(4000, 60, replace=False)), np.full(60, 50.0, np.float32))
        for query in (units(rng, 1, 32)[0] / np.float32(0.07), np.zeros(32, np.float32)):
            rows, scores = index.best(query, choice, NOBODY, 20, lift=lift)
            exact, exact_scores = ExactIndex(vectors).best(query, choice, NOBODY, 20, lift=lift)
            assert rows.tolist() == exact.tolist()
            assert scores == pytest.approx(exact_scores, rel=1e-4)
        few = Choice.of(bias, np.arange(4000) < 15)
        assert len(index.best(query, few, NOBODY, 20)[0]) == 15
    finally:
        store.close()


def test_asking_again_with_another_choice_or_query_forgets_nothing_and_keeps_nothing_wrong() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 8)).astype(np.float32)
    index, everything = ExactIndex(vectors), np.ones(300, np.bool_)
    one, other = rng.normal(size=(2, 8)).astype(np.float32)
    for query in (one, one, other, one):
        bias = rng.normal(size=300).astype(np.float32)
        rows, scores = index.best(query, Choice.of(bias, everything), NOBODY, 20)
        np.testing.assert_array_equal(rows, np.argsort(-(vectors @ query + bias), kind="stable")[:20])
        np.testing.assert_allclose(scores, (vectors @ query + bias)[rows], rtol=1e-5)


def test_spreading_trades_score_for_distance() -> None:
    rng = np.random.default_rng(5)
    vectors = units(rng, 60)
    vectors[1:10] = vectors[0]  # the best ones are all the same
    scores = np.sort(rng.normal(size=60).astype(np.float32))[::-1]
    plain, wide = spread(scores, vectors, 10, 0.0), spread(scores, vectors, 10, 0.6)
    assert plain.tolist() == list(range(10))
    assert wide[0] == 0
    assert len(set(wide.tolist())) == 10
    assert (intra_list_distance(vectors[wide]) or 0) > 5 * (intra_list_distance(vectors[plain]) or 0)


def test_chances_are_those_with_which_places_are_filled() -> None:
    """The propensity that is logged is how often the item really comes to the place."""
    rng = np.random.default_rng(6)
    rows, scores = np.arange(6), np.array([3, 2, 1.5, 1, 0.5, 0], np.float32)
    counts, told = np.zeros(6), np.zeros(6)
    for _ in range(4000):
        picked = pick(rows, scores, None, 2, diversity=0, explore=0.5, rng=rng)
        assert (picked.rows[0], picked.propensities[0]) == (0, 1.0)
        counts[picked.rows[1]] += 1
        told[picked.rows[1]] = picked.propensities[1]
    assert told[1:] == pytest.approx(counts[1:] / 4000, abs=0.03)
    assert told[1:].sum() == pytest.approx(1.0)


def test_counts_fade_by_half_lives_and_survive_a_hundred_years() -> None:
    counts = Fading(2.0, 20_000)
    counts.add(np.array([0, 1, 1]), np.array([20_000, 20_000, 20_002]), np.array([1.0, 1.0, 1.0]))
    assert counts.at(20_002, 3).tolist() == pytest.approx([0.5, 1.5, 0.0])
    counts.add(np.array([2]), np.array([56_500]), np.array([1.0]))
    assert counts.at(56_500, 3).tolist() == pytest.approx([0.0, 0.0, 1.0])
    prior = log_prior(counts.at(56_500, 3), smoothing=0.1, weight=0.5)
    assert prior[2] == 0
    assert prior[0] == pytest.approx(0.5 * (np.log(0.1) - np.log(1.1)))


def entry(item_id: str, **fields: object) -> Entry:
    return Entry(Item(item_id, **fields))  # type: ignore[arg-type]  # fields of Item


def test_a_shelf_changes_without_changing_the_one_that_somebody_holds() -> None:
    old = Shelf().with_entries([entry("a", genre=("x",)), entry("b", genre=("y",), price=5.0)], revision=1)
    new = old.with_entries([entry("c", genre=("x",)), entry("a", genre=("y",))], revision=2)
    assert (len(old), len(new), old.row("c"), new.row("c")) == (2, 3, None, 2)
    assert old.allowed(Wanted(genre=("x",))).tolist() == [True, False]
    assert new.allowed(Wanted(genre=("x",))).tolist() == [False, False, True]
    assert new.allowed(Wanted(genre=("y",), price_min=1)).tolist() == [False, True, False]


def test_a_user_who_does_something_while_being_read_is_read_again() -> None:
    people: People
    reads = []

    def load(user_id: str) -> Person:
        reads.append(user_id)
        if len(reads) == 1:
            people.note(user_id, (3, Did(1.0, 1.0, None, seen=True)))  # it arrives while the rows are being read
        return Person(User(user_id), {} if len(reads) == 1 else {3: Did(1.0, 1.0, None, seen=True)})

    people = People(load, most=2)
    assert people.get("u").history == ()
    assert people.get("u").seen.tolist() == [3]
    assert len(reads) == 2
    people.note("u", (4, Did(2.0, 0.5, None, seen=False)))
    assert [row for row, _ in people.get("u").history] == [4, 3]
    before = people.get("u")
    people.note("u", (4, Did(3.0, 0.2, None, seen=False)), (3, Did(1.0, 1.0, None, seen=True)))
    assert people.get("u") is before  # nothing of it is news, so that what was computed of them holds
    people.get("v")
    people.get("w")
    assert people.here("u") is None


def test_whoever_did_something_with_an_item_that_was_not_there_is_read_again_when_it_comes() -> None:
    people = People(lambda user_id: Person(User(user_id), {}, frozenset({"a"} if user_id == "u" else ())), most=9)
    u, v, w = (people.get(user_id) for user_id in "uvw")
    people.note("v", strays=["b"])
    people.came(["a", "b", "c"])
    assert people.here("u") is people.here("v") is None
    assert people.here("w") is w
    assert (sorted(u.strays), sorted(v.strays)) == (["a"], [])
