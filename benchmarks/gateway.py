"""What the gateway costs: CPU per request and throughput beside nginx in the same run, and the dispatch to a mounted service.

nginx proxies to the same small upstream, with keep-alive and its access log on. The gateway has its whole pipeline on: API key,
scope and clearance, rate limit, metrics, access log, signed principal, trace. Rounds are interleaved, so that a busy machine
disturbs all alike; ratios within a round are the figures to trust, the median over rounds is printed.

    apt-get install nginx wrk && python benchmarks/gateway.py [--rounds 5] [--seconds 4]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

CONNECTIONS = 32
BODY = '{"status":"ok","value":42,"items":[1,2,3]}'
AIMS = {"uvicorn": 0.33, "granian": 0.5}
DISPATCH_AIM_US = 30.0

NGINX = """
worker_processes 1; daemon off; pid {folder}/{name}.pid; error_log {folder}/{name}.err;
events {{ worker_connections 1024; }}
http {{
  access_log {log}; keepalive_requests 100000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {upstream}
  server {{ listen 127.0.0.1:{port}; location / {{ {location} }} }}
}}
"""


@dataclass
class Contestant:
    """A server under measurement."""

    name: str
    port: int
    process: psutil.Process

    def cpu_s(self) -> float:
        """CPU time so far, of all its processes."""
        total = 0.0
        for process in (self.process, *self.process.children(recursive=True)):
            times = process.cpu_times()
            total += times.user + times.system
        return total


@dataclass
class Measured:
    """One round of one contestant."""

    requests_per_s: float
    cpu_us: float
    failed: int


def make_gateway() -> Any:
    """The gateway as granian's factory finds it; its settings come from the environment."""
    from genba_gateway.app import create_app
    from genba_gateway.settings import Settings

    log = Path(os.environ["BENCH_ACCESS_LOG"]).open("ab")  # noqa: SIM115 - open as long as the process
    return create_app(Settings(), access_log_stream=log)


def serve_with_uvicorn(port: int) -> None:
    from genba_gateway.server import serve

    serve(make_gateway(), host="127.0.0.1", port=port)


def environment(folder: Path, upstream_port: int) -> dict[str, str]:
    """One database and key for both servers; limits counted, but wide enough for a load that one key never makes."""
    return {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent),
        "GENBA_HOME": str(folder),
        "GENBA_LOG_LEVEL": "warning",
        "GENBA_GATEWAY_UPSTREAMS__SOP": f"http://127.0.0.1:{upstream_port}",
        "GENBA_GATEWAY_RATE_PER_MINUTE": "100000000",
        "GENBA_GATEWAY_RATE_BURST": "10000000",
        "BENCH_ACCESS_LOG": str(folder / "access.log"),
    }


def make_key(folder: Path) -> str:
    from genba_gateway.keys import Keys
    from genba_shared.db import Database
    from genba_shared.settings import Platform

    platform = Platform(home=folder)
    database = Database(platform.database_url)
    database.upgrade()
    key = Keys(database, env=platform.env).create("benchmark", role="operator")[1]
    database.close()
    platform.load_principal_secret()
    return key


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def started(
    command: list[str], port: int, *, name: str, env: dict[str, str] | None = None, cwd: Path
) -> Iterator[Contestant]:
    """Run a server until the block ends."""
    with (cwd / f"{name}.out").open("wb") as out:
        process = subprocess.Popen(command, env=env, cwd=cwd, stdout=out, stderr=out)
    try:
        deadline_s = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None or time.monotonic() > deadline_s:
                sys.exit(f"{name} did not start:\n{(cwd / f'{name}.out').read_text()[-2000:]}")
            time.sleep(0.1)
        yield Contestant(name, port, psutil.Process(process.pid))
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


def nginx(folder: Path, name: str, port: int, *, proxy_to: int | None) -> list[str]:
    """The command of an nginx that answers by itself, or proxies."""
    if proxy_to is None:
        upstream, location, log = "", f"default_type application/json; return 200 '{BODY}';", "off"
    else:
        upstream = f"upstream up {{ server 127.0.0.1:{proxy_to}; keepalive 64; keepalive_requests 100000000; }}"
        location = 'proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";'
        log = f"{folder}/{name}.log"
    config = folder / f"{name}.conf"
    config.write_text(NGINX.format(folder=folder, name=name, port=port, upstream=upstream, location=location, log=log))
    return ["nginx", "-c", str(config), "-p", str(folder)]


def load(contestant: Contestant, key: str, *, seconds: int) -> Measured:
    """Drive it with wrk on one thread and 32 connections that are kept."""
    before_s = contestant.cpu_s()
    url = f"http://127.0.0.1:{contestant.port}/v1/sop/videos"
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-H", f"Authorization: Bearer {key}", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used_s = contestant.cpu_s() - before_s
    requests, failed, rate = 0, 0, 0.0
    for line in said.splitlines():
        if " requests in " in line:
            requests = int(line.split()[0])
        elif "Non-2xx" in line:
            failed = int(line.split()[-1])
        elif "Requests/sec" in line:
            rate = float(line.split()[1])
    return Measured(rate, used_s / max(1, requests) * 1e6, failed)


