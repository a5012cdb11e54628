"""One submission, one effect, on SQLite and on Postgres."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session

from genba_shared.audit import AuditRow, append_in
from genba_shared.db import Database, utc_now
from genba_shared.dependencies import IdempotencyKey, OptionalIdempotencyKey
from genba_shared.idempotency import Answer, Idempotency, IdempotencyRow, Submission, read_key
from genba_shared.principal import Principal
from genba_shared.problems import BadRequest, IdempotencyInFlight, IdempotencyKeyMissing, IdempotencyKeyReused
from genba_shared.service import create_service
from genba_shared.settings import Platform

Build = Callable[..., Principal]


@pytest.fixture
def submission(principal: Build) -> Callable[..., Submission]:
    def build(key: str = "k", *, payload: Any = None, operation: str = "POST /v1/jobs", **who: Any) -> Submission:
        return Submission.of(
            key, principal=principal("operator", **who), operation=operation, payload=payload or {"n": 1}
        )

    return build


def effect(session: Session) -> Answer:
    """Something that leaves a row: an audit entry."""
    entry = append_in(session, "thing_made", actor="a", subject="thing")
    return Answer(201, {"seq": entry.seq}, {"Location": f"/v1/things/{entry.seq}"})


def effects(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(AuditRow)) or 0


Submit = Callable[..., Submission]


def test_the_second_submission_gets_the_first_ones_answer(database: Database, submission: Submit) -> None:
    keys = Idempotency(database)
    first, second = keys.once(submission(), effect), keys.once(submission(), effect)
    assert (first.body, first.replayed) == ({"seq": 1}, False)
    assert (second.status, second.body, second.replayed) == (201, {"seq": 1}, True)
    assert second.headers == {"Location": "/v1/things/1"}
    assert effects(database) == 1


def test_the_order_of_members_does_not_make_another_payload(database: Database, submission: Submit) -> None:
    keys = Idempotency(database)
    keys.once(submission(payload={"a": 1, "b": 2}), effect)
    assert keys.once(submission(payload={"b": 2, "a": 1}), effect).replayed


@pytest.mark.parametrize("other", [{"payload": {"n": 2}}, {"operation": "POST /v1/evaluations"}])
def test_a_key_with_another_request_is_refused(database: Database, submission: Submit, other: dict[str, Any]) -> None:
    keys = Idempotency(database)
    keys.once(submission(), effect)
    with pytest.raises(IdempotencyKeyReused) as refused:
        keys.once(submission(**other), effect)
    assert refused.value.status == 422
    assert effects(database) == 1


@pytest.mark.parametrize("other", [{"subject": "key_other"}, {"tenant": "plant-2"}])
def test_keys_of_other_principals_and_tenants_are_other_keys(
    database: Database, submission: Submit, other: dict[str, Any]
) -> None:
    keys = Idempotency(database)
    keys.once(submission(), effect)
    assert not keys.once(submission(**other), effect).replayed


def test_an_effect_that_fails_leaves_neither_key_nor_effect(database: Database, submission: Submit) -> None:
    def fail(session: Session) -> Answer:
        effect(session)
        raise RuntimeError("half way")

    keys = Idempotency(database)
    with pytest.raises(RuntimeError):
        keys.once(submission(), fail)
    assert effects(database) == 0
    assert not keys.once(submission(), effect).replayed


def test_a_thousand_concurrent_submissions_with_one_key_make_one_effect(database: Database, submission: Submit) -> None:
    keys, one = Idempotency(database), submission()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: keys.once(one, effect), range(1000)))
    assert effects(database) == 1
    assert [answer.body for answer in answers] == [{"seq": 1}] * 1000
    assert sum(not answer.replayed for answer in answers) == 1


def test_when_the_first_fails_while_others_wait_one_of_them_has_the_effect(
    database: Database, submission: Submit
) -> None:
    keys, one = Idempotency(database), submission()
    failing = threading.Event()

    def fail_once(session: Session) -> Answer:
        if not failing.is_set():
            failing.set()
            raise RuntimeError("the first fails")
        return effect(session)

    def submit(_: int) -> Answer | None:
        try:
            return keys.once(one, fail_once)
        except RuntimeError:
            return None

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(24)))
    assert answers.count(None) == 1
    assert effects(database) == 1


def test_a_key_is_forgotten_after_24_hours(database: Database, submission: Submit) -> None:
    keys = Idempotency(database)
    keys.once(submission(), effect)
    with database.transaction() as session:
        kept_until = session.scalars(select(IdempotencyRow.expires_at)).one()
        assert timedelta(hours=23, minutes=59) < kept_until - utc_now() <= timedelta(hours=24)
        session.execute(update(IdempotencyRow).values(expires_at=utc_now() - timedelta(seconds=1)))
    assert not keys.once(submission(payload={"n": 99}), effect).replayed


def test_purging_removes_expired_keys_only(database: Database, submission: Submit) -> None:
    keys = Idempotency(database)
    keys.once(submission("old"), effect)
    with database.transaction() as session:
        session.execute(update(IdempotencyRow).values(expires_at=utc_now() - timedelta(seconds=1)))
    keys.once(submission("new"), effect)
    assert keys.purge() == 1
    assert keys.once(submission("new"), effect).replayed


def test_while_long_work_goes_on_a_second_submission_is_told_to_wait(database: Database, submission: Submit) -> None:
    keys = Idempotency(database)
    with keys.claim(submission()) as claim:
        with pytest.raises(IdempotencyInFlight) as told, keys.claim(submission()):
            pass
        assert told.value.headers["Retry-After"] == "1"
        with pytest.raises(IdempotencyInFlight):
            keys.once(submission(), effect)
        with pytest.raises(IdempotencyKeyReused):
            keys.once(submission(payload={"n": 2}), effect)
        with database.transaction() as session:
            claim.finish(session, effect(session))
    with keys.claim(submission()) as again:
        assert again.answer is not None
        assert again.answer.body == {"seq": 1}


def test_long_work_that_fails_gives_the_key_back(database: Database, submission: Submit) -> None:
    keys = Idempotency(database)
    with pytest.raises(RuntimeError), keys.claim(submission()):
        raise RuntimeError
    assert not keys.once(submission(), effect).replayed


@pytest.mark.distributed
def test_a_key_that_is_given_back_between_two_statements_is_taken(database: Database, submission: Submit) -> None:
    if database.is_sqlite:
        pytest.skip("has one writer: nobody gives a key back while another transaction takes it")
    keys, others = Idempotency(database), Database(database.url.render_as_string(hide_password=False))
    work = ExitStack()
    work.enter_context(Idempotency(others).claim(submission()))

    def give_back(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "FOR UPDATE" in statement:
            work.close()

    event.listen(database.engine, "before_cursor_execute", give_back)
    assert keys.once(submission(), effect).replayed is False
    assert effects(database) == 1
    others.close()


def test_a_claim_whose_process_died_runs_out(database: Database, submission: Submit) -> None:
    keys = Idempotency(database)
    claim = keys.claim(submission(), lease_s=300)
    claim.__enter__()  # and never exits: the process is gone
    with pytest.raises(IdempotencyInFlight):
        keys.once(submission(), effect)
    with database.transaction() as session:
        session.execute(update(IdempotencyRow).values(claimed_until=utc_now() - timedelta(seconds=1)))
    assert not keys.once(submission(), effect).replayed


def test_a_claim_that_outlived_its_lease_cannot_have_its_effect_too(database: Database, submission: Submit) -> None:
    keys = Idempotency(database)

    def work_too_slowly() -> None:
        with keys.claim(submission()) as slow:
            with database.transaction() as session:
                session.execute(update(IdempotencyRow).values(claimed_until=utc_now() - timedelta(seconds=1)))
            keys.once(submission(), effect)
            with database.transaction() as session:
                slow.finish(session, effect(session))

    with pytest.raises(IdempotencyInFlight, match="taken over"):
        work_too_slowly()
    assert effects(database) == 1
    assert keys.once(submission(), effect).body == {"seq": 1}


@pytest.mark.parametrize(("header", "key"), [("abc", "abc"), ('"abc"', "abc"), ("a b", "a b"), ("x" * 255, "x" * 255)])
def test_a_key_may_be_quoted_as_in_the_draft_or_bare(header: str, key: str) -> None:
    assert read_key(header) == key


@pytest.mark.parametrize("header", ["", '""', "x" * 256, "naïve", "tab\there", 'half"quoted'])
def test_a_key_that_is_not_printable_ascii_or_too_long_is_refused(header: str) -> None:
    with pytest.raises(BadRequest, match="printable"):
        read_key(header)


def test_a_missing_key_is_refused_with_what_to_send() -> None:
    with pytest.raises(IdempotencyKeyMissing, match="UUID"):
        read_key(None)


def test_a_route_documents_its_key_and_refuses_to_go_without(platform: Platform, signed: Callable[..., Any]) -> None:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield

    app = create_service("sop", title="Test", platform=platform, lifespan=lifespan)

    @app.post("/v1/sop/submit")
    def submit(key: IdempotencyKey) -> str:
        return key

    @app.post("/v1/sop/maybe")
    def maybe(key: OptionalIdempotencyKey) -> str | None:
        return key

    client, headers = TestClient(app), signed("operator")
    missing = client.post("/v1/sop/submit", headers=headers)
    assert (missing.status_code, missing.json()["type"]) == (400, "urn:genba:problem:idempotency-key-missing")
    assert client.post("/v1/sop/submit", headers={**headers, "Idempotency-Key": '"abc"'}).json() == "abc"
    assert client.post("/v1/sop/submit", headers={**headers, "Idempotency-Key": "x" * 300}).status_code == 400
    assert client.post("/v1/sop/maybe", headers=headers).json() is None
    (parameter,) = app.openapi()["paths"]["/v1/sop/submit"]["post"]["parameters"]
    assert (parameter["name"], parameter["in"], parameter["required"]) == ("Idempotency-Key", "header", True)
    for key, fits in {"abc": True, '"abc"': True, "a b": True, "": False, '""': False, "ä": False, '"': False}.items():
        assert (re.search(parameter["schema"]["pattern"], key) is not None) is fits, key
