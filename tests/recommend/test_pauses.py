"""Collections do not look at what stays; cycles that are dropped go within the hour."""

from __future__ import annotations

import functools
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

from genba_recommend.pauses import EVERYTHING_EVERY_S, FREEZE_AFTER, Pauses


class Node:
    """May refer to itself."""

    def __init__(self) -> None:
        self.other: Node | None = None


def alone(check: Callable[[], None]) -> Callable[[], None]:
    """Run it in a process of its own: in this one, everything would be what the whole suite has loaded."""

    @functools.wraps(check)
    def test() -> None:
        script = f"from tests.recommend.test_pauses import {check.__name__} as test; test.__wrapped__()"
        subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=True)

    return test


@alone
def test_what_stays_is_not_looked_at_again_and_what_is_dropped_still_goes() -> None:
    catalogue = [Node() for _ in range(20_000)]
    Pauses().look(held=20_000)
    assert gc.get_freeze_count() > 20_000
    assert len(gc.get_objects()) < 20_000
    gone = weakref.ref(catalogue.pop())
    assert gone() is None  # no cycle, no need of a collection


@alone
def test_users_are_frozen_when_many_have_come_and_not_before() -> None:
    pauses = Pauses()
    pauses.look(held=100)
    users = [Node() for _ in range(5000)]
    before = gc.get_freeze_count()
    pauses.look(held=99 + FREEZE_AFTER)
    assert gc.get_freeze_count() <= before
    pauses.look(held=100 + FREEZE_AFTER)
    assert gc.get_freeze_count() >= before + len(users)


@alone
def test_a_cycle_that_was_frozen_goes_within_the_hour() -> None:
    now_s = 0.0
    pauses = Pauses(clock=lambda: now_s)
    node = Node()
    node.other = node
    pauses.look(held=0)
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is not None
    now_s += EVERYTHING_EVERY_S + 1
    pauses.look(held=0)
    assert gone() is None
