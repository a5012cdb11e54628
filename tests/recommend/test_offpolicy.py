"""Off-policy estimates recover values that are known because the world is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from genba_recommend.offpolicy import Estimate, Log, doubly_robust, gain, ips, snips, softmax_propensities

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bandit:
    """Choices of a logging policy among 8 items in a world whose click chances are known."""

    log: Log
    chances: Floats  # (n, A) of a click
    policy: Floats  # (n, A) to be judged

    @property
    def truth(self) -> float:
        return float((self.policy * self.chances).sum(1).mean())


def bandit(n: int = 4000, *, seed: int = 0) -> Bandit:
    rng = np.random.default_rng(seed)
    context, taste = rng.normal(size=(n, 4)), rng.normal(size=(4, 8))
    chances = 1 / (1 + np.exp(-(context @ taste - 1)))
    logged = softmax_propensities(rng.normal(size=(n, 8)), temperature=1.0, floor=0.1)
    policy = softmax_propensities(context @ taste, temperature=0.5)
    action = (logged.cumsum(1) < rng.random((n, 1))).sum(1).clip(0, 7)
    reward = (rng.random(n) < np.take_along_axis(chances, action[:, None], 1)[:, 0]).astype(np.float64)
    propensity = np.take_along_axis(logged, action[:, None], 1)[:, 0]
    return Bandit(Log(action, reward, propensity), chances, policy)


def test_every_estimator_recovers_the_known_value_and_its_interval_covers_it_as_often_as_it_says() -> None:
    covered = np.zeros(3)
    runs = 200
    means = np.zeros((runs, 4))
    for seed in range(runs):
        made = bandit(1500, seed=seed)
        found = (
            ips(made.log, made.policy),
            snips(made.log, made.policy),
            doubly_robust(made.log, made.policy, made.chances * 0.8 + 0.1),
        )
        covered += [each.low <= made.truth <= each.high for each in found]
        means[seed] = [*(each.value for each in found), made.truth]
    assert np.abs(means[:, :3].mean(0) - means[:, 3].mean()).max() < 0.01
    assert (covered / runs > 0.9).all()


def test_doubly_robust_is_narrower_with_a_good_model_and_right_with_a_bad_one() -> None:
    made = bandit(20_000)
    plain = ips(made.log, made.policy)
    good = doubly_robust(made.log, made.policy, made.chances)
    bad = doubly_robust(made.log, made.policy, np.full_like(made.chances, 0.9))
    assert good.high - good.low < 0.8 * (plain.high - plain.low)
    assert bad.low <= made.truth <= bad.high


def test_doubly_robust_is_right_with_wrong_propensities_and_a_right_model() -> None:
    made = bandit(20_000)
    wrong = Log(made.log.action, made.log.reward, np.full(len(made.log), 0.5))
    assert abs(doubly_robust(wrong, made.policy, made.chances).value - made.truth) < 0.01
    assert abs(ips(wrong, made.policy).value - made.truth) > 0.1


def test_snips_moves_with_a_shift_of_all_rewards_by_just_that_shift() -> None:
    made = bandit()
    shifted = Log(made.log.action, made.log.reward + 5.0, made.log.propensity)
    assert snips(shifted, made.policy).value == pytest.approx(snips(made.log, made.policy).value + 5.0)


def test_the_logging_policy_judged_on_its_own_log_earns_what_it_earned() -> None:
    rng = np.random.default_rng(1)
    policy = np.full((500, 4), 0.25)
    log = Log(rng.integers(0, 4, 500), rng.random(500), np.full(500, 0.25))
    for found in (ips(log, policy), snips(log, policy)):
        assert found.value == pytest.approx(log.reward.mean())
        assert found.effective_n == pytest.approx(500)
        assert found.support == pytest.approx(1.0)


def test_clipped_weights_give_a_narrower_interval() -> None:
    made = bandit()
    free, clipped = ips(made.log, made.policy), ips(made.log, made.policy, clip=3.0)
    assert clipped.high - clipped.low < free.high - free.low


def test_support_tells_that_the_log_never_tried_what_the_policy_does() -> None:
    log = Log(np.zeros(100, np.int64), np.ones(100), np.ones(100))
    policy = np.tile([0.1, 0.9], (100, 1))
    assert ips(log, policy).support == pytest.approx(0.1)
    with pytest.raises(ValueError, match="no chance"):
        snips(log, np.tile([0.0, 1.0], (100, 1)))


@pytest.mark.parametrize("propensity", [0.0, -0.1, 1.1, np.nan])
def test_a_propensity_that_is_none_is_refused(propensity: float) -> None:
    with pytest.raises(ValueError, match="propensity"):
        Log(np.array([0]), np.array([1.0]), np.array([propensity]))


def test_columns_and_policies_that_do_not_fit_are_refused() -> None:
    log = Log(np.array([0, 3]), np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="column an action"):
        ips(log, np.full((2, 2), 0.5))
    with pytest.raises(ValueError, match="sum to 1"):
        ips(log, np.full((2, 4), 0.5))
    with pytest.raises(ValueError, match="shape"):
        doubly_robust(log, np.full((2, 4), 0.25), np.ones((2, 3)))
    with pytest.raises(ValueError, match="columns"):
        Log(np.array([0]), np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="temperature"):
        softmax_propensities(np.ones((1, 2)), temperature=0.0)


@pytest.mark.parametrize(
    "judge", [ips, snips, lambda log, policy: doubly_robust(log, policy, np.full(policy.shape, 0.4))]
)
def test_choices_of_one_user_do_not_count_as_if_they_were_of_many(judge: Callable[[Log, Floats], Estimate]) -> None:
    made, copies = bandit(1500), np.repeat(np.arange(1500), 4)
    fourfold = (made.log.action[copies], made.log.reward[copies], made.log.propensity[copies])
    once = judge(made.log, made.policy)
    naive, honest = (judge(log, made.policy[copies]) for log in (Log(*fourfold), Log(*fourfold, copies)))
    assert honest.value == pytest.approx(once.value)
    assert honest.high - honest.low == pytest.approx(once.high - once.low)
    assert honest.high - honest.low == pytest.approx(2 * (naive.high - naive.low), rel=1e-2)


def test_the_gain_is_the_doubly_robust_value_less_what_was_earned_and_narrower_where_they_agree() -> None:
    made = bandit(4000)
    value, more = doubly_robust(made.log, made.policy, made.chances), gain(made.log, made.policy, made.chances)
    assert more.value == pytest.approx(value.value - made.log.reward.mean())
    own = np.full((4000, 8), 1 / 8)
    logged = Log(made.log.action, made.log.reward, np.full(4000, 1 / 8))
    same = gain(logged, own, np.zeros((4000, 8)))
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
