"""What a worker's child process does with a wake-up. The child is an edge of its own: it makes its resources once."""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path

from celery import shared_task, signals

from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.jobs import Jobs, process_name
from genba_shared.queue import TASK
from genba_shared.telemetry import configure_logging
from genba_shared.tracing import spans_for
from genba_training.attempt import ProcessWatchdog
from genba_training.recipes import load
from genba_training.runner import Runner
from genba_training.settings import Settings

DRAIN_FILE_VARIABLE = "GENBA_TRAINING_DRAIN_FILE"  # from the worker to its children: once this file is there, stop


@shared_task(name=TASK)  # type: ignore[untyped-decorator]
def run_job(job_id: str) -> str:
    """Claim the job and run it, or find that there is nothing to do."""
    return runner().run(job_id)


@functools.cache
def runner() -> Runner:
    """This process's runner."""
    settings = Settings()
    drain_file = Path(os.environ.get(DRAIN_FILE_VARIABLE, os.devnull + "/never"))
    return Runner(
        jobs=Jobs(Database(settings.platform.database_url)),
        recipes=load(settings.recipes),
        artifacts=Artifacts(settings.platform.artifacts_url),
        settings=settings,
        owner=process_name(),
        draining=drain_file.exists,
        watchdog=ProcessWatchdog(silence_s=2 * settings.lease_s),
        spans=spans_for("worker", settings.platform),
    )


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def warm_up(**_: object) -> None:
    """Import the recipes, and all that they import, before the first job waits for it."""
    runner()


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def log_as_the_platform_does(**_: object) -> None:
    """Celery and billiard say a line per message and process; ours say what happened to the job."""
    platform = Settings().platform
    configure_logging(level=platform.log_level, log_format=platform.log_format)
    for name in ("celery", "kombu", "multiprocessing"):
        logging.getLogger(name).setLevel(logging.WARNING)
