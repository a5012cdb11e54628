"""Keep the promises of ``sem_erasures``: delete artifacts that no view needs any more.

A promise and its fulfilment are one transaction each, so a crash between them only means that the next sweep does it.
"""

from __future__ import annotations

from sqlalchemy import delete
from sqlalchemy.orm import Session

from genba_sem import store
from genba_sem.tables import SemErasure
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database, utc_now
from genba_shared.telemetry import get_logger

log = get_logger(__name__)

BATCH = 200


def erase_due(database: Database, artifacts: Artifacts) -> int:
    """Fulfil the promises that are due; how many artifacts went. One that fails stays promised and is tried again."""
    with database.read() as session:
        due = store.due_erasures(session, limit=BATCH)
    gone = 0
    for key in due:
        try:
            with database.transaction() as session:
                gone += _fulfil(session, artifacts, key)
        except Exception:
            log.exception("erasure_failed")
    return gone


def _fulfil(session: Session, artifacts: Artifacts, key: str) -> int:
    """Delete the promise first: its row lock keeps out whoever is about to need the artifact."""
    mine = delete(SemErasure).where(SemErasure.target == key, SemErasure.due_at <= utc_now())
    if session.execute(mine.returning(SemErasure.target)).first() is None or store.is_owned(session, key):
        return 0
    artifacts.delete(key)
    return 1
