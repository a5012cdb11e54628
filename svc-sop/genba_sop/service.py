"""What svc-sop's routes stand on, made once per process: stores, pools, encoder, references, vectors. Knows no
route.
"""

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

from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.idempotency import Idempotency
from genba_shared.jobs import Jobs
from genba_shared.pool import WorkPool
from genba_shared.principal import Principal
from genba_shared.problems import Problem
from genba_shared.queue import Wakeups, make_celery
from genba_shared.repeated import Repeated
from genba_shared.spool import open_spool
from genba_shared.telemetry import Metrics, get_logger
from genba_shared.vectors import Vectors, open_vectors
from genba_sop import decoding, erasure, evidence, explaining, observation, sight, spoken, transcripts
from genba_sop.alignment import warm_up
from genba_sop.answering import Writer
from genba_sop.clip_index import ClipIndex
from genba_sop.encoders import FrameEncoder, PictureEncoder, open_encoder, picture_encoder
from genba_sop.evaluations import Evaluations
from genba_sop.ingest import Owner, Prepared, Received, limits_of, prepare, record
from genba_sop.procedures import Procedures
from genba_sop.settings import Settings
from genba_sop.tables import Video

log = get_logger(__name__)


@dataclass(frozen=True)
class Sop:
    """The resources of one process."""

    settings: Settings
    spool: Path  # where uploads land
    database: Database
    artifacts: Artifacts
    idempotency: Idempotency
    jobs: Jobs
    encoder: FrameEncoder
    pictures: PictureEncoder
    procedures: Procedures
    evaluations: Evaluations
    clips: ClipIndex
    extracting: WorkPool
    evaluating: WorkPool
    background: ThreadPoolExecutor
    writer: Writer | None  # words answers; None: passages do

    def ingest(self, received: Received, owner: Owner, *, transcript: bytes | None = None) -> tuple[Video, bool]:
        """Decode, embed and record a video in this process, with its transcript; also whether it was there before.

        Raises:  VideoTooLong for one that a job should take (see ``Settings.job_above_s``), and what ``extract`` and
        ``transcripts.read`` raise.
        """
        prepared = self.prepare(received)
        cues = None if transcript is None else transcripts.read(transcript, duration_s=prepared.duration_s)
        with self.database.transaction() as session:
            video, known = record(session, self.artifacts, prepared, owner, cues=cues)
        self.background.submit(self.index)
        return video, known

    def prepare(self, received: Received) -> Prepared:
        """Everything of an ingest but its row."""
        return prepare(
            received,
            database=self.database,
            artifacts=self.artifacts,
            encoder=self.encoder,
            limits=limits_of(self.settings, in_request=True),
            sample_fps=self.settings.sample_fps,
        )

    def warm(self, principal: Principal, procedure_id: str) -> None:
        """Fit a procedure's reference in the background, so that the first evaluation need not wait for it."""

        def fit() -> None:
            try:
                self.evaluations.warm(principal, procedure_id)
            except Problem as problem:  # deleted in the meantime, or golds that do not fit: whoever scores will be told
                log.info("reference_not_fitted", procedure_id=procedure_id, reason=problem.code)
            except Exception:
                log.exception("reference_not_fitted", procedure_id=procedure_id)

        self.background.submit(fit)

    def index(self) -> None:
        """Index what is new; a failure is logged and made up for at the next occasion."""
        try:
            self.clips.index_pending()
        except Exception:
            log.exception("indexing_failed")

    def sweep(self) -> None:
        """Retention, erasure, indexing: everything that is due."""
        erasure.expire(self.database)
        erasure.erase_due(self.database, self.artifacts, self.clips.erase)
        spoken.enter_missing(self.database)
        self.index()
        self.idempotency.purge()

    def database_answers(self) -> str | None:
        """Readiness: None when well."""
        with self.database.read() as session:
            session.execute(text("SELECT 1"))
        return None


@contextlib.asynccontextmanager
async def open_service(settings: Settings, metrics: Metrics) -> AsyncIterator[Sop]:
    """Open everything, sweep now and then, and close it in order."""
    async with contextlib.AsyncExitStack() as stack:
        # The pools are the parallelism: BLAS threads of their own would only wait for each other (measured: 31 against
        # 56 ms of CPU per evaluation on two busy cores).
        stack.enter_context(threadpool_limits(limits=1, user_api="blas"))
        database = Database(settings.platform.database_url)
        stack.callback(database.close)
        await asyncio.to_thread(database.upgrade)
        artifacts = Artifacts(settings.platform.artifacts_url)
        vectors: Vectors = open_vectors(settings.platform)
        stack.callback(vectors.close)
        encoder = open_encoder(settings.encoder, weights=settings.encoder_weights)
        writer = _open_writer(settings)
        if writer is not None:
            stack.push_async_callback(writer.close)
        wakeups = Wakeups(make_celery(settings.platform))
        stack.callback(wakeups.close)
        sop = Sop(
            settings=settings,
            spool=stack.enter_context(open_spool(settings.platform.home, "sop")),
            database=database,
            artifacts=artifacts,
            idempotency=Idempotency(database),
            jobs=Jobs(database, wake=wakeups.send),
            encoder=encoder,
            pictures=picture_encoder(encoder),
            procedures=Procedures(database, artifacts),
            evaluations=Evaluations(
                database,
                artifacts,
                references_kept=settings.reference_cache,
                coverage=settings.conformal_level,
            ),
            clips=ClipIndex(vectors, database, artifacts, encoder=encoder.id, dim=encoder.dim),
            extracting=WorkPool(
                "extract", workers=settings.extract_workers, queue=settings.extract_queue, metrics=metrics
            ),
            evaluating=WorkPool(
                "evaluate", workers=settings.evaluate_workers, queue=settings.evaluate_queue, metrics=metrics
            ),
            background=ThreadPoolExecutor(1, thread_name_prefix="sop-background"),
            writer=writer,
        )
        stack.callback(sop.background.shutdown, wait=True, cancel_futures=True)
        stack.callback(sop.evaluating.close)
        stack.callback(sop.extracting.close)
        await asyncio.to_thread(sop.clips.open)
        for kernels in (
            warm_up,
            decoding.warm_up,
            observation.warm_up,
            sight.warm_up,
            evidence.warm_up,
            explaining.warm_up,
        ):  # the first evaluation does not pay for loading them
            sop.background.submit(kernels)
        stack.callback(Repeated("sop-sweeper", settings.sweep_every_s, sop.sweep, at_once=True).stop)
        yield sop


def _open_writer(settings: Settings) -> Writer | None:
    if settings.llm_url is None or settings.llm_model is None:
        return None
    key, timeout_s = settings.load_llm_api_key(), settings.llm_timeout_s
    return Writer(settings.llm_url, settings.llm_model, api_key=key, timeout_s=timeout_s)


def _of(request: Request) -> Sop:
    sop: Sop = request.app.state.sop
    return sop


Here = Annotated[Sop, Depends(_of)]
