"""Keep the promises of ``sop_erasures``: delete artifacts that no record needs any more, and vectors of videos that
are gone.

A promise and its fulfilment are one transaction each, so a crash between them only means that the next sweep does it.
Knows nothing of
who asked for a deletion.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import delete
from sqlalchemy.orm import Session

from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.telemetry import get_logger
from genba_sop import store
from genba_sop.tables import Erasure

log = get_logger(__name__)

BATCH = 100


def expire(database: Database) -> int:
    """Make the videos past their retention invisible and promise their erasure; how many."""
    with database.transaction() as session:
        videos = store.expired_videos(session, limit=BATCH)
        for video in videos:
            store.discard_video(session, video)
        return len(videos)


def erase_due(database: Database, artifacts: Artifacts, erase_clips: Callable[[str, int], None]) -> int:
    """Fulfil the promises that are due; how many things went. One that fails stays promised and is tried again."""
    with database.read() as session:
        due = [(row.id, row.kind, row.target, row.clip_count) for row in store.due_erasures(session, limit=BATCH)]
    gone = 0
    for row_id, kind, target, clip_count in due:
        try:
            if kind == "clips":
                erase_clips(target, clip_count)
            with database.transaction() as session:
                gone += _fulfil(session, artifacts, row_id, kind=kind, target=target)
        except Exception:
            log.exception("erasure_failed", kind=kind)
    return gone


def _fulfil(session: Session, artifacts: Artifacts, row_id: str, *, kind: str, target: str) -> int:
    """Delete the promise first: its row lock keeps out whoever is about to need the artifact."""
    taken = session.execute(delete(Erasure).where(Erasure.id == row_id).returning(Erasure.id)).first()
    if taken is None:
        return 0
    if kind == "artifact":
        if store.is_owned(session, target):
            return 0
        artifacts.delete(target)
    return 1
