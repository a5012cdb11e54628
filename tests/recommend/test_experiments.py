"""Arms by hash, and an analysis that finds what is there and nothing where nothing is."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest

from genba_recommend.analysis import Sums, difference, rate, sample_ratio_p
from genba_recommend.experiments import Arm, Experiment, assign, bucket

USERS = [f"u{n:06d}" for n in range(10_000)]


def experiment(name: str = "exp_1", *, share: float = 1.0, weights: tuple[float, ...] = (1, 1)) -> Experiment:
    arms = tuple(Arm(f"arm{n}", weight) for n, weight in enumerate(weights))
    return Experiment(name, name, "running", share, arms, datetime.now(UTC))


@pytest.mark.parametrize("weights", [(1, 1), (1, 1, 1), (0.9, 0.1), (5, 3, 2)])
@pytest.mark.parametrize("name", ["exp_a", "exp_b", "exp_c"])
def test_ten_thousand_users_split_within_a_point_of_the_weights(name: str, weights: tuple[float, ...]) -> None:
    found = [experiment(name, weights=weights).arm_of(user) for user in USERS]
    for n, weight in enumerate(weights):
        part = sum(arm is not None and arm.name == f"arm{n}" for arm in found) / len(USERS)
        assert part == pytest.approx(weight / sum(weights), abs=0.01)


def test_a_user_stays_in_the_arm_across_restarts() -> None:
    here = [getattr(experiment("exp_x", weights=(2, 3, 5)).arm_of(user), "name", None) for user in USERS[:500]]
    code = (
        "from datetime import UTC, datetime\n"
        "from genba_recommend.experiments import Arm, Experiment\n"
        "arms = tuple(Arm(f'arm{n}', w) for n, w in enumerate((2, 3, 5)))\n"
        "e = Experiment('exp_x', 'another name', 'running', 1.0, arms, datetime.now(UTC))\n"
        "print(','.join(e.arm_of(f'u{n:06d}').name for n in range(500)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip().split(",") == here


def test_arms_of_two_experiments_and_who_takes_part_are_independent() -> None:
    first, second = experiment("exp_1", share=0.4), experiment("exp_2")
    taking_part = [user for user in USERS if first.arm_of(user)]
    assert len(taking_part) / len(USERS) == pytest.approx(0.4, abs=0.01)
    both = sum(
        getattr(first.arm_of(user), "name", 1) == getattr(second.arm_of(user), "name", 2) for user in taking_part
    )
    assert both / len(taking_part) == pytest.approx(0.5, abs=0.03)
    assert assign([first, second], taking_part[0]) == (first, first.arm_of(taking_part[0]))
    assert 0 <= bucket("a", "b") < 1


def people(rng: np.random.Generator, n: int, chance: float) -> Sums:
    """Users who are shown different numbers of items, and click on each with a chance of their own around ``chance``."""
    shown = rng.integers(5, 60, n)
    own = rng.beta(20 * chance, 20 * (1 - chance), n)
    return Sums(rng.binomial(shown, own).astype(np.float64), shown.astype(np.float64))


def test_a_planted_lift_is_found_with_an_interval_that_covers_it() -> None:
    rng = np.random.default_rng(1)
    found = difference(people(rng, 5000, 0.10), people(rng, 5000, 0.12))
    assert found.verdict == "better"
    assert found.low < 0.02 < found.high
    assert found.always_low < 0.02 < found.always_high
    assert found.always_low < found.low
    assert found.p_value < found.always_p_value < 0.05
    assert found.relative == pytest.approx(0.2, abs=0.06)
    assert difference(people(rng, 5000, 0.12), people(rng, 5000, 0.10)).verdict == "worse"


def test_where_there_is_no_lift_none_is_found_however_often_one_looks() -> None:
    """Peeking twenty times, the fixed interval errs far too often and the one that always holds does not."""
    rng = np.random.default_rng(2)
    fixed, always, runs = 0, 0, 200
    for _ in range(runs):
        a, b = people(rng, 2000, 0.1), people(rng, 2000, 0.1)
        looks = [
            difference(Sums(a.top[:n], a.bottom[:n]), Sums(b.top[:n], b.bottom[:n])) for n in range(100, 2001, 100)
        ]
        fixed += any(look.p_value < 0.05 for look in looks)
        always += any(look.verdict in {"better", "worse"} for look in looks)
    assert fixed / runs > 0.12
    assert always / runs <= 0.05


def test_the_interval_of_one_look_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    found = [difference(people(rng, 600, 0.1), people(rng, 600, 0.13)) for _ in range(400)]
    covered = sum(each.low <= 0.03 <= each.high for each in found) / len(found)
    assert covered == pytest.approx(0.95, abs=0.025)


def test_too_few_users_give_no_verdict_and_nothing_shown_gives_no_rate() -> None:
    rng = np.random.default_rng(4)
    assert difference(people(rng, 10, 0.1), people(rng, 5000, 0.2)).verdict == "too_few_users"
    nobody = Sums(np.zeros(100), np.ones(100))  # enough of them, of whom nobody has clicked yet
    assert difference(nobody, nobody).verdict == "undecided"
    assert np.isnan(rate(Sums(np.zeros(3), np.zeros(3))).value)


def test_users_in_the_wrong_numbers_are_noticed() -> None:
    assert sample_ratio_p([5000, 5050], [1, 1]) > 0.1
    assert sample_ratio_p([5000, 5500], [1, 1]) < 1e-4
    assert sample_ratio_p([0, 0], [1, 1]) == 1.0
