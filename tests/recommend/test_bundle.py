"""A bundle holds all that serving needs, says what training said, and is refused when something is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.recommend.taste_world import world
from tests.recommend.test_training_loop import SMALL

from genba_recommend.bundle import BundleUnreadable, LoadedModel, write_bundle
from genba_recommend.dataset import Dataset, Item
from genba_recommend.export import Bundle, export
from genba_recommend.features import latest_windows, no_history
from genba_recommend.scoring import latest_vectors
from genba_recommend.training_config import TrainingConfig
from genba_recommend.training_loop import Trained, train
from genba_recommend.two_tower import user_vectors
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
