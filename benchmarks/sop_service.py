"""What svc-sop does when a hundred people come at once: evaluations on cached embeddings, and raw uploads.

Protocol. svc-sop runs alone under uvicorn in a process of its own, embedded storage, default settings; this process
signs
principals as the gateway would and speaks HTTP to it. The oil-change set is filmed at 640×480 (3 golds, 1 trainee).

* *alone*: 30 evaluations of the stored trainee, one after the other;
* *together*: 100 evaluations at the same moment;
* *uploads*: 100 different files at the same moment (a free box at the end makes the bytes differ); who is answered 429
  waits as told and comes again. Then the records are counted.

Memory is the greatest sum of resident sizes of the service and its decoder children, looked at every 50 ms.
Aims: all evaluations complete with p95 ≤ 5 s; every upload on record, ≤ 2 GB resident. Exit 1 if an aim is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import yaml

from genba_shared.principal import PRINCIPAL_HEADER, Clearance, Principal, scopes_of, sign
from genba_shared.settings import Platform
from genba_sop import data

P95_S, RESIDENT_BYTES = 5.0, 2 * 2**30
SOMEBODY = Principal("benchmark", ("engineer",), scopes_of(("engineer",)), Clearance.INTERNAL)


class Memory(threading.Thread):
    """Watches a process and its children; ``peak_bytes`` is the most they had together."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self.peak_bytes = 0

    def run(self) -> None:
        while self._process.is_running():
            family = [self._process]
            try:
                family += self._process.children(recursive=True)
            except psutil.NoSuchProcess:
                return
            resident = 0
            for member in family:
                try:
                    resident += member.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak_bytes = max(self.peak_bytes, resident)
            time.sleep(0.05)


@contextmanager
def service(home: Path) -> Iterator[tuple[str, Memory]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "uvicorn", "genba_sop.app:create_app", "--factory", "--port", str(port)]
    environment = {**os.environ, "GENBA_HOME": str(home), "GENBA_LOG_LEVEL": "warning"}
    process = subprocess.Popen([*argv, "--log-level", "warning"], env=environment)
    memory = Memory(process.pid)
    memory.start()
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx.get(f"{url}/ready").raise_for_status()
                break
            except httpx.HTTPError:
                if process.poll() is not None:
                    raise SystemExit("svc-sop did not start.") from None
                time.sleep(0.2)
        yield url, memory
    finally:
        process.terminate()
        process.wait()


class Caller:
    """Signs every request anew: a principal is good for a minute."""

    def __init__(self, client: httpx.AsyncClient, secret: bytes) -> None:
        self._client, self._secret = client, secret

    async def __call__(
        self, method: str, path: str, headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        signed = {PRINCIPAL_HEADER: sign(SOMEBODY, self._secret), **(headers or {})}
        return await self._client.request(method, path, headers=signed, **body)

    async def upload(self, video: bytes) -> tuple[httpx.Response, int]:
        """Until it is taken; how often it was told to come again."""
        for refused in range(1000):
            answer = await self("POST", "/v1/sop/videos", {"content-type": "video/mp4"}, content=video)
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                return answer, refused
            await asyncio.sleep(float(answer.headers["retry-after"]))
        raise SystemExit("An upload was refused a thousand times.")

    async def evaluate(self, body: dict[str, str]) -> tuple[int, float]:
        started_s = time.perf_counter()
        answer = await self("POST", "/v1/sop/evaluations", {"idempotency-key": str(uuid.uuid4())}, json=body)
        return answer.status_code, time.perf_counter() - started_s


def said(name: str, results: list[tuple[int, float]]) -> float:
    """Print a row; p95 in seconds."""
    p50_s, p95_s = (float(x) for x in np.quantile([seconds for _, seconds in results], [0.5, 0.95]))
    statuses = dict(Counter(status for status, _ in results))
    print(f"{name:<28} {len(results):>4} requests  {statuses}  p50 {1000 * p50_s:8.1f} ms  p95 {1000 * p95_s:8.1f} ms")
    return p95_s


async def measure(url: str, secret: bytes, films: Path, memory: Memory, uploads: int) -> bool:
    limits = httpx.Limits(max_connections=256)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits, trust_env=False) as client:
        call = Caller(client, secret)
        document = yaml.safe_load((films / "steps.yaml").read_text(encoding="utf-8"))
        for gold in document["golds"]:
            answer, _ = await call.upload((films / gold["video"]).read_bytes())
            gold["video"] = answer.json()["id"]
        procedure = (await call("POST", "/v1/sop/procedures", json=document)).json()["id"]
        trainee = (films / "trainee.mp4").read_bytes()
        video = (await call.upload(trainee))[0].json()["id"]
        body = {"procedure_id": procedure, "video_id": video}
        await call.evaluate(body)
        said("evaluations, alone", [await call.evaluate(body) for _ in range(30)])
        together = list(await asyncio.gather(*(call.evaluate(body) for _ in range(100))))
        p95_s = said("evaluations, together", together)
        print(f"{'':<28} resident so far {memory.peak_bytes / 2**20:.0f} MiB")
        started_s = time.perf_counter()
        different = [trainee + struct.pack(">I4sQ", 16, b"free", n) for n in range(uploads)]
        done = await asyncio.gather(*(call.upload(each) for each in different))
        took_s = time.perf_counter() - started_s
        ids = {answer.json()["id"] for answer, _ in done if answer.status_code == httpx.codes.CREATED}
        if wrong := [answer.text for answer, _ in done if answer.is_error]:
            print(f"an upload was refused for good: {wrong[0]}")
        kept = [(await call("GET", f"/v1/sop/videos/{each}")).status_code for each in ids]
        refusals = sum(refused for _, refused in done)
        on_record = kept.count(httpx.codes.OK)
        print(
            f"{'uploads, together':<28} {uploads:>4} files     on record {on_record}, told to wait {refusals} times, "
            f"{took_s:.1f} s, resident {memory.peak_bytes / 2**20:.0f} MiB"
        )
    completed = all(status == httpx.codes.CREATED for status, _ in together)
    return completed and p95_s <= P95_S and on_record == uploads and memory.peak_bytes <= RESIDENT_BYTES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, help="folder that `genba sop demo-videos` wrote; filmed anew when absent")
    parser.add_argument("--uploads", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        films = asked.films or Path(folder) / "films"
        if asked.films is None:
            data.generate("oil_change", films)
        home = Path(folder) / "home"
        secret = Platform(home=home).load_principal_secret()
        with service(home) as (url, memory):
            met = asyncio.run(measure(url, secret, films, memory, asked.uploads))
    print("aims met" if met else "an aim is missed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
