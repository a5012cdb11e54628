"""Which lane decides for whom: how the process keeps them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from genba_sem import lanes
from genba_sem.model import LaneParts
from genba_sem.settings import Settings
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.live import Live
from genba_shared.settings import Platform


def test_a_champion_that_takes_long_to_load_keeps_only_its_own_tenant_waiting(
    database: Database, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, loaded = threading.Event(), threading.Event()
    started: list[str] = []

    class Slow(Live[LaneParts]):
        def start(self) -> None:
            started.append(self._model)
            if len(started) == 1:
                begun.set()
                loaded.wait()

        def stop(self) -> None:
            """Nothing follows."""

    monkeypatch.setattr(lanes, "Live", Slow)
    known = lanes.Lanes(database, Artifacts(platform.artifacts_url), Settings(platform=platform))
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(known.model_now, "slow") for _ in range(2)]
        begun.wait()
        assert pool.submit(known.model_now, "default").result(timeout=60) is None
        assert not any(each.done() for each in waiting)
        loaded.set()
        assert [each.result() for each in waiting] == [None, None]
    assert started == [lanes.model_name("slow"), "sem.lane"]
    known.close()
