"""What svc-sem's routes stand on, made once per process: database, artifacts, jobs, pools. Knows no route."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import text
from threadpoolctl import threadpool_limits

from genba_sem import erasure
from genba_sem.lanes import Lanes
from genba_sem.likeness import Likeness
from genba_sem.micrograph import Limits
from genba_sem.picture_reader import PictureReader
from genba_sem.pictured import TextEncoder
from genba_sem.settings import Settings
from genba_sem.store import ARTIFACTS
from genba_sem.watch import Watch
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.idempotency import Idempotency
from genba_shared.jobs import Jobs
from genba_shared.pool import WorkPool
from genba_shared.queue import Wakeups, make_celery
from genba_shared.repeated import Repeated
from genba_shared.spool import open_spool
from genba_shared.telemetry import Metrics, get_logger
from genba_shared.vectors import open_vectors

log = get_logger(__name__)


@dataclass(frozen=True)
class Sem:
    """The resources of one process."""

    settings: Settings
    spool: Path  # where uploads land
    database: Database
    artifacts: Artifacts  # of views: a store of this service's own
    registry_artifacts: Artifacts  # the installation's, below which models lie
    idempotency: Idempotency
    jobs: Jobs
    lanes: Lanes
    likeness: Likeness
    text_encoder: TextEncoder
    pictures: PictureReader
    classifying: WorkPool
    background: ThreadPoolExecutor
    watch: Watch

    @property
    def limits(self) -> Limits:
        """What one image may be."""
        return Limits(max_bytes=self.settings.max_image_bytes)

    def sweep(self) -> None:
        """Everything that is due."""
        erasure.erase_due(self.database, self.artifacts)
        self.idempotency.purge()
        self.watch.look(self.database)
        for tenant, space in self.lanes.spaces().items():
            self.likeness.follow(tenant, space)

    def database_answers(self) -> str | None:
        """Readiness: None when well."""
        with self.database.read() as session:
            session.execute(text("SELECT 1"))
        return None


@contextlib.asynccontextmanager
async def open_service(settings: Settings, metrics: Metrics) -> AsyncIterator[Sem]:
    """Open everything, sweep now and then, and close it in order."""
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(threadpool_limits(limits=1, user_api="blas"))  # the pool's workers are the parallelism
        database = Database(settings.platform.database_url)
        stack.callback(database.close)
        await asyncio.to_thread(database.upgrade)
        artifacts = Artifacts(settings.platform.artifacts_url)
        lanes = Lanes(database, artifacts, settings)
        stack.callback(lanes.close)
        likeness = Likeness(lambda: open_vectors(settings.platform), database)
        stack.callback(likeness.close)
        wakeups = Wakeups(make_celery(settings.platform))
        stack.callback(wakeups.close)
        sem = Sem(
            settings=settings,
            spool=stack.enter_context(open_spool(settings.platform.home, "sem")),
            database=database,
            artifacts=artifacts.below(ARTIFACTS),
            registry_artifacts=artifacts,
            idempotency=Idempotency(database),
            jobs=Jobs(database, wake=wakeups.send),
            lanes=lanes,
            likeness=likeness,
            text_encoder=TextEncoder(settings.text_encoder, settings.text_encoder_weights),
            pictures=PictureReader(memory_bytes=settings.decoder_memory_bytes, timeout_s=settings.decode_timeout_s),
            classifying=WorkPool(
                "classify", workers=settings.classify_workers, queue=settings.classify_queue, metrics=metrics
            ),
            background=ThreadPoolExecutor(1, thread_name_prefix="sem-background"),
            watch=Watch(metrics, settings),
        )
        stack.callback(sem.pictures.close)
        stack.callback(sem.background.shutdown, wait=True, cancel_futures=True)
        stack.callback(sem.classifying.close)
        stack.callback(Repeated("sem-sweeper", settings.sweep_every_s, sem.sweep).stop)
        yield sem


def _of(request: Request) -> Sem:
    sem: Sem = request.app.state.sem
    return sem


Here = Annotated[Sem, Depends(_of)]
