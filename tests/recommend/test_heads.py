"""Heads foresee what came of a moment where vectors tell, are left out where they do not, and order lists when asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.recommend.taste_world import N_GROUPS, world
from tests.recommend.test_training_loop import SMALL

from genba_recommend import training_loop
from genba_recommend.bundle import LoadedModel, write_bundle
from genba_recommend.catalogue import Entry, Shelf, Wanted
from genba_recommend.data import first_of_each
from genba_recommend.dataset import Catalogue, Dataset, Interactions, Kind
from genba_recommend.heads import TASKS, Heads
from genba_recommend.heads_training import (
    Moments,
    area_under_curve,
    averages_of,
    judge_heads,
    outcomes,
    teachable,
    train_heads,
)
from genba_recommend.lists import Ask, for_person
from genba_recommend.people import Did, Person
from genba_recommend.prior import DAY_S
from genba_recommend.serving_model import ServingModel, align
from genba_recommend.training_loop import Trained, train
from genba_recommend.view import View, nobody_alike


def watched_world(*, tells: bool) -> Dataset:
    """Long looks at items of one's own group and short ones at others; or lengths that mean nothing."""
    base = world(n_events=3_000, n_items=60, n_users=80)
    events, rng = base.interactions, np.random.default_rng(1)
    own = (events.item - events.user) % N_GROUPS == 0
    share = np.where(own, 0.8, 0.05) if tells else rng.choice([0.8, 0.05], len(events))
    items = tuple(replace(item, duration_s=100.0) for item in base.catalogue.items)
    viewed = Interactions.of(
        events.user, events.item, events.time_s, kind=np.full(len(events), Kind.VIEW), watched_s=100.0 * share,
        weight=np.full(len(events), 0.5),
    )  # fmt: skip
    return Dataset(Catalogue(items), base.users, first_of_each(viewed))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return watched_world(tells=True)


@pytest.fixture(scope="module")
def trained(data: Dataset) -> Trained:
    return train(data, SMALL)


def test_outcomes_are_what_the_log_says() -> None:
    items = tuple(
        replace(item, duration_s=duration)
        for item, duration in zip(world().catalogue.items, (100.0, None, 50.0), strict=False)
    )
    at_s = np.array([0.0, 0.2, 3.0, 20.0, 30.0]) * DAY_S
    events = Interactions.of(
        [0, 0, 0, 0, 1], [0, 1, 2, 0, 0], at_s, kind=[1, 1, 1, 0, 1], weight=[0.5, 0.5, 0.1, 1.0, 0.5],
        watched_s=[80.0, 40.0, 4.0, np.nan, 200.0],
    )  # fmt: skip
    data = Dataset(Catalogue(items), world().users[:2], events)
    expected = np.array([
        [0.8, 0, 0, 1],  # back on the third day
        [np.nan, 0, np.nan, 1],  # of unknown length
        [0.08, 0, 1, 0],  # left at once, and not back within a week
        [np.nan, 1, np.nan, 0],
        [1.0, 0, 0, np.nan],  # longer than it is; the log ends too early to say whether they came back
    ])  # fmt: skip
    np.testing.assert_allclose(outcomes(data, np.arange(5)), expected, atol=1e-6)
    assert TASKS == ("watched", "liked", "skipped", "returns")


def test_heads_foresee_how_long_is_watched_and_what_is_left_at_once(trained: Trained) -> None:
    assert {"watched", "skipped"} <= set(trained.heads.tasks)
    assert trained.metrics["head_watched_auc"] > 0.75
    assert "liked" not in trained.heads.tasks  # nobody likes anything here


def test_a_head_that_foresees_no_better_than_the_average_is_left_out() -> None:
    found = train(watched_world(tells=False), replace(SMALL, max_epochs=1))
    assert not {"watched", "skipped"} & set(found.heads.tasks)


def test_heads_move_no_tower(data: Dataset, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_loop, "teachable", lambda _found: ())
    without = train(data, SMALL)
    assert without.heads.tasks == ()
    np.testing.assert_array_equal(without.vectors, trained.vectors)
    assert (without.prior, without.blend) == (trained.prior, trained.blend)


def test_probabilities_are_learnt_to_scale_and_judged_on_other_moments() -> None:
    rng = np.random.default_rng(0)
    user, item = (rng.normal(scale=8**-0.5, size=(6_000, 8)).astype(np.float32) for _ in range(2))
    chance = 1 / (1 + np.exp(-6 * (user * item).sum(1)))
    outcome = np.full((6_000, 4), np.nan, np.float32)
    outcome[:, 1] = rng.random(6_000) < chance
    outcome[::3, 1] = np.nan  # unknown is no no
    learnt, later = (Moments(user[part], item[part], outcome[part]) for part in (slice(0, 5_000), slice(5_000, None)))
    assert teachable(learnt) == ("liked",)
    heads = train_heads(learnt, ("liked",), seed=0)
    said = heads.of("liked", later.user, later.item)
    assert np.abs(said - chance[5_000:]).mean() < 0.12
    judged = judge_heads(heads, later, averages=averages_of(learnt))["liked"]
    assert judged.is_worth_it
    assert judged.auc > 0.75
    again = train_heads(learnt, ("liked",), seed=0)
    np.testing.assert_array_equal(again.widen, heads.widen)