async def dispatch_us(folder: Path) -> float:
    """What the pipeline adds to a call of a mounted application: the best of several rounds, of CPU time."""
    from genba_gateway.app import create_app
    from genba_gateway.settings import Settings
    from genba_shared.db import Database
    from genba_shared.settings import Platform

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        answered.append(message.get("status"))

    answered: list[Any] = []
    platform = Platform(home=folder, log_level="warning")
    database = Database(platform.database_url)
    database.upgrade()
    database.close()
    settings = Settings(platform=platform, rate_per_minute=10**8, rate_burst=10**7)
    gateway = create_app(settings, mounts={"sop": app}, access_log_stream=(folder / "dispatch.log").open("ab"))
    key = gateway.keys.create("dispatch", role="operator")[1].encode()
    fields = [(b"host", b"genba"), (b"user-agent", b"wrk"), (b"accept", b"*/*"), (b"content-type", b"application/json")]

    def scope() -> dict[str, Any]:
        return {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/v1/sop/videos",
            "raw_path": b"/v1/sop/videos",
            "query_string": b"",
            "root_path": "",
            "headers": [*fields, (b"authorization", b"Bearer " + key)],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }

    async def timed(call: Any, count: int) -> float:
        begun_s = time.process_time()
        for _ in range(count):
            await call(scope(), receive, send)
        answered.clear()
        return (time.process_time() - begun_s) / count * 1e6

    async with gateway.running():
        await gateway(scope(), receive, send)
        assert answered[0] == 200, "the dispatch that is measured is one that passes"
        return min([await timed(gateway, 5000) - await timed(app, 5000) for _ in range(10)])


def contest(folder: Path, *, rounds: int, seconds: int) -> dict[str, list[Measured]]:
    key = make_key(folder)
    upstream_port, ports = free_port(), [free_port() for _ in range(3)]
    env = environment(folder, upstream_port)
    granian = [
        "--interface",
        "asgi",
        "--factory",
        "--workers",
        "1",
        "--runtime-mode",
        "st",
        "--loop",
        "uvloop",
        "--no-ws",
        "--http",
        "1",
    ]
    here = str(Path(__file__).resolve())
    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        start(
            started(nginx(folder, "upstream", upstream_port, proxy_to=None), upstream_port, name="upstream", cwd=folder)
        )
        field = [
            start(
                started(nginx(folder, "nginx", ports[0], proxy_to=upstream_port), ports[0], name="nginx", cwd=folder)
            ),
            start(
                started([sys.executable, here, "--serve", str(ports[1])], ports[1], name="uvicorn", env=env, cwd=folder)
            ),
            start(
                started(
                    [sys.executable, "-m", "granian", *granian, "--port", str(ports[2]), "gateway:make_gateway"],
                    ports[2],
                    name="granian",
                    env=env,
                    cwd=folder,
                )
            ),
        ]
        for contestant in field:
            check(contestant, key)
            load(contestant, key, seconds=1)
        measured: dict[str, list[Measured]] = {contestant.name: [] for contestant in field}
        for _ in range(rounds):
            for contestant in field:
                measured[contestant.name].append(load(contestant, key, seconds=seconds))
        return measured


def check(contestant: Contestant, key: str) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{contestant.port}/v1/sop/videos", headers={"Authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        assert answer.read().decode() == BODY, contestant.name


def report(measured: dict[str, list[Measured]], dispatch: float) -> bool:
    nginx_rounds = measured["nginx"]
    print(
        f"{'server':<10}{'CPU us/request':>16}{'x nginx':>9}{'requests/s':>13}{'share of nginx':>16}{'aim':>7}{'failed':>8}"
    )
    is_reached = True
    for name, rounds in measured.items():
        cpu_us = statistics.median(each.cpu_us for each in rounds)
        rate = statistics.median(each.requests_per_s for each in rounds)
        times = statistics.median(each.cpu_us / ref.cpu_us for each, ref in zip(rounds, nginx_rounds, strict=True))
        share = statistics.median(
            each.requests_per_s / ref.requests_per_s for each, ref in zip(rounds, nginx_rounds, strict=True)
        )
        failed = sum(each.failed for each in rounds)
        aim = AIMS.get(name)
        is_reached &= failed == 0 and (aim is None or share >= aim)
        print(f"{name:<10}{cpu_us:>16.1f}{times:>9.2f}{rate:>13.0f}{share:>16.2f}{aim or '':>7}{failed:>8}")
    print(f"dispatch to a mounted service: {dispatch:.1f} us CPU (aim: at most {DISPATCH_AIM_US:.0f})")
    return is_reached and dispatch <= DISPATCH_AIM_US


def main() -> None:
    parser = argparse.ArgumentParser(description="The gateway beside nginx.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve_with_uvicorn(arguments.serve)
        return
    missing = [tool for tool in ("nginx", "wrk") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} not found. On Debian: apt-get install nginx wrk")
    with tempfile.TemporaryDirectory(prefix="genba-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        dispatch = asyncio.run(dispatch_us(folder / "dispatch-home"))
        measured = contest(folder, rounds=arguments.rounds, seconds=arguments.seconds)
    is_reached = report(measured, dispatch)
    print(json.dumps({"loadavg": os.getloadavg(), "cpus": os.cpu_count(), "aims_reached": is_reached}))


if __name__ == "__main__":
    main()
