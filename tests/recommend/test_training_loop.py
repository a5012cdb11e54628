"""Training learns taste, stops when told, and goes on from a checkpoint as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.recommend.taste_world import world

from genba_recommend.adam import Adam
from genba_recommend.dataset import Dataset, Interactions, split_by_time
from genba_recommend.features import EncoderConfig
from genba_recommend.metrics import questions
from genba_recommend.prior import everybody
from genba_recommend.scoring import judge, latest_vectors, popularity_now, tower_scores, with_prior
from genba_recommend.training_config import TowerConfig, TrainingConfig, hinge_config
from genba_recommend.training_loop import Hooks, NoGpu, TooFewEvents, Trained, find_device, train
from genba_recommend.two_tower import parameters, user_vectors
from genba_shared.recipe import Checkpoint

SMALL = TrainingConfig(
    towers=TowerConfig(dim=16, hidden=16, history_len=12),
    encoders=EncoderConfig(history_len=12, text_buckets=64),
    max_epochs=3,
    places_per_epoch=1_000,
    batch=64,
    uniform_negatives=32,
    hard_negatives=4,
    skip_days=5,
    half_lives_days=(3.0, 14.0),
    prior_weights=(0.0, 0.5, 1.0),
)
STEPS_AN_EPOCH = 1_000 // 64


class Killed(Exception):
    pass


def killed_after(steps: int, checkpoint: Checkpoint) -> Hooks:
    """A run that checkpoints after every step and dies after some."""
    left = [steps]

    def progress(_share: float, _what: str) -> None:
        left[0] -= 1
        if not left[0]:
            raise Killed

    return Hooks(progress=progress, checkpoint=checkpoint, checkpoint_every_s=0.0)


def same(one: Trained, other: Trained) -> bool:
    ours, theirs = parameters(one.model), parameters(other.model)
    return (
        one.metrics == other.metrics
        and one.epochs == other.epochs
        and (one.prior, one.blend) == (other.prior, other.blend)
        and np.array_equal(one.neighbours.weight, other.neighbours.weight)
        and all(np.array_equal(ours[name], theirs[name]) for name in ours)
        and np.array_equal(one.vectors, other.vectors)
    )


@pytest.fixture(scope="module")
def data() -> Dataset:
    return world()


@pytest.fixture(scope="module")
def trained(data: Dataset) -> Trained:
    return train(data, SMALL)


@pytest.mark.parametrize("config", [SMALL, hinge_config(SMALL)], ids=["softmax", "hinge"])
def test_towers_learn_who_likes_what_where_popularity_cannot(config: TrainingConfig) -> None:
    split = split_by_time(world(n_events=3_000, n_items=200, n_users=150, seed=1))
    found = train(split.train, config)
    asked = questions(split)
    users = latest_vectors(
        lambda features, table: user_vectors(found.model, features, table),
        found.encoders,
        found.items,
        found.vectors,
        split.train,
        asked.users,
    )
    popular = popularity_now(found.prior, split.train.interactions, n_items=200)
    ours = with_prior(tower_scores(users, found.vectors, temperature=0.07), popular, found.prior.weight)
    judged = judge({"ours": ours, "popularity": everybody(popular)}, asked)
    assert judged.against["popularity"].p < 0.01
    assert judged.measures["ours"].ndcg_at_10.mean() > 1.25 * judged.measures["popularity"].ndcg_at_10.mean()


@pytest.mark.parametrize("steps", [5, 20, 50])
def test_a_run_killed_in_any_epoch_and_resumed_ends_with_the_same_bits(
    steps: int, data: Dataset, trained: Trained, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        train(data, SMALL, killed_after(steps, Checkpoint(tmp_path, attempt=1)))
    seen: list[float] = []
    again = Hooks(progress=lambda share, _: seen.append(share), checkpoint=Checkpoint(tmp_path, attempt=2))
    resumed = train(data, SMALL, again)
    assert same(resumed, trained)
    assert len(seen) == STEPS_AN_EPOCH * len(trained.epochs) - (steps - 1)  # it went on, and did not begin anew


def test_a_long_log_is_learnt_from_as_a_whole_too_and_a_run_killed_there_ends_with_the_same_bits(
    tmp_path: Path,
) -> None:
    data, brief = world(days=400.0), replace(SMALL, max_epochs=2)
    whole = train(data, brief)
    epochs = [epoch["epoch"] for epoch in whole.epochs]
    assert epochs[:4] == [1, 2, 1, 2]  # recent moments, then all of the log, then what was better anew
    assert len(epochs) == 4 + whole.metrics["best_epoch"]
    with pytest.raises(Killed):
        train(data, brief, killed_after(3 * STEPS_AN_EPOCH, Checkpoint(tmp_path, attempt=1)))
    shares: list[float] = []
    again = Hooks(progress=lambda share, _: shares.append(share), checkpoint=Checkpoint(tmp_path, attempt=2))
    assert same(train(data, brief, again), whole)
    assert shares == sorted(shares)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(data: Dataset, trained: Trained) -> None:
    torch.rand(3)  # nothing depends on the global generator
    assert same(train(data, SMALL), trained)
    assert not same(train(data, replace(SMALL, seed=1)), trained)


def test_a_checkpoint_of_other_data_or_another_configuration_is_not_taken_up(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(data, SMALL, killed_after(5, Checkpoint(tmp_path)))
    other = replace(SMALL, max_epochs=1)
    seen: list[float] = []
    train(data, other, Hooks(progress=lambda share, _: seen.append(share), checkpoint=Checkpoint(tmp_path)))
    assert seen[0] == pytest.approx(0.5 / STEPS_AN_EPOCH)


def test_progress_rises_to_the_end_and_every_epoch_is_logged(data: Dataset) -> None:
    shares: list[float] = []
    logged: list[tuple[int, Mapping[str, float]]] = []
    train(data, SMALL, Hooks(lambda share, _: shares.append(share), lambda step, m: logged.append((step, m))))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert logged[0][1]["loss"] > logged[2][1]["loss"]
    assert all(0 < epoch["ndcg_at_10"] < 1 for _, epoch in logged[:3])


def test_too_few_likes_say_how_many_are_needed(data: Dataset) -> None:
    few = data.with_interactions(data.interactions.take(slice(0, 150)))
    with pytest.raises(TooFewEvents, match="needs 200 positive events, found 150"):
        train(few, SMALL)


def test_a_log_in_which_nobody_comes_back_is_trained_without_questions() -> None:
    data = world()
    once = data.with_interactions(Interactions.of(np.arange(80), np.arange(80) % 60, np.linspace(0, 1e6, 80)))
    found = train(once, replace(SMALL, least_events=50))
    assert np.isfinite(found.vectors).all()
    assert np.isfinite(list(found.metrics.values())).all()


def test_lists_of_different_lengths_for_towers_and_encoders_are_refused() -> None:
    with pytest.raises(ValueError, match="history_len is 12 for the towers and 50"):
        replace(SMALL, encoders=EncoderConfig(history_len=50))


def test_a_configuration_read_from_its_file_is_the_same() -> None:
    assert TrainingConfig.from_json(SMALL.to_json()) == SMALL


def test_adam_moves_as_its_paper_says() -> None:
    start = np.random.default_rng(0).normal(size=(5, 3))
    ours = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    adam = Adam({"x": ours}, learning_rate=0.01)
    theirs, mean, square = start.copy(), np.zeros((5, 3)), np.zeros((5, 3))
    for step in range(1, 21):
        adam.zero_grad()
        ((ours - step / 7) ** 3).sum().backward()
        adam.step()
        gradient = 3 * (theirs - step / 7) ** 2
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        theirs -= 0.01 * mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(ours.detach().numpy(), theirs, atol=1e-5)


def test_auto_takes_a_gpu_where_there_is_one_and_cuda_without_one_is_refused(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("auto") == find_device("cuda") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")
    with pytest.raises(NoGpu, match="no CUDA GPU"):
        train(data, SMALL, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")
def test_a_gpu_learns_as_much_as_the_cpu_and_its_bundle_serves_without_one(data: Dataset, trained: Trained) -> None:
    found = train(data, SMALL, device="cuda")
    assert found.metrics["ndcg_at_10"] == pytest.approx(trained.metrics["ndcg_at_10"], abs=0.05)
    assert all(isinstance(x, np.ndarray) for x in parameters(found.model).values())
