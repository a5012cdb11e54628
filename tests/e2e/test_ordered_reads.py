"""Tables that grow are read in the order of an index: what is asked for all the time neither scans nor sorts what nobody asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from genba_llm import store as decisions
from genba_llm.tables import EscalationRow
from genba_recommend import measuring, store
from genba_sem import lanes, reviews
from genba_shared.db import Database
from genba_shared.principal import Clearance, Principal
from genba_sop import review

SOMEBODY = Principal("key:somebody", (), frozenset(), Clearance.SECRET)


def plans(database: Database, look: Callable[[Session], Any]) -> list[str]:
    """How SQLite would carry out whatever ``look`` asks, step by step."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        asked.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        with database.read() as session:
            look(session)
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    with database.engine.connect() as connection:
        return [
            str(step[3])
            for statement, parameters in asked
            if statement.startswith("SELECT")
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]


READS: dict[str, tuple[Callable[[Session], Any], str]] = {
    "events for what follows them": (
        lambda s: list(store.events_after(s, "a", 7, limit=9)),
        "recommend_events_tenant_seq",
    ),
    "events for an estimate": (lambda s: store.seqs_after(s, "a", 7, limit=9), "recommend_events_tenant_seq"),
    "what came of an experiment": (
        lambda s: s.execute(measuring.done_between("a", store.now(), None)).all(),
        "recommend_events_tenant_day",
    ),
    "users who changed": (lambda s: store.user_changes(s, "a", 7), "recommend_user_changes_tenant_seq"),
    "what some users said already": (
        lambda s: list(store.said_on(s, "a", ["u", "v"], (1, 9))),
        "recommend_events_tenant_user_id_at",
    ),
    "views that a first lane is fitted to": (
        lambda s: s.scalars(lanes.newest_views("a", 3).limit(9)).all(),
        "sem_particles_tenant_id",
    ),
    "reviews, newest first": (
        lambda s: s.scalars(reviews.newest(SOMEBODY).limit(9)).all(),
        "sem_reviews_tenant_id",
    ),
    "reviews that calibrate": (lambda s: lanes.calibrating_count(s, "a", 3), "sem_reviews_tenant_calibrates_id"),
    "what reviewers taught about scores": (lambda s: review.calibration(s, "a", 3), "sop_reviews"),
    "questions that wait": (
        lambda s: decisions.page(s, EscalationRow, SOMEBODY, limit=9, cursor=None),
        "llm_escalations_tenant_id",
    ),
}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('reads')}/genba.db")
    database.upgrade()
    yield database
    database.close()


@pytest.mark.parametrize("name", READS)
def test_what_is_read_all_the_time_follows_an_index(database: Database, name: str) -> None:
    look, index = READS[name]
    steps = plans(database, look)
    assert index in steps[0], steps
    assert not [each for each in steps if "TEMP B-TREE" in each or (each.startswith("SCAN") and "INDEX" not in each)], (
        steps
    )
