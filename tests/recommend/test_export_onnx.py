"""Exported graphs say what the towers say, in onnxruntime, and stay small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tests.recommend.tower_world import Towers, towers

from genba_recommend.blending import Blend
from genba_recommend.export_onnx import Tables, item_tower, neighbours, round_tables, save, user_tower
from genba_recommend.neighbours import choices, ease
from genba_recommend.training_config import Pooling
from genba_recommend.two_tower import item_vectors
from genba_recommend.user_tower_onnx import OnnxTower, OnnxUserTower


@pytest.fixture(scope="module")
def world() -> Towers:
    return towers()


@pytest.mark.parametrize("pooling", ["three_ways", "mean"])
def test_the_user_tower_agrees_with_torch_within_a_millionth(pooling: Pooling, tmp_path: Path) -> None:
    world = towers(pooling=pooling)
    save(user_tower(world.weights, vectors=world.vectors), tmp_path / "user.onnx")
    found = OnnxTower(tmp_path / "user.onnx").run(world.users.columns())
    np.testing.assert_allclose(found, world.answers, rtol=0, atol=1e-6)


@pytest.mark.parametrize("embedding_len", [0, 5])
def test_the_item_tower_agrees_with_torch_within_a_millionth(embedding_len: int, tmp_path: Path) -> None:
    world = towers(embedding_len=embedding_len)
    save(item_tower(world.weights), tmp_path / "item.onnx")
    found = OnnxTower(tmp_path / "item.onnx").run(world.items.columns())
    np.testing.assert_allclose(found, world.vectors, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("tables", "least_cosine"), [("float16", 0.999999), ("int8", 0.999)])
def test_smaller_tables_compute_exactly_with_what_they_hold_and_stay_near_the_original(
    tables: Tables, least_cosine: float, world: Towers
) -> None:
    found = OnnxTower(item_tower(world.weights, tables=tables).SerializeToString()).run(world.items.columns())
    rounded = towers()
    rounded.model.load_state_dict({k: torch.from_numpy(v) for k, v in round_tables(world.weights, tables).items()})
    np.testing.assert_allclose(found, item_vectors(rounded.model, world.items), rtol=0, atol=1e-6)
    assert (found * world.vectors).sum(1).min() > least_cosine
    users = OnnxTower(user_tower(world.weights, vectors=world.vectors, tables=tables).SerializeToString())
    assert (users.run(world.users.columns()) * world.answers).sum(1).min() > least_cosine


@pytest.mark.parametrize(("tables", "tolerance"), [("float32", 1e-6), ("float16", 2e-3)])
def test_neighbours_lift_as_the_service_does(tables: Tables, tolerance: float, world: Towers) -> None:
    seen = choices(world.dataset.interactions, n_users=40, n_items=80)
    found, blend = ease(seen, penalty=10.0), Blend(neighbours=7.0, fade=0.9)
    graph = neighbours(found.item, found.weight, blend=blend.neighbours, fade=blend.fade, tables=tables)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    history, weight = world.windows.history, world.windows.weight
    [lift] = session.run(("lift",), {"history": history, "weight": weight})
    np.testing.assert_allclose(lift, found.scores(history, blend.of_history(weight)), rtol=0, atol=tolerance)
    assert np.abs(lift[1:]).max() > 0.1
    assert not lift[0].any()  # of somebody without history


def test_a_service_runs_one_user_on_the_vectors_of_their_history_alone(world: Towers, tmp_path: Path) -> None:
    save(user_tower(world.weights), tmp_path / "user_tower.onnx")
    (tmp_path / "encoders.json").write_text(world.encoders.to_json(), "utf-8")
    tower = OnnxUserTower.load(tmp_path)
    for user in (1, 7, 39):
        mine = world.users.take(slice(user, user + 1)).columns()
        rows = mine["history"][0][mine["history"][0] > 0] - 1
        local = np.zeros_like(mine["history"])
        local[0, : len(rows)] = np.arange(1, len(rows) + 1)
        found = tower({**mine, "history": local}, world.vectors[rows])
        np.testing.assert_allclose(found, world.answers[user], rtol=0, atol=1e-6)


def test_a_batch_of_users_is_read_with_the_bundles_own_encoders(world: Towers, tmp_path: Path) -> None:
    save(user_tower(world.weights), tmp_path / "user_tower.onnx")
    (tmp_path / "encoders.json").write_text(world.encoders.to_json(), "utf-8")
    found = OnnxUserTower.load(tmp_path).of(world.dataset.users, world.windows, world.items, world.vectors)
    np.testing.assert_allclose(found, world.answers, rtol=0, atol=1e-6)


def test_a_user_without_history_and_an_empty_catalogue_get_a_vector_and_no_nan(world: Towers) -> None:
    tower = OnnxUserTower(OnnxTower(user_tower(world.weights).SerializeToString()))
    mine = world.users.take(slice(0, 1)).columns()
    found = tower(mine, np.zeros((0, world.vectors.shape[1]), np.float32))
    np.testing.assert_allclose(found, world.answers[0], rtol=0, atol=1e-6)


def test_a_shorter_history_than_the_tower_was_trained_with_is_fine(world: Towers) -> None:
    short = world.users.columns() | {"history": world.users.history[:, :5], "weight": world.users.weight[:, :5]}
    found = OnnxTower(user_tower(world.weights, vectors=world.vectors).SerializeToString()).run(short)
    with torch.inference_mode():
        users = {name: torch.from_numpy(np.ascontiguousarray(column)) for name, column in short.items()}
        table = torch.cat([torch.zeros(1, world.vectors.shape[1]), torch.from_numpy(world.vectors)])
        expected = world.model.user_tower(users, table).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_towers_of_two_hundred_thousand_items_fit_in_fifty_megabytes_each(tmp_path: Path) -> None:
    world = towers()
    rng = np.random.default_rng(0)
    weights = world.weights
    dim = 64
    grown = {name: _grown(value, dim) for name, value in weights.items()}
    grown["item_tower.id.weight"] = rng.normal(size=(200_001, dim)).astype(np.float32)
    grown["item_tower.performers.weight"] = rng.normal(size=(20_002, dim)).astype(np.float32)
    grown["item_tower.text.weight"] = rng.normal(size=(4_097, dim)).astype(np.float32)
    vectors = rng.normal(size=(200_000, dim)).astype(np.float32)
    user_bytes = save(user_tower(grown, vectors=vectors, tables="float16"), tmp_path / "user.onnx")
    item_bytes = save(item_tower(grown, tables="float16"), tmp_path / "item.onnx")
    assert user_bytes <= 50_000_000
    assert item_bytes <= 50_000_000
    assert save(user_tower(grown, vectors=vectors, tables="int8"), tmp_path / "small.onnx") <= 15_000_000
    assert OnnxTower(tmp_path / "item.onnx").run(world.items.columns()).shape == (80, dim)


def test_serving_loads_no_torch() -> None:
    code = "import sys, genba_recommend.user_tower_onnx; sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_graph_with_its_vectors_inside_is_refused_as_a_services_tower(world: Towers) -> None:
    with pytest.raises(ValueError, match="item vectors"):
        OnnxUserTower(OnnxTower(user_tower(world.weights, vectors=world.vectors).SerializeToString()))


def _grown(
    value: np.ndarray[tuple[int, ...], np.dtype[np.float32]], dim: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The same weight for towers of ``dim`` instead of 16, tiled."""
    times = [dim // 16 if size in {16, 32, 48} else 1 for size in value.shape]
    return np.tile(value, times)
