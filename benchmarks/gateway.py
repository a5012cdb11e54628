"""What the gateway costs: CPU per request and throughput beside nginx in the same run, and the dispatch to a mounted service.

All stand before the same small upstream (an nginx that answers by itself), with connections kept on both sides. nginx writes its
access log as the gateway does, in blocks of 0.2 s. The gateway has its whole pipeline on: API key, scope and clearance, rate
limit, metrics, access log, signed principal, trace. Beside it stand the floors: the same servers with an ASGI application of four
lines and no upstream, the gateway's own listener with it, and the listener with the proxy and no pipeline; so the differences say
where the time goes. Each runs in one process on one CPU, wrk and the upstream have the others. Rounds are interleaved, so that a
busy machine disturbs all alike; ratios within a round are the figures to trust, the median over rounds is printed.

    apt-get install nginx wrk && make bench-gateway    # or python benchmarks/gateway.py [--rounds 5] [--seconds 4] [--before CHECKOUT]

``--before`` puts the gateway of another checkout into the same run, which is the only way to tell a few per cent on a busy machine.

granian comes with the extra ``bench`` (``pip install "genba[bench]"``, or ``pip install granian`` beside an installation).
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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

CONNECTIONS = 32
BODY = '{"status":"ok","value":42,"items":[1,2,3]}'
CONTESTANTS: tuple[str, ...] = (
    "nginx",
    "uvicorn",
    "granian",
    "uvicorn, bare",
    "granian, bare",
    "listener, bare",
    "listener and proxy",
)
AIMS = {"uvicorn": 0.33, "granian": 0.5}
BEFORE = ", before"
# What a part costs: one contestant less another.
PARTS = (
    ("the proxy", "listener and proxy", "listener, bare"),
    ("the pipeline", "uvicorn", "listener and proxy"),
)
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

    def cpu_s(self) -> tuple[float, float]:
        """CPU time so far of all its processes: its own, and the kernel's for it."""
        times = [process.cpu_times() for process in (self.process, *self.process.children(recursive=True))]
        return sum(each.user for each in times), sum(each.system for each in times)


@dataclass
class Measured:
    """One round of one contestant."""

    requests_per_s: float
    user_us: float
    system_us: float
    failed: int

    @property
    def cpu_us(self) -> float:
        return self.user_us + self.system_us


def make_gateway() -> Any:
    """The gateway as granian's factory finds it; its settings come from the environment."""
    from genba_gateway.app import create_app
    from genba_gateway.settings import Settings

    log = Path(os.environ["BENCH_ACCESS_LOG"]).open("ab")  # noqa: SIM115 - open as long as the process
    return create_app(Settings(), access_log_stream=log)


def make_bare() -> Any:
    """An application that answers by itself: what the server alone costs."""
    fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
    return answering(fields, BODY.encode())


def answering(fields: list[tuple[bytes, bytes]], body: bytes) -> Any:
    """An ASGI application that says the same to everybody."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    return app


def make_proxy() -> Any:
    """The gateway's proxy without its pipeline."""
    from genba_gateway.headers import BODY_BYTES
    from genba_gateway.proxy import ReverseProxy
    from genba_gateway.settings import Settings

    settings = Settings()
    urls = settings.upstreams["sop"]
    proxy = ReverseProxy("sop", urls, timeouts=settings.timeouts, resilience=settings.resilience)
    lifespan = make_bare()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(scope, receive, send)
            return
        scope[BODY_BYTES] = 0
        await proxy(scope, receive, send)

    return app


def serve(name: str, port: int) -> None:
    """One contestant on uvicorn: the gateway as ``genba`` serves it, the others on uvicorn's protocol or on ours."""
    import uvicorn

    from genba_gateway.listener import listener_for
    from genba_gateway.server import serve
    from genba_gateway.settings import Settings

    if name == "uvicorn":
        serve(make_gateway(), host="127.0.0.1", port=port)
        return
    http: Any = "httptools" if name == "uvicorn, bare" else listener_for(Settings())
    app = make_proxy() if name == "listener and proxy" else make_bare()
    uvicorn.run(app, host="127.0.0.1", port=port, http=http, ws="none", log_config=None, server_header=False)


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
    command: list[str], port: int, *, name: str, cpus: Iterable[int], env: dict[str, str] | None = None, cwd: Path
) -> Iterator[Contestant]:
    """Run a server on ``cpus`` until the block ends."""
    with (cwd / f"{name}.out").open("wb") as out:
        process = subprocess.Popen([*pinned(cpus), *command], env=env, cwd=cwd, stdout=out, stderr=out)
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


def pinned(cpus: Iterable[int]) -> list[str]:
    return ["taskset", "-c", ",".join(map(str, cpus))]


def nginx(folder: Path, name: str, port: int, *, proxy_to: int | None) -> list[str]:
    """The command of an nginx that answers by itself, or proxies."""
    if proxy_to is None:
        upstream, location, log = "", f"default_type application/json; return 200 '{BODY}';", "off"
    else:
        upstream = f"upstream up {{ server 127.0.0.1:{proxy_to}; keepalive 64; keepalive_requests 100000000; }}"
        location = 'proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";'
        log = f"{folder}/{name}.log combined buffer=64k flush=200ms"
    config = folder / f"{name}.conf"
    config.write_text(NGINX.format(folder=folder, name=name, port=port, upstream=upstream, location=location, log=log))
    return ["nginx", "-c", str(config), "-p", str(folder)]


