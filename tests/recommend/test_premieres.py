"""What untouched items draw is foreseen by their names and age, where that can be told, and lists rank them by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.recommend.taste_world import world
from tests.recommend.test_training_loop import SMALL

from genba_recommend import premieres
from genba_recommend.bundle import BundleUnreadable, LoadedModel, write_bundle
from genba_recommend.catalogue import Entry, Shelf
from genba_recommend.dataset import Catalogue, Dataset, Interactions, Item, User
from genba_recommend.popularity import log_prior
from genba_recommend.premieres import Premieres
from genba_recommend.prior import DAY_S, Prior
from genba_recommend.serving_model import Embedded, ServingModel, align
from genba_recommend.training_loop import train

DAYS, HIT, DULL = 100, 12, 1  # events that a premiere draws in its first ten days


def releases(*, hits: bool = True, seed: int = 0) -> Dataset:
    """A catalogue that gets two items a day, one of a genre that draws much; then two more that nobody has touched, and old ones."""
    rng, rows, times_s = np.random.default_rng(seed), list[int](), list[float]()
    items: list[Item] = []
    for day in range(DAYS):
        for genre, drawn in (("action", HIT if hits else DULL), ("talk", DULL)):
            rows += [len(items)] * drawn
            times_s += list((day + 10 * rng.random(drawn)) * DAY_S)
            items.append(Item(f"{genre}-{day}", genre=(genre, "video"), maker="studio", published_at_s=day * DAY_S))
    end_s = max(times_s)
    for genre in ("action", "talk"):
        kinds = (genre, "video")
        items.append(Item(f"new-{genre}", genre=kinds, maker="studio", published_at_s=end_s))
        items += [
            Item(f"old-{genre}-{n}", genre=kinds, maker="studio", published_at_s=-2_000 * DAY_S) for n in range(20)
        ]
    users = tuple(User(f"u{n}") for n in range(30))
    return Dataset(Catalogue(tuple(items)), users, Interactions.of(np.arange(len(rows)) % 30, rows, times_s))


def foreseen(data: Dataset, found: Premieres) -> dict[str, float]:
    said = found.of(data.catalogue.items, now_s=float(data.interactions.time_s.max()))
    assert said is not None
    return {item.item_id: float(rate) for item, rate in zip(data.catalogue.items, said, strict=True)}


def test_a_premiere_is_expected_to_draw_as_those_of_its_names_did_and_an_old_item_nothing() -> None:
    data = releases()
    found = premieres.fit(data)
    rate = foreseen(data, found)
    assert found.gain > 0.3
    assert rate["new-action"] > 4 * rate["new-talk"]
    assert (
        HIT / 30 < rate["new-action"] < HIT / 10
    )  # a day, while it is new; those of the past came in the middle of the days counted
    assert max(rate["old-action-0"], rate["old-talk-0"]) < rate["new-talk"] / 2


def test_what_is_not_out_yet_counts_as_new_and_an_unknown_date_as_neither() -> None:
    data = releases()
    found, end_s = premieres.fit(data), float(data.interactions.time_s.max())
    now, later, unknown = (Item("x", genre=("action",), published_at_s=at) for at in (end_s, end_s + 9 * DAY_S, None))
    rates = found.of([now, later, unknown], now_s=end_s)
    assert rates is not None
    assert rates[0] == rates[1]
    assert np.isfinite(rates).all()


@pytest.mark.parametrize("case", ["nothing happened", "one moment", "few events"])
def test_where_there_is_too_little_nothing_is_foreseen(case: str) -> None:
    whole = releases()
    kept = {
        "nothing happened": np.zeros(0, np.intp),
        "one moment": np.zeros(9, np.intp),
        "few events": np.arange(0, len(whole.interactions), 100),
    }[case]
    found = premieres.fit(whole.with_interactions(whole.interactions.take(kept)))
    assert found.is_empty
    assert len(found) == len(whole.catalogue)
    assert found.of(whole.catalogue.items, now_s=0.0) is None


def test_only_what_nobody_has_touched_is_raised_and_nothing_is_lowered() -> None:
    counts = np.array([0.0, 0.0, 0.5, 4.0], np.float32)
    expected = np.array([3.0, 0.001, 3.0, 3.0], np.float32)
    plain = np.exp(log_prior(counts, smoothing=0.1, weight=1.0))
    raised = np.exp(log_prior(counts, smoothing=0.1, weight=1.0, foreseen=expected))
    assert (raised * 4.1).tolist() == pytest.approx([3.0, 0.1, 0.6, 4.1], rel=1e-5)
    assert raised[1:].tolist() == plain[1:].tolist()


def test_a_rate_becomes_the_count_that_it_keeps_up() -> None:
    prior = Prior(half_life_days=3.0)
    days = np.arange(0, 200, 0.001)
    kept_up = float(np.exp2(-days / 3.0).sum() * 0.001 * 5.0)  # five events a day, for ever
    assert prior.counts_of(np.array([5.0]))[0] == pytest.approx(kept_up, rel=1e-3)


def test_a_bundle_keeps_what_is_foreseen_and_an_item_that_came_later_has_its_share(tmp_path: Path) -> None:
    data = releases()
    found = premieres.fit(data)
    towers = world()
    trained = train(towers, SMALL)
    parts = np.zeros((len(towers.catalogue), 2), np.float32)
    folder = write_bundle(replace(trained, premieres=replace(found, parts=parts)), towers, tmp_path / "bundle")
    model = ServingModel.load(folder, 1)
    late = Entry(
        Item("late", genre=("action", "video"), maker="studio", published_at_s=4e9), content_hash="later"
    )  # still new
    shelf = Shelf().with_entries([late, *map(Entry, towers.catalogue.items)], revision=1)
    extra = {late.item.item_id: Embedded(model.embed_items([late.item])[0], "later")}
    aligned = align(model, shelf, extra, generation=0)
    assert aligned.foreseen is not None
    expected = found.of([late.item], now_s=0.0)
    assert expected is not None
    assert aligned.foreseen[0] == pytest.approx(float(expected[0]), rel=1e-4)
    assert aligned.foreseen[0] > 10 * aligned.foreseen[1:].max()

    (folder / premieres.FILE).unlink()  # as in a bundle of before
    assert LoadedModel.load(folder).premieres.is_empty
    replace(found, parts=parts[:-1]).write(folder / premieres.FILE)
    with pytest.raises(BundleUnreadable, match="different lengths"):
        LoadedModel.load(folder)
    replace(found, parts=parts, named=found.named[:-1]).write(folder / premieres.FILE)
    with pytest.raises(BundleUnreadable, match="weights of other names"):
        LoadedModel.load(folder)
