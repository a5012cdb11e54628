"""The lines that the gateway writes of requests."""

from __future__ import annotations

import io
import json
import time

import pytest

from genba_gateway.access_log import AccessLog

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_lines_follow_a_clock_that_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    log = AccessLog("json", written)
    for now_s in (3600.0, 60.0, 60.05):
        monkeypatch.setattr(time, "time", lambda now_s=now_s: now_s)
        log.write(method="GET", route="/", status=200, seconds=0.0, request_id=b"r", trace_id=b"t", subject=None)
    log.flush()
    stamps = [json.loads(line)["timestamp"][11:19] for line in written.getvalue().splitlines()]
    assert stamps == ["01:00:00", "00:01:00", "00:01:00"]
