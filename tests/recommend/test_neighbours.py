"""Item-item weights are what their formulas say, and one history's lift is what a batch computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.recommend.taste_world import world

from genba_recommend import neighbours as module
from genba_recommend.dataset import Interactions
from genba_recommend.neighbours import Neighbours, choices, ease, item_knn, low_rank

N_USERS, N_ITEMS = 80, 60


def seen_of() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(choices(world().interactions, n_users=N_USERS, n_items=N_ITEMS).toarray())


def dense(found: Neighbours) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    out = np.zeros((len(found), len(found)))
    np.add.at(out, (np.arange(len(found))[:, None], found.item), found.weight)
    return out


def test_item_knn_is_the_shrunk_cosine_of_co_choice() -> None:
    seen = choices(world().interactions, n_users=N_USERS, n_items=N_ITEMS)
    x = seen_of().astype(np.float64)
    together = x.T @ x
    norm = np.sqrt(np.diag(together))
    expected = together / (np.outer(norm, norm) + 10.0)
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(dense(item_knn(seen)), expected, atol=1e-6)


def test_ease_gives_each_item_back_from_the_others_as_well_as_a_ridge_regression_does() -> None:
    x, penalty = seen_of().astype(np.float64), 20.0
    found = dense(ease(choices(world().interactions, n_users=N_USERS, n_items=N_ITEMS), penalty=penalty))
    for item in (0, 17, 59):
        others = np.delete(np.arange(N_ITEMS), item)
        a = x[:, others]
        expected = np.linalg.solve(a.T @ a + penalty * np.eye(len(others)), a.T @ x[:, item])
        np.testing.assert_allclose(found[others, item], expected, atol=1e-4)
        assert found[item, item] == 0.0


def test_low_rank_weights_are_those_of_the_strongest_directions() -> None:
    x = seen_of().astype(np.float64)
    found = low_rank(choices(world().interactions, n_users=N_USERS, n_items=N_ITEMS), rank=5)
    _, _, directions = np.linalg.svd(x, full_matrices=False)
    expected = directions[:5].T @ directions[:5]
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(dense(found), expected, atol=1e-5)
    again = low_rank(choices(world().interactions, n_users=N_USERS, n_items=N_ITEMS), rank=5)
    np.testing.assert_array_equal(again.weight, found.weight)


def test_only_the_strongest_neighbours_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = choices(world().interactions, n_users=N_USERS, n_items=N_ITEMS)
    whole = dense(item_knn(seen))
    monkeypatch.setattr(module, "MOST_PAIRS", 20 * N_ITEMS)
    few = item_knn(seen)
    assert few.item.shape == (N_ITEMS, 20)
    np.testing.assert_allclose(np.sort(few.weight, 1), np.sort(whole, 1)[:, -20:], atol=1e-6)
    assert ease(seen, penalty=100.0).item.shape == (N_ITEMS, 20)


def test_a_user_who_chose_everything_counts_by_the_newest_choices_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CHOICES", 3)
    events = Interactions.of([0] * 6 + [1], [0, 1, 2, 3, 4, 5, 0], [1, 2, 3, 4, 5, 6, 7])
    np.testing.assert_array_equal(
        choices(events, n_users=2, n_items=6).toarray(), [[0, 0, 0, 1, 1, 1], [1, 0, 0, 0, 0, 0]]
    )


def test_one_history_is_lifted_as_it_is_in_a_batch() -> None:
    found = ease(choices(world().interactions, n_users=N_USERS, n_items=N_ITEMS), penalty=100.0)
    history = np.array([[3, 8, 60, 0], [0, 0, 0, 0]], np.int32)
    weight = np.array([[1.0, 0.5, 0.2, 0.0], [0, 0, 0, 0]], np.float32)
    batch = found.scores(history, weight)
    rows, by = found.spoken_for(history[0, :3] - 1, weight[0, :3])
    one = np.zeros(N_ITEMS, np.float32)
    one[rows] = by
    np.testing.assert_allclose(batch[0], one, atol=1e-6)
    assert np.all(np.diff(rows) > 0)
    assert not batch[1].any()


def test_neighbours_move_to_another_catalogue_and_to_a_file_and_back(tmp_path: Path) -> None:
    found = Neighbours(
        np.array([[1, 2], [0, 2], [0, 1]], np.int32), np.array([[0.5, 0.4], [0.3, 0.2], [0.1, 0.6]], np.float32)
    )
    moved = dense(found.onto(np.array([4, -1, 0]), 5))  # the second item is gone
    expected = np.zeros((5, 5))
    expected[4, 0], expected[0, 4] = 0.4, 0.1
    np.testing.assert_allclose(moved, expected, atol=1e-7)
    found.write(tmp_path / "neighbours.npz")
    again = Neighbours.read(tmp_path / "neighbours.npz", 3)
    np.testing.assert_array_equal(again.item, found.item)
    np.testing.assert_array_equal(again.weight, found.weight)
    assert Neighbours.read(tmp_path / "nothing.npz", 3).is_empty


def test_a_log_in_which_nobody_shares_anything_has_no_neighbours() -> None:
    seen = choices(Interactions.of([0, 1, 2], [0, 1, 2], [1, 2, 3]), n_users=3, n_items=3)
    assert item_knn(seen).is_empty
    assert ease(seen, penalty=100.0).is_empty
    assert low_rank(seen, rank=16).is_empty