def load(contestant: Contestant, key: str, *, seconds: int, cpus: Iterable[int]) -> Measured:
    """Drive it with wrk on one thread and 32 connections that are kept."""
    user_s, system_s = contestant.cpu_s()
    url = f"http://127.0.0.1:{contestant.port}/v1/sop/videos"
    command = [
        *pinned(cpus),
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{seconds}s",
        "-H",
        f"Authorization: Bearer {key}",
        url,
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    user_after_s, system_after_s = contestant.cpu_s()
    requests, failed, rate = 0, 0, 0.0
    for line in said.splitlines():
        if " requests in " in line:
            requests = int(line.split()[0])
        elif "Non-2xx" in line:
            failed = int(line.split()[-1])
        elif "Requests/sec" in line:
            rate = float(line.split()[1])
    each_us = 1e6 / max(1, requests)
    return Measured(rate, (user_after_s - user_s) * each_us, (system_after_s - system_s) * each_us, failed)


async def dispatch_us(folder: Path) -> float:
    """What the pipeline adds to a call of a mounted application: the best of several rounds, of CPU time."""
    from genba_gateway.app import create_app
    from genba_gateway.settings import Settings
    from genba_shared.db import Database
    from genba_shared.settings import Platform

    app = answering([(b"content-length", b"2")], b"ok")

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


GRANIAN = "--interface asgi --factory --workers 1 --runtime-mode st --loop uvloop --no-ws --http 1"


def contest(folder: Path, *, rounds: int, seconds: int, before: Path | None) -> dict[str, list[Measured]]:
    key = make_key(folder)
    upstream_port = free_port()
    env = environment(folder, upstream_port)
    names = CONTESTANTS
    if before is not None:
        names += tuple(f"{name}{BEFORE}" for name in AIMS)
    env_before = env | {"PYTHONPATH": f"{before}/gateway:{before}/shared:{env['PYTHONPATH']}"}
    first, *others = sorted(os.sched_getaffinity(0))
    others = others or [first]

    def command(name: str, port: int) -> list[str]:
        name = name.removesuffix(BEFORE)
        if name == "nginx":
            return nginx(folder, name, port, proxy_to=upstream_port)
        if name.startswith("granian"):
            app = "gateway:make_gateway" if name == "granian" else "gateway:make_bare"
            return [sys.executable, "-m", "granian", *GRANIAN.split(), "--port", str(port), app]
        return [sys.executable, str(Path(__file__).resolve()), "--serve", name, "--port", str(port)]

    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        itself = nginx(folder, "upstream", upstream_port, proxy_to=None)
        start(started(itself, upstream_port, name="upstream", cpus=others, cwd=folder))
        field = []
        for name in names:
            port, its_env = free_port(), env_before if name.endswith(BEFORE) else env
            field.append(start(started(command(name, port), port, name=name, cpus=[first], env=its_env, cwd=folder)))
        for contestant in field:
            check(contestant, key)
            load(contestant, key, seconds=1, cpus=others)
        measured: dict[str, list[Measured]] = {contestant.name: [] for contestant in field}
        for _ in range(rounds):
            for contestant in field:
                measured[contestant.name].append(load(contestant, key, seconds=seconds, cpus=others))
        return measured


def check(contestant: Contestant, key: str) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{contestant.port}/v1/sop/videos", headers={"Authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        assert answer.read().decode() == BODY, contestant.name


def report(measured: dict[str, list[Measured]], dispatch: float) -> bool:
    nginx_rounds = measured["nginx"]
    heads = ("server", "CPU us/request", "kernel", "x nginx", "requests/s", "share of nginx", "aim", "failed")
    print("{:<20}{:>16}{:>8}{:>9}{:>13}{:>16}{:>7}{:>8}".format(*heads))
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
        kernel_us = statistics.median(each.system_us for each in rounds)
        figures = f"{cpu_us:>16.1f}{kernel_us:>8.1f}{times:>9.2f}{rate:>13.0f}{share:>16.2f}"
        print(f"{name:<20}{figures}{aim or '':>7}{failed:>8}")
    for part, whole, floor in PARTS:
        pairs = zip(measured[whole], measured[floor], strict=True)
        print(f"{part}: {statistics.median(each.cpu_us - below.cpu_us for each, below in pairs):.1f} us")
    for name in AIMS:
        pairs = zip(measured[name], measured.get(name + BEFORE, ()), strict=False)
        if saved := [each.cpu_us / was.cpu_us for each, was in pairs]:
            print(f"{name}: {statistics.median(saved):.3f} of the CPU that it took before")
    print(f"dispatch to a mounted service: {dispatch:.1f} us CPU (aim: at most {DISPATCH_AIM_US:.0f})")
    return is_reached and dispatch <= DISPATCH_AIM_US


def main() -> None:
    parser = argparse.ArgumentParser(description="The gateway beside nginx.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="measure the gateway of that tree beside ours")
    parser.add_argument("--serve", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve, arguments.port)
        return
    missing = [tool for tool in ("nginx", "wrk", "taskset") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} not found. On Debian: apt-get install nginx wrk")
    with tempfile.TemporaryDirectory(prefix="genba-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        dispatch = asyncio.run(dispatch_us(folder / "dispatch-home"))
        measured = contest(folder, rounds=arguments.rounds, seconds=arguments.seconds, before=arguments.before)
    is_reached = report(measured, dispatch)
    print(json.dumps({"loadavg": os.getloadavg(), "cpus": os.cpu_count(), "aims_reached": is_reached}))


if __name__ == "__main__":
    main()
