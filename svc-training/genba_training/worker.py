"""The Celery worker: ``python -m genba_training.worker --queues cpu``. Takes wake-ups and gives each to a child process.

On SIGTERM it takes nothing new; a job in hand may finish within ``drain_wait_s``, or else goes back to the queue and
resumes from its checkpoint elsewhere. Knows no recipe.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from celery import signals
from celery.exceptions import SecurityWarning
from celery.worker import state as celery_state

from genba_shared.db import Database
from genba_shared.jobs import Jobs, process_name
from genba_shared.queue import QUEUES, make_celery
from genba_shared.telemetry import get_logger
from genba_training import tasks, worker_ready
from genba_training.runner import prune
from genba_training.settings import Settings
from genba_training.worker_status import WorkerStatus, serving

_BEAT_S = 2.0

log = get_logger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Work until SIGTERM; leaves the process by SystemExit."""
    settings = Settings()
    options = _parser(settings).parse_args(argv)
    tasks.log_as_the_platform_does()
    warnings.simplefilter("ignore", SecurityWarning)  # of root running pickles: we take JSON only
    _prepare(settings)
    status = WorkerStatus(options.queues, options.concurrency, busy=lambda: len(celery_state.active_requests))
    with serving(status, host=options.host, port=options.operations_port):
        sys.exit(_work(settings, status))


def _parser(settings: Settings) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="genba-worker", description="Run jobs of the given queues.")
    parser.add_argument(
        "--queues", type=_queues, default=["cpu"], help=f"comma-separated: {', '.join(QUEUES)} (default: cpu)"
    )
    parser.add_argument(
        "--concurrency", type=int, default=settings.concurrency, help="jobs at a time (default: %(default)s)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address of the operations port (default: %(default)s)")
    parser.add_argument(
        "--operations-port",
        type=int,
        default=settings.operations_port,
        help="serve /health, /ready and /metrics there (default: nothing listens)",
    )
    return parser


def _queues(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or (unknown := set(names) - set(QUEUES)):
        found = ", ".join(sorted(unknown)) if names else "nothing"
        raise argparse.ArgumentTypeError(f"{found}: there are the queues {', '.join(QUEUES)}")
    return names


def _prepare(settings: Settings) -> None:
    database = Database(settings.platform.database_url)
    try:
        database.upgrade()
        prune(Jobs(database), settings.jobs_dir)
    finally:
        database.close()


def _work(settings: Settings, status: WorkerStatus) -> int:
    run_dir = worker_ready.folder(settings.platform)
    run_dir.mkdir(parents=True, exist_ok=True)
    drain_file = run_dir / f"worker-{os.getpid()}.drain"
    ready_file = run_dir / f"worker-{os.getpid()}.ready"
    for left in run_dir.glob("worker-*"):
        if not worker_ready.is_fresh(left):
            left.unlink(missing_ok=True)
    os.environ[tasks.DRAIN_FILE_VARIABLE] = str(drain_file)
    over = threading.Event()

    def drain(**_: Any) -> None:
        drain_file.touch()
        over.set()
        status.taking = False
        ready_file.unlink(missing_ok=True)

    def say_ready(**_: Any) -> None:
        threading.Thread(target=_keep_touching, args=(ready_file, over), name="worker-ready", daemon=True).start()
        status.taking = True
        log.info("worker_ready", queues=status.queues, concurrency=status.slots)

    signals.worker_shutting_down.connect(drain, weak=False)
    signals.worker_ready.connect(say_ready, weak=False)
    celery = make_celery(settings.platform, include=[tasks.__name__])
    worker = celery.Worker(
        hostname=f"genba@{process_name()}",
        queues=status.queues,
        concurrency=status.slots,
        max_tasks_per_child=1
        if status.queues == ["gpu"]
        else None,  # a fresh process gives the GPU's memory back for certain
        optimization="fair",
        quiet=True,
        loglevel="WARNING",  # Celery's own lines; the platform's logging is set by tasks.log_as_the_platform_does
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    try:
        worker.start()
    finally:
        over.set()
        for file in (drain_file, ready_file):
            file.unlink(missing_ok=True)
    return int(worker.exitcode or 0)


def _keep_touching(file: Path, over: threading.Event) -> None:
    file.touch()
    while not over.wait(_BEAT_S):
        file.touch()


if __name__ == "__main__":
    main()
