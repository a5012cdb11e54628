"""A bundle holds all that serving needs, says what training said, and is refused when something is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.recommend.taste_world import world
from tests.recommend.test_training_loop import SMALL

from genba_recommend import lists, scoring
from genba_recommend.blending import Blend
from genba_recommend.bundle import BundleUnreadable, LoadedModel, write_bundle
from genba_recommend.catalogue import Entry, Shelf, Wanted
from genba_recommend.data import first_of_each
from genba_recommend.dataset import Catalogue, Dataset, Item
from genba_recommend.explaining import explain
from genba_recommend.export import Bundle, export
from genba_recommend.features import FIRST_KNOWN, latest_windows, no_history
from genba_recommend.lists import Ask, for_person
from genba_recommend.people import Did, Person
from genba_recommend.prior import Prior
from genba_recommend.reranker_fitting import look
from genba_recommend.scoring import latest_vectors, served, tower_scores
from genba_recommend.serving_model import ServingModel, align
from genba_recommend.training_config import TrainingConfig
from genba_recommend.training_loop import Trained, train
from genba_recommend.tuning import fit_neighbours
from genba_recommend.two_tower import user_vectors
from genba_recommend.view import View, nobody_alike
from genba_shared.artifacts import Artifacts
from genba_shared.bundles import store


@pytest.fixture(scope="module")
def data() -> Dataset:
    return world()


@pytest.fixture(scope="module")
def trained(data: Dataset) -> Trained:
    return train(data, SMALL)


@pytest.fixture
def folder(data: Dataset, trained: Trained, tmp_path: Path) -> Path:
    return write_bundle(trained, data, tmp_path / "bundle")


def test_a_loaded_model_says_what_training_said(data: Dataset, trained: Trained, folder: Path) -> None:
    model = LoadedModel.load(folder)
    assert model.metrics == trained.metrics
    assert model.prior == trained.prior
    assert model.data_hash == data.data_hash
    assert model.row_by_id["i7"] == 7
    np.testing.assert_allclose(model.embed_items(data.catalogue.items), trained.vectors, rtol=0, atol=1e-6)
    everybody = np.arange(len(data.users))
    windows = latest_windows(data.histories, everybody, length=12)
    features = trained.encoders.users(data.users, windows, trained.items)
    expected = user_vectors(trained.model, features, trained.vectors)
    np.testing.assert_allclose(model.embed_users(data.users, windows), expected, rtol=0, atol=1e-6)
    found = latest_vectors(model.embed_features, model.encoders, model.items, model.vectors, data, everybody)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def with_neighbours(trained: Trained, data: Dataset) -> Trained:
    """The same model, weighed as on data where neighbours help."""
    blend = Blend(towers=0.8, doubt=3.0, neighbours=16.0, fade=0.9, kind="ease_100")
    found = fit_neighbours(blend.kind, data.interactions, n_users=len(data.users), n_items=len(data.catalogue))
    prior = Prior(half_life_days=7.0, weight=0.5)
    return replace(trained, blend=blend, first_blend=blend, neighbours=found, prior=prior, first_prior=prior)


def with_reranker(trained: Trained, data: Dataset) -> Trained:
    """The same model with a second stage that says much."""
    found = look(data, trained.items, n_genres=len(trained.encoders.genres) + FIRST_KNOWN)
    weights = np.array([1.5, 1.0, 5.0, -3.0], np.float32)
    return replace(trained, blend=replace(trained.blend, reranker=0.75), reranker=replace(found, weights=weights))


@pytest.mark.parametrize("stages", ["first", "both"])
def test_a_list_and_its_explanation_are_made_of_the_scores_that_were_tuned(
    stages: str, data: Dataset, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "SHORTLIST", 25)  # of 60
    monkeypatch.setattr(scoring, "SHORTLIST", 25)
    data = data.with_interactions(first_of_each(data.interactions))  # as training reads them from a database
    dated = [replace(item, published_at_s=-4e7 * row) for row, item in enumerate(data.catalogue.items)]
    data = Dataset(Catalogue(tuple(dated)), data.users, data.interactions)
    trained = with_neighbours(trained, data)
    if stages == "both":
        trained = with_reranker(trained, data)
    folder = write_bundle(trained, data, tmp_path / "bundle")
    model = ServingModel.load(folder, 1)
    # The shelf has the items in another order and one that the bundle does not know.
    order = np.random.default_rng(0).permutation(len(data.catalogue))
    items = [data.catalogue.items[row] for row in order]
    shelf = Shelf().with_entries([Entry(Item("unknown")), *map(Entry, items)], revision=1)
    place = {item.item_id: row for row, item in enumerate(data.catalogue.items)}
    events, now_s = data.interactions, float(data.interactions.time_s.max())
    log_popularity = trained.prior.scores(events, n_items=len(place), now_s=now_s)
    bias = np.concatenate([[0.0], log_popularity[order]]).astype(np.float32)
    aligned = replace(align(model, shelf, {}, generation=0), bias=bias)
    zeros = np.zeros(len(shelf), np.float32)
    view = View(shelf, zeros, zeros, nobody_alike, models={1: aligned}, champion=1, now_s=now_s)

    everybody = np.arange(len(data.users))
    loaded = model.loaded
    vectors = latest_vectors(loaded.embed_features, loaded.encoders, loaded.items, loaded.vectors, data, everybody)
    towers = tower_scores(vectors, loaded.vectors, temperature=loaded.temperature)
    scores = served(towers, trained, trained.neighbours, trained.reranker, data)(
        everybody
    )  # (U, N) of the dataset's rows
    for user in (0, 1, 40):
        mine = data.histories.of(user)
        ids = [data.catalogue.items[item].item_id for item in data.histories.item[mine]]
        person = Person(data.users[user])
        for item_id, at_s, weight in zip(ids, data.histories.time_s[mine], data.histories.weight[mine], strict=True):
            row = shelf.row(item_id)
            assert row is not None
            person = person.after((row, Did(float(at_s), float(weight), None, seen=True)))
        made = for_person(view, person, Ask(Wanted(), k=10), np.random.default_rng(0))
        expected = scores[user].copy()
        expected[[place[item_id] for item_id in ids]] = -np.inf
        best = np.argsort(-expected, kind="stable")[:10]
        assert [each.item_id for each in made.items] == [data.catalogue.items[row].item_id for row in best]
        np.testing.assert_allclose([each.score for each in made.items], expected[best], atol=1e-3)
        row = made.rows[0]
        titles = ["", *(item.title for item in items)]
        told = explain(aligned, person, row, ids=shelf.ids, titles=titles, now_s=now_s)
        assert told.score == pytest.approx(made.items[0].score, abs=1e-3)
        assert any(each.part == "history_item" and each.by > 0 for each in told.moved)


def test_a_new_item_lies_among_those_of_its_genre(data: Dataset, folder: Path) -> None:
    model = LoadedModel.load(folder)
    vector = model.embed_items([Item("new", title="作品 新", genre=("g2",), maker="m1")])[0]
    likeness = model.vectors @ vector
    assert likeness[2::4].mean() > max(likeness[group::4].mean() for group in (0, 1, 3)) + 0.1


def test_a_user_without_history_or_profile_has_a_vector(data: Dataset, folder: Path) -> None:
    vector = LoadedModel.load(folder).embed_users(data.users[:1], no_history(1, length=12))
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_the_folder_can_be_registered_and_exported(folder: Path, tmp_path: Path) -> None:
    bundle = Bundle.read(folder)
    assert bundle.has("user_tower")
    assert bundle.has("item_tower")
    assert export(folder, "onnx", tmp_path / "out").total_bytes > 0
    assert TrainingConfig.from_json((folder / "config.json").read_text("utf-8")) == SMALL
    stored = store(folder, Artifacts(str(tmp_path / "artifacts")))
    assert {"bundle.json", "user_tower.onnx", "vectors.npy"} <= set(stored.files)


def test_what_is_exported_is_the_first_stage_weighed_as_it_is_best_alone(
    data: Dataset, trained: Trained, tmp_path: Path
) -> None:
    alone = with_neighbours(trained, data)
    both = replace(with_reranker(alone, data), prior=Prior(half_life_days=2.0, weight=1.0))
    both = replace(both, blend=replace(both.blend, towers=0.25))
    one, other = (Bundle.read(write_bundle(each, data, tmp_path / str(n))) for n, each in enumerate((alone, both)))
    assert other.blend == one.blend == alone.blend
    np.testing.assert_array_equal(other.prior, one.prior)
    assert LoadedModel.load(tmp_path / "1").blend == both.blend


def test_neighbours_come_back_as_they_were_written_and_torn_ones_are_refused(
    data: Dataset, trained: Trained, tmp_path: Path
) -> None:
    trained = with_neighbours(trained, data)
    folder = write_bundle(trained, data, tmp_path / "bundle")
    model = LoadedModel.load(folder)
    assert model.blend == trained.blend
    np.testing.assert_array_equal(model.neighbours.weight, trained.neighbours.weight)
    torn = folder / "neighbours.npz"
    torn.write_bytes(torn.read_bytes()[:100])
    with pytest.raises(BundleUnreadable):
        LoadedModel.load(folder)


def test_a_torn_second_stage_or_one_of_another_catalogue_is_refused(
    data: Dataset, trained: Trained, tmp_path: Path
) -> None:
    trained = with_reranker(trained, data)
    folder = write_bundle(trained, data, tmp_path / "bundle")
    found = LoadedModel.load(folder).reranker
    np.testing.assert_array_equal(found.weights, trained.reranker.weights)
    file = folder / "reranker.npz"
    replace(found, direction=found.direction[:-1]).write(file)
    with pytest.raises(BundleUnreadable, match="different lengths"):
        LoadedModel.load(folder)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BundleUnreadable):
        LoadedModel.load(folder)


def test_a_bundle_of_before_neighbours_serves_as_it_did(folder: Path) -> None:
    manifest = json.loads((folder / "bundle.json").read_text("utf-8"))
    del manifest["blend"], manifest["first_stage"]
    (folder / "bundle.json").write_text(json.dumps(manifest))
    for name in ("neighbours.npz", "reranker.npz"):
        (folder / name).unlink(missing_ok=True)
    model = LoadedModel.load(folder)
    assert model.blend.towers_at(np.array([1, 50])).tolist() == [1.0, 1.0]
    assert model.neighbours.is_empty
    assert model.reranker.is_empty


@pytest.mark.parametrize("name", ["bundle.json", "encoders.json", "vectors.npy", "items.npz", "user_tower.onnx"])
def test_a_bundle_without_one_of_its_files_is_refused(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleUnreadable):
        LoadedModel.load(folder)


@pytest.mark.parametrize("name", ["bundle.json", "encoders.json", "vectors.npy", "items.npz", "user_tower.onnx"])
def test_a_bundle_with_a_torn_file_is_refused(name: str, folder: Path) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(BundleUnreadable):
        LoadedModel.load(folder)


def test_a_bundle_of_another_catalogue_is_not_written(data: Dataset, trained: Trained, tmp_path: Path) -> None:
    fewer = Dataset(type(data.catalogue)(data.catalogue.items[:-1]), data.users, data.interactions.take(slice(0, 0)))
    with pytest.raises(ValueError, match="knows 60 items, the catalogue has 59"):
        write_bundle(trained, fewer, tmp_path / "bundle")