def test_the_area_under_the_curve_counts_pairs_and_ties_half() -> None:
    said, high = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    assert area_under_curve(said, high) == pytest.approx(3.5 / 4)
    assert np.isnan(area_under_curve(said, np.ones(4, np.bool_)))


def test_a_list_may_be_ordered_by_what_is_foreseen_and_tells_it(
    data: Dataset, trained: Trained, tmp_path: Path
) -> None:
    folder = write_bundle(trained, data, tmp_path / "bundle")
    model = ServingModel.load(folder, 1)
    assert model.loaded.heads.tasks == trained.heads.tasks
    shelf = Shelf().with_entries([Entry(item) for item in data.catalogue.items], revision=1)
    aligned = align(model, shelf, {}, generation=0)
    zeros = np.zeros(len(shelf), np.float32)
    view = View(shelf, zeros, zeros, nobody_alike, models={1: aligned}, champion=1)
    person = Person(data.users[3], {7: Did(1.0, 0.5, 80.0, seen=True), 11: Did(2.0, 0.5, 80.0, seen=True)})
    rng = np.random.default_rng(0)
    plain = for_person(view, person, Ask(Wanted(), k=10), rng)
    assert plain.aim == "fit"
    assert all(item.predicted is None for item in plain.items)
    told = for_person(view, person, Ask(Wanted(), k=10, predict=True), rng)
    assert [item.item_id for item in told.items] == [item.item_id for item in plain.items]
    watched = for_person(view, person, Ask(Wanted(), k=10, aim="watched"), rng)
    assert watched.aim == "watched"
    means = [np.mean([item.predicted["watched"] for item in made.items if item.predicted]) for made in (told, watched)]
    assert means[1] >= means[0]
    scores = {item.item_id: item.score for item in for_person(view, person, Ask(Wanted(), k=60), rng).items}
    for item in watched.items:
        assert item.predicted is not None
        assert item.score == pytest.approx(scores[item.item_id] + np.log(item.predicted["watched"]), abs=2e-3)
    assert for_person(view, person, Ask(Wanted(), k=10, aim="liked"), rng).aim == "fit"  # this version has no such head


def test_who_asks_again_gets_the_same_list_until_something_changes(
    data: Dataset, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ServingModel.load(write_bundle(trained, data, tmp_path / "bundle"), 1)
    shelf = Shelf().with_entries([Entry(item) for item in data.catalogue.items], revision=1)
    aligned = align(model, shelf, {}, generation=0)
    zeros = np.zeros(len(shelf), np.float32)
    searched: list[int] = []
    best = type(aligned.index).best

    def counted(*args: Any, **named: Any) -> Any:
        searched.append(1)
        return best(*args, **named)

    monkeypatch.setattr(type(aligned.index), "best", counted)

    def view(bias: float) -> View:
        lifted = zeros.copy()
        lifted[5] = bias
        return View(shelf, zeros, zeros, nobody_alike, models={1: replace(aligned, bias=lifted)}, champion=1)

    now, person = view(0.0), Person(data.users[3], {7: Did(1.0, 0.5, 80.0, seen=True)})

    def ids(view: View, person: Person, **asked: Any) -> list[str]:
        wanted = Wanted(**asked.pop("wanted", {}))
        made = for_person(view, person, Ask(wanted, **{"k": 5, **asked}), np.random.default_rng(0))
        return [item.item_id for item in made.items]

    first = ids(now, person)
    assert ids(now, person) == first
    assert len(searched) == 1
    assert ids(now, person, exclude=(shelf.row_by_id[first[0]],)) == [*first[1:], *ids(now, person, k=6)[5:]]
    assert set(ids(now, person, wanted={"genre": ("g1",)})) <= {item.item_id for item in data.catalogue.items[1::4]}
    assert ids(view(50.0), person)[0] == "i5"  # popularity has moved
    liked = person.after((shelf.row_by_id[first[0]], Did(2.0, 1.0, None, seen=True)))
    assert first[0] not in ids(now, liked)


def test_a_bundle_without_heads_foresees_nothing(data: Dataset, trained: Trained, tmp_path: Path) -> None:
    bare = replace(trained, heads=Heads.none())
    found = LoadedModel.load(write_bundle(bare, data, tmp_path / "bundle"))
    assert found.heads.tasks == ()
    assert found.heads.predict(np.ones(16, np.float32), np.ones((3, 16), np.float32)).shape == (3, 0)
