"""The last place for what is seldom shown: which items, which lists, and the same again for whoever looks twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genba_recommend.discovering import KEPT_FOR_S, LEAST_LOSSES, LOSSES_KEPT, Discovery, Seldom
from genba_recommend.metrics import Questions, catalog_coverage, quality, rank
from genba_recommend.scoring import with_discovery

DAY_S = 86_400.0


@dataclass
class Clock:
    """A clock that a test turns."""

    now_s: float = 20_000 * DAY_S

    def __call__(self) -> float:
        return self.now_s


def test_what_is_shown_more_than_the_average_item_is_no_newcomer_and_what_is_shown_less_comes_first() -> None:
    seldom, now_s = Seldom(0.5, now_s=20_000 * DAY_S), 20_000 * DAY_S
    assert seldom.penalty(4, now_s=now_s).tolist() == [0.0] * 4
    for rows in ([0, 1], [0, 1], [0, 2], [0, 2], [0, 3]):
        seldom.note(np.array(rows), now_s=now_s)
    penalty = seldom.penalty(4, now_s=now_s)
    assert penalty[0] == -np.inf
    assert penalty[1] == penalty[2] < penalty[3] < 0


def test_what_was_shown_long_ago_is_seldom_shown_again() -> None:
    clock = Clock()
    seldom = Seldom(0.5, now_s=clock())
    seldom.penalty(3, now_s=clock())
    for _ in range(8):
        seldom.note(np.array([0]), now_s=clock())
    seldom.note(np.array([1, 2]), now_s=clock())
    assert (seldom.penalty(3, now_s=clock())[0], seldom.n_shown(now_s=clock())) == (-np.inf, 3)
    clock.now_s += 30 * DAY_S
    for _ in range(3):
        seldom.note(np.array([1, 2]), now_s=clock())
    penalty = seldom.penalty(3, now_s=clock() + 120)
    assert (penalty[0] > penalty[1], seldom.n_shown(now_s=clock())) == (True, 3)


def test_a_share_of_the_lists_gives_its_place_and_it_is_those_that_lose_least() -> None:
    seldom, losses = Seldom(0.3, now_s=0.0), np.random.default_rng(0).normal(size=4000)
    given = np.array([seldom.gives(loss) for loss in losses])
    assert abs(given[:20].mean() - 0.3) < 0.06
    assert abs(given.mean() - 0.3) < 0.02
    assert losses[given].mean() < losses[~given].mean() - 1
    assert not any(Seldom(0.0, now_s=0.0).gives(loss) for loss in losses[:30])


def test_who_looks_again_gets_the_same_until_the_next_day() -> None:
    clock = Clock()
    discovery = Discovery(1.0, most=2, clock=clock)
    discovery.give(("ann", 1), 7, np.array([3, 7]))
    discovery.give(("bob", 1), None, np.array([3, 4]))
    assert [(it.row if it else "?") for it in map(discovery.kept, [("ann", 1), ("bob", 1)])] == [7, None]
    assert discovery.kept(("ann", 2)) is None  # another version
    discovery.give(("cat", 1), 8, np.array([3, 8]))
    assert discovery.kept(("ann", 1)) is None  # only so many are remembered
    clock.now_s += KEPT_FOR_S + 1
    assert discovery.kept(("cat", 1)) is None


def test_of_a_user_who_is_erased_nothing_is_remembered() -> None:
    discovery = Discovery(1.0, most=10)
    for key in (("ann", 1), ("ann", 2), ("bob", 1)):
        discovery.give(key, 7, np.array([3, 7]))
    discovery.forget("ann")
    assert [discovery.kept(key) is None for key in (("ann", 1), ("ann", 2), ("bob", 1))] == [True, True, False]


def crowd(
    n_users: int = 300, n_items: int = 400
) -> tuple[Questions, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Everybody may be shown everything but one item; what each fits, (U, N)."""
    users = np.arange(n_users)
    fit = np.random.default_rng(0).normal(size=(n_users, n_items)).astype(np.float32)
    one_each = np.arange(n_users + 1)
    asked = Questions(users, users % n_items, one_each, (users + 1) % n_items, one_each, np.ones(n_items, np.bool_))
    return asked, fit


def test_with_a_place_for_newcomers_lists_show_most_of_a_catalogue_and_keep_their_head() -> None:
    asked, fit = crowd()
    popular = np.linspace(0, -30, 400).astype(np.float32)  # what is popular fills every list

    def score(
        users: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return fit[users] + popular

    plain = rank(score, asked)
    none = with_discovery(score, lambda users: fit[users], asked, share=0.0)
    wide = with_discovery(score, lambda users: fit[users], asked, share=0.7)
    assert (none == plain).all()
    assert (wide[:, :9] == plain[:, :9]).all()
    assert all(len(set(row)) == 50 for row in wide.tolist())
    assert not (wide == ((asked.users + 1) % 400)[:, None]).any()  # nobody is shown what they had
    assert catalog_coverage(plain[:, :10], 400) < 0.15
    assert quality(wide, asked).coverage_at_10 > 0.45
    changed = wide[:, 9] != plain[:, 9]
    assert 0.55 < changed.mean() < 0.75
    assert np.bincount(wide[changed, 9]).max() == 1  # shown counts are balanced over users


def test_what_two_processes_showed_counts_in_both_once() -> None:
    now_s = 20_100 * DAY_S
    here, there, table = Seldom(0.5, now_s=now_s), Seldom(0.5, now_s=now_s + 9 * DAY_S), dict[int, float]()

    def exchange(each: Seldom) -> None:
        for row, by in each.tell().items():
            table[row] = table.get(row, 0.0) + by
        each.learn(table)

    for seldom, rows in ((here, [0, 1]), (there, [1, 2]), (here, [1])):
        seldom.note(np.array(rows), now_s=now_s)
    for seldom in (here, there, here, here):
        exchange(seldom)
    alone = Seldom(0.5, now_s=now_s)
    for rows in ([0, 1], [1, 2], [1]):
        alone.note(np.array(rows), now_s=now_s)
    for seldom in (here, there):
        np.testing.assert_allclose(seldom.penalty(4, now_s=now_s), alone.penalty(4, now_s=now_s), rtol=1e-5)
    here.note(np.array([3]), now_s=now_s)
    lost = here.tell()
    here.untell(lost)  # the table did not answer
    here.learn(table)
    assert (here.n_shown(now_s=now_s), here.tell()) == (4, lost)


def test_the_lists_that_give_are_those_below_the_quantile_of_the_latest_losses() -> None:
    seldom, losses = Seldom(0.3, now_s=0.0), np.random.default_rng(1).normal(size=3000).round(2)
    for n, loss in enumerate(losses.tolist(), start=1):
        gave = seldom.gives(loss)
        if n >= LEAST_LOSSES:
            quantile = np.quantile(losses[max(0, n - LOSSES_KEPT) : n], 0.3)
            assert gave == (loss <= quantile) or np.isclose(loss, quantile)


def test_a_penalty_that_was_kept_up_is_the_one_that_is_made_anew() -> None:
    seldom, anew = Seldom(0.5, now_s=0.0), Seldom(0.5, now_s=0.0)
    rng = np.random.default_rng(0)
    seldom.penalty(50, now_s=0.0)
    for _ in range(40):
        rows = rng.choice(50, 5, replace=False)
        seldom.note(rows, now_s=0.0)
        anew.note(rows, now_s=0.0)
    np.testing.assert_allclose(seldom.penalty(50, now_s=0.0), anew.penalty(50, now_s=0.0), rtol=1e-6)
