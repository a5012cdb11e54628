"""One submission, one effect: the ``Idempotency-Key`` header (IETF draft 07).

A key belongs to one principal of one tenant for 24 hours. The answer is stored in the transaction of the effect, so
there is never one without the other. Knows nothing of what the effect is.

Two ways to use it:

- ``once``: the effect is a short transaction. Whoever comes second waits for the first, then gets its answer.
- ``claim``: the effect takes long before it writes. Whoever comes second is told at once (409); a claim whose
  process died runs out by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import orjson
from pydantic import BaseModel, JsonValue
from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from genba_shared.db import Database, Json, Record, utc_now
from genba_shared.principal import Principal
from genba_shared.problems import BadRequest, IdempotencyInFlight, IdempotencyKeyMissing, IdempotencyKeyReused

HEADER = "Idempotency-Key"
KEEP_S = 24 * 3600.0
_MAX_KEY_CHARS = 255


class IdempotencyRow(Record):
    """A key and, once its effect is committed, the answer."""

    __tablename__ = "platform_idempotency"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    claimed_until: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    status: Mapped[int | None]  # NULL: in flight
    body: Mapped[Any | None] = mapped_column(Json)
    headers: Mapped[Any | None] = mapped_column(Json)


@dataclass(frozen=True)
class Submission:
    """One request as far as idempotency goes: whose key, and a fingerprint of what was asked."""

    tenant: str
    subject: str
    key: str
    fingerprint: str

    @classmethod
    def of(
        cls, key: str, *, principal: Principal, operation: str, payload: BaseModel | JsonValue | bytes
    ) -> Submission:
        """``operation`` (such as ``"POST /v1/jobs"``) is part of the fingerprint: a key serves one operation."""
        if isinstance(payload, BaseModel):
            payload = payload.model_dump(mode="json")
        data = payload if isinstance(payload, bytes) else orjson.dumps(payload, option=orjson.OPT_SORT_KEYS)
        fingerprint = hashlib.sha256(operation.encode() + b"\n" + data).hexdigest()
        return cls(principal.tenant, principal.subject, key, fingerprint)


@dataclass(frozen=True)
class Answer:
    """What the effect answered, or what it answered the first time."""

    status: int
    body: JsonValue
    headers: Mapping[str, str] = field(default_factory=dict)
    replayed: bool = False


def key_missing() -> IdempotencyKeyMissing:
    """What a submission without a key is told; the edge says it for FastAPI, which would call it Invalid."""
    return IdempotencyKeyMissing(f"Send {HEADER}: a fresh UUID per submission, the same one when you retry it.")


def read_key(header: str | None) -> str:
    """The key in a header value: a quoted string as in the draft, or the bare characters that most clients send.

    Raises: IdempotencyKeyMissing; BadRequest for one that is empty, longer than 255 or not printable ASCII.
    """
    if header is None:
        raise key_missing()
    quoted = len(header) > 1 and header[0] == header[-1] == '"'
    key = header[1:-1] if quoted else header
    if not 0 < len(key) <= _MAX_KEY_CHARS or not (key.isascii() and key.isprintable()) or '"' in key:
        raise BadRequest(f"{HEADER} must be 1 to {_MAX_KEY_CHARS} printable ASCII characters, such as a UUID.")
    return key


@dataclass(frozen=True)
class Claim:
    """The right to do one submission's effect; or, when ``answer`` is there, what it answered before."""

    submission: Submission
    until: datetime  # also the fence: whoever takes the key over later holds a later one
    answer: Answer | None = None

    def finish(self, session: Session, answer: Answer) -> Answer:
        """Store the answer; call it in the transaction that has the effect, which must not commit if this raises.

        Raises: IdempotencyInFlight if the lease ran out and another request took the key over.
        """
        stored = session.execute(
            update(IdempotencyRow)
            .where(*self._mine())
            .values(status=answer.status, body=answer.body, headers=dict(answer.headers))
            .returning(IdempotencyRow.key)
        )
        if stored.first() is None:
            raise IdempotencyInFlight("This took longer than its claim, and another request has taken over.")
        return replace(answer, replayed=False)

    def release(self, session: Session) -> None:
        """Give the key back unless the effect has been finished, or taken over."""
        session.execute(delete(IdempotencyRow).where(*self._mine()))

    def _mine(self) -> tuple[ColumnElement[bool], ...]:
        row = IdempotencyRow
        return (*_is(self.submission), row.status.is_(None), row.claimed_until == self.until)


