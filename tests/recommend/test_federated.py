"""Sites learn from their own people, weights alone travel, and the averaged tower is better than the one they began with."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from tests.recommend.taste_world import world
from tests.recommend.test_training_loop import SMALL

from genba_recommend.dataset import Split, split_by_time
from genba_recommend.federated import (
    FarSite,
    FederatedConfig,
    Learner,
    NearSite,
    Outset,
    SiteGone,
    averaged,
    clipped,
    federate,
    split_by_site,
)
from genba_recommend.metrics import quality, questions, rank
from genba_recommend.scoring import latest_vectors, tower_scores
from genba_recommend.training_loop import Trained, train
from genba_recommend.two_tower import TwoTower, user_vectors

ROUNDS = FederatedConfig(rounds=4, share=1.0, steps=8, learning_rate=3e-3, clip_norm=5.0)


@pytest.fixture(scope="module")
def split() -> Split:
    return split_by_time(world(n_events=4_000, n_items=120, n_users=150, seed=3))


@pytest.fixture(scope="module")
def trained(split: Split) -> Trained:
    """Towers whose user tower has forgotten everything, so that there is something to learn."""
    found = train(split.train, replace(SMALL, max_epochs=3))
    torch.manual_seed(1)
    fresh = TwoTower(found.model.config, found.model.sizes)
    found.model.user_tower.load_state_dict(
        {name: x + 0.3 * torch.randn_like(x) for name, x in fresh.user_tower.state_dict().items()}
    )
    return found


def outset(trained: Trained, config: FederatedConfig = ROUNDS) -> Outset:
    return Outset(save(trained.model.state_dict()), trained.encoders, trained.config, config, 7.0)


def ndcg(trained: Trained, split: Split, tower: dict[str, torch.Tensor]) -> float:
    model = TwoTower(trained.model.config, trained.model.sizes)
    model.load_state_dict(trained.model.state_dict())
    model.user_tower.load_state_dict(tower)
    asked = questions(split)
    users = latest_vectors(
        lambda features, table: user_vectors(model, features, table),
        trained.encoders, trained.items, trained.vectors, split.train, asked.users,
    )  # fmt: skip
    return float(quality(rank(tower_scores(users, trained.vectors, temperature=0.07), asked), asked).ndcg_at_10.mean())


def test_the_averaged_tower_lists_better_than_the_one_they_began_with(split: Split, trained: Trained) -> None:
    before = trained.model.user_tower.state_dict()
    sites = [NearSite(own, outset(trained)) for own in split_by_site(split.train, 5)]
    found = federate(before, sites, ROUNDS)
    assert [each.sites for each in found.rounds] == [5] * 4
    assert found.rounds[-1].loss < found.rounds[0].loss
    assert ndcg(trained, split, found.user_tower) > 1.2 * ndcg(trained, split, dict(before))


@pytest.fixture
def two_processes(split: Split, trained: Trained) -> Iterator[list[FarSite]]:
    sites = [FarSite(own, outset(trained)) for own in split_by_site(split.train, 2)]
    yield sites
    for site in sites:
        site.close()


def test_two_processes_of_their_own_do_what_two_sites_here_do(
    split: Split, trained: Trained, two_processes: list[FarSite]
) -> None:
    before, brief = trained.model.user_tower.state_dict(), replace(ROUNDS, rounds=2)
    assert len({os.getpid(), *(site.pid for site in two_processes)}) == 3
    far = federate(before, two_processes, brief)
    near = federate(before, [NearSite(own, outset(trained)) for own in split_by_site(split.train, 2)], brief)
    for name, x in near.user_tower.items():
        torch.testing.assert_close(far.user_tower[name], x, rtol=0, atol=1e-5)
    assert [each.received_bytes for each in far.rounds] == [each.received_bytes for each in near.rounds]


def test_a_site_that_is_killed_is_left_out_and_the_others_go_on(trained: Trained, two_processes: list[FarSite]) -> None:
    def kill(round_: object) -> None:
        if two_processes[1].pid is not None and getattr(round_, "number", 0) == 1:
            os.kill(two_processes[1].pid, signal.SIGKILL)

    found = federate(trained.model.user_tower.state_dict(), two_processes, replace(ROUNDS, rounds=3), on_round=kill)
    assert [(each.sites, each.lost) for each in found.rounds] == [(2, 0), (1, 1), (1, 0)]
    assert two_processes[0].pid is not None
    os.kill(two_processes[0].pid, signal.SIGKILL)
    with pytest.raises(SiteGone):
        federate(trained.model.user_tower.state_dict(), two_processes[:1], replace(ROUNDS, rounds=1))


def test_only_a_clipped_change_and_two_numbers_leave_a_site(split: Split, trained: Trained) -> None:
    own = split_by_site(split.train, 5)[0]
    tower = trained.model.user_tower.state_dict()
    said = load(Learner(own, outset(trained, replace(ROUNDS, clip_norm=0.01))).learn(0, save(tower)))
    assert set(said) == {*tower, "places", "loss"}
    length = torch.sqrt(sum((said[name].square().sum() for name in tower), torch.zeros(())))
    assert float(length) == pytest.approx(0.01, rel=1e-4)


def test_every_user_is_at_one_site_and_sites_without_events_are_none(split: Split) -> None:
    parts = split_by_site(split.train, 7)
    users = [set(part.interactions.user.tolist()) for part in parts]
    assert sum(map(len, users)) == len(set().union(*users))
    assert sum(len(part.interactions) for part in parts) == len(split.train.interactions)
    few = split.train.with_interactions(split.train.interactions.take(slice(0, 10)))
    assert split_by_site(few, 3) == []
    with pytest.raises(ValueError, match="no site"):
        federate({}, [], ROUNDS)


def test_sites_count_by_their_moments_and_with_noise_alike() -> None:
    changes = [{"x": torch.tensor([1.0])}, {"x": torch.tensor([4.0])}]
    assert averaged(changes, [2, 1], ROUNDS, seed=0)["x"].item() == pytest.approx(2.0)
    noisy = replace(ROUNDS, noise=0.5, clip_norm=2.0)
    drawn = np.array([averaged(changes, [2, 1], noisy, seed=n)["x"].item() for n in range(2_000)])
    assert drawn.mean() == pytest.approx(2.5, abs=0.05)
    assert drawn.std() == pytest.approx(0.5 * 2.0 / 2, abs=0.03)
    assert clipped(changes[1], 10.0) == changes[1]


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"rounds": 0}, {"clip_norm": 0.0}, {"noise": -1.0}])
def test_what_cannot_be_run_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(ROUNDS, **wrong)  # type: ignore[arg-type]


def test_a_site_has_the_catalogue_and_its_own_people_only(split: Split) -> None:
    for part in split_by_site(split.train, 3):
        assert part.catalogue == split.train.catalogue
        own = set(part.interactions.user.tolist())
        assert all(part.users[row].user_id for row in own)
    named = [sum(bool(user.user_id) for user in part.users) for part in split_by_site(split.train, 3)]
    assert sum(named) == len(split.train.users)
