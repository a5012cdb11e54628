"""The peer of jobs_chaos.py: plain Celery on the same brokers, killed by the same rules, and its losses counted.

Protocol. Two prefork workers with two children each, a task of eight steps of 0.1 s whose effect is a line in a file.
Tasks are sent as fast as the kills go on, three tenths of them ahead, so that there is a queue at every kill. Kills are
spread by progress: a worker that is in the middle of a task, in turn its parent and one of its children; it is started
again at once, as by a service manager. A broker kill is a -9 of a Redis without persistence, or the deletion of every
message in the folder.

Settings: `default` is Celery as it comes; `late acks` adds `task_acks_late` and `task_reject_on_worker_lost`, as its
manual advises for tasks that may run twice. A task counts as lost when the queue has been silent for 30 s and its effect
is not there (on Redis, an unacknowledged message would come back after the visibility timeout of an hour).
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.chaos_world import Program, redis_server, running
from celery import Celery

WORKERS, STEPS, STEP_S = 2, 8, 0.1
SILENT_S, AHEAD_WAITS_S = 30.0, 2.0
MODES = {"default": {}, "late acks": {"task_acks_late": True, "task_reject_on_worker_lost": True}}


def make(broker_url: str, folder: str, mode: str) -> Celery:
    celery = Celery("plain", broker=broker_url)
    celery.conf.update(MODES[mode], broker_connection_retry_on_startup=True)
    if broker_url.startswith("filesystem"):
        where = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": f"{folder}-control"}
        celery.conf.broker_transport_options = where
    return celery


app = make(
    os.environ.get("PLAIN_BROKER", "memory://"),
    os.environ.get("PLAIN_FOLDER", ""),
    os.environ.get("PLAIN_MODE", "default"),
)


@app.task(name="plain.work")  # type: ignore[untyped-decorator]
def work(number: int, effects: str) -> None:
    with Path(f"{effects}.begun").open("a", encoding="utf-8") as begun:
        begun.write(f"{os.getpid()} {number}\n")
    for _ in range(STEPS):
        time.sleep(STEP_S)
    with Path(effects).open("a", encoding="utf-8") as done:
        done.write(f"{number}\n")


class Sending(threading.Thread):
    """Never far ahead of the kills. A broker that is down is tried again until it takes the message."""

    def __init__(self, celery: Celery, jobs: int, effects: Path, share_killed: Callable[[], float]) -> None:
        super().__init__(daemon=True)
        self._celery, self._jobs, self._effects, self._share_killed = celery, jobs, effects, share_killed
        self.sent = 0

    def run(self) -> None:
        for number in range(self._jobs):
            gives_up_s = time.monotonic() + AHEAD_WAITS_S  # lost tasks hold the kills up, and must not hold this up too
            while number / self._jobs > self._share_killed() + 0.3 and time.monotonic() < gives_up_s:
                time.sleep(0.1)
            while True:
                with suppress(Exception):
                    self._celery.send_task("plain.work", args=[number, str(self._effects)], retry=False)
                    self.sent += 1
                    break
                time.sleep(0.2)


def lines(path: Path) -> list[str]:
    return path.read_text("utf-8").split("\n")[:-1] if path.exists() else []


def busy(effects: Path) -> set[int]:
    """Children in the middle of a task, as far as files tell."""
    done = Counter(lines(effects))
    newest = {int(pid): number for pid, number in (line.split() for line in lines(Path(f"{effects}.begun")))}
    return {pid for pid, number in newest.items() if not done[number]}


def kill_a_busy_worker(workers: list[Program], effects: Path, turn: int) -> bool:
    holding = busy(effects)
    for worker in (workers[(turn + n) % WORKERS] for n in range(WORKERS)):
        if hit := worker.children() & holding:
            return worker.kill(None if turn % 2 else min(hit))
    return False


def empty(folder: Path) -> bool:
    for message in folder.glob("*.msg"):
        message.unlink(missing_ok=True)
    return True


def run(broker_name: str, mode: str, *, jobs: int, worker_kills: int, broker_kills: int) -> str:
    with tempfile.TemporaryDirectory(prefix="plain-celery-") as name:
        folder, effects = Path(name), Path(name) / "effects"
        messages = folder / "messages"
        messages.mkdir()
        redis, redis_url = redis_server(folder)
        url = redis_url if broker_name == "Redis" else "filesystem://"
        env = {"PLAIN_BROKER": url, "PLAIN_FOLDER": str(messages), "PLAIN_MODE": mode}
        argv = [sys.executable, "-m", "celery", "-A", "benchmarks.plain_celery", "worker", "-c", "2", "-l", "error"]
        log = folder / "workers.log"
        workers = [Program(f"w{n}", [*argv, "-n", f"w{n}"], log, env=env) for n in range(WORKERS)]
        with running(*([redis] if broker_name == "Redis" else []), *workers):
            kills: Counter[str] = Counter()
            celery = make(url, str(messages), mode)
            sending = Sending(celery, jobs, effects, lambda: kills["worker"] / worker_kills)
            sending.start()
            silent_since, seen = time.monotonic(), 0
            while seen < jobs and (sending.sent < jobs or time.monotonic() - silent_since < SILENT_S):
                time.sleep(0.05)
                now = len(set(lines(effects)))
                if now > seen:
                    silent_since, seen = time.monotonic(), now
                if kills["worker"] < worker_kills and seen / jobs >= kills["worker"] / worker_kills:
                    kills["worker"] += kill_a_busy_worker(workers, effects, kills["worker"])
                if kills["broker"] < broker_kills and seen / jobs >= (kills["broker"] + 0.4) / broker_kills:
                    kills["broker"] += redis.kill() if broker_name == "Redis" else empty(messages)
            found: Counter[Any] = Counter(lines(effects))
        assert sending.sent == jobs
        lost, doubled = jobs - len(found), sum(times - 1 for times in found.values())
        killed = f"{kills['worker']} | {kills['broker']}"
        return f"| {broker_name} | {mode} | {jobs} | {killed} | {lost} ({lost / jobs:.0%}) | {doubled} |"


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started here is stopped
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--worker-kills", type=int, default=10)
    parser.add_argument("--broker-kills", type=int, default=2)
    options = parser.parse_args()
    print("| broker | Celery's settings | jobs | worker kills | broker kills | lost | doubled |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for broker, mode in itertools.product(("Redis", "folder"), MODES):
        for broker_kills in (0, options.broker_kills):
            print(
                run(broker, mode, jobs=options.jobs, worker_kills=options.worker_kills, broker_kills=broker_kills),
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