class Idempotency:
    """Keys of one database."""

    def __init__(self, database: Database, *, keep_s: float = KEEP_S) -> None:
        self._database = database
        self._keep_s = keep_s

    def once(self, submission: Submission, effect: Callable[[Session], Answer]) -> Answer:
        """Run ``effect`` and store its answer in one transaction, or give the answer stored by an earlier one.

        Raises: IdempotencyKeyReused (422) for another payload; IdempotencyInFlight (409) while a claim is held.
        """
        with self._database.transaction() as session:
            claim = begin(session, submission, keep_s=self._keep_s)
            return claim.answer or claim.finish(session, effect(session))

    @contextmanager
    def claim(self, submission: Submission, *, lease_s: float = 300) -> Iterator[Claim]:
        """Hold the key while long work goes on outside any transaction.

        The block either finds ``claim.answer`` (done before), or works and calls ``claim.finish`` in its last
        transaction. A block that raises, or never finishes, gives the key back.
        """
        with self._database.transaction() as session:
            claim = begin(session, submission, keep_s=self._keep_s, lease_s=lease_s)
        try:
            yield claim
        finally:
            if claim.answer is None:
                with self._database.transaction() as session:
                    claim.release(session)

    def purge(self) -> int:
        """Delete keys past their 24 hours; how many went."""
        with self._database.transaction() as session:
            gone = session.execute(
                delete(IdempotencyRow).where(IdempotencyRow.expires_at < utc_now()).returning(IdempotencyRow.key)
            )
            return len(gone.all())


def begin(session: Session, submission: Submission, *, keep_s: float = KEEP_S, lease_s: float = 0.0) -> Claim:
    """Take the key inside ``session``'s transaction, or find what was answered before.

    Two transactions with one key: the second waits at the insert until the first commits (then it replays) or rolls
    back (then it inserts). On SQLite the write lock has put them in line before.
    """
    now = utc_now()
    claim = Claim(submission, now + timedelta(seconds=lease_s))
    lease = {"claimed_until": claim.until, "expires_at": now + timedelta(seconds=keep_s)}
    row: IdempotencyRow | None = None
    while row is None:  # one that was there for the insert may have been given back before it is looked at
        if session.execute(_insert_unless_there(session, submission, lease)).first() is not None:
            return claim
        row = session.scalars(select(IdempotencyRow).where(*_is(submission)).with_for_update()).one_or_none()
    if row.expires_at <= now or (row.status is None and row.claimed_until <= now):
        anew = {"fingerprint": submission.fingerprint, "status": None, "body": None, "headers": None}
        session.execute(update(IdempotencyRow).where(*_is(submission)).values(**anew, **lease))
        return claim
    if row.fingerprint != submission.fingerprint:
        raise IdempotencyKeyReused(
            f"{HEADER} {submission.key!r} was used for another request; send a fresh key for a new one.",
            errors=[{"field": HEADER, "message": "was used with another payload"}],
        )
    if row.status is None:
        raise IdempotencyInFlight("The first request with this key has not finished; try again.", retry_after_s=1)
    return replace(claim, answer=Answer(row.status, row.body, row.headers or {}, replayed=True))


def _is(submission: Submission) -> tuple[ColumnElement[bool], ...]:
    return (
        IdempotencyRow.tenant == submission.tenant,
        IdempotencyRow.subject == submission.subject,
        IdempotencyRow.key == submission.key,
    )


def _insert_unless_there(session: Session, submission: Submission, lease: Mapping[str, datetime]) -> Any:
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    return (
        dialect.insert(IdempotencyRow)
        .values(
            tenant=submission.tenant,
            subject=submission.subject,
            key=submission.key,
            fingerprint=submission.fingerprint,
            **lease,
        )
        .on_conflict_do_nothing()
        .returning(IdempotencyRow.key)
    )
