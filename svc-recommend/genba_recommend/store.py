"""Find and write the recommender's rows for one tenant. Transactions are begun and committed by whoever calls.

What of the catalogue somebody may see is decided where lists are made, by the label of each item.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Select, and_, case, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from genba_recommend.catalogue import Entry, content_hash
from genba_recommend.dataset import Item, Kind, User
from genba_recommend.tables import (
    Counter,
    EmbeddingModelVersion,
    EmbeddingRow,
    EventRow,
    ExposureRow,
    ItemRow,
    PictureRow,
    RefreshLog,
    ShownRow,
    UserChange,
    UserRow,
    VectorKind,
)
from genba_shared.registry_rows import VersionRow

BATCH = 1000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SEEN_KINDS = (Kind.LIKE, Kind.VIEW, Kind.DISLIKE)
_SAYS_SOMETHING = EventRow.kind != int(Kind.IMPRESSION)
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it is stored."""

    event_id: str
    user_id: str
    item_id: str
    kind: Kind
    at: datetime
    day: int
    weight: float
    watched_s: float | None = None
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class Deed:
    """All that one user did with one item. ``at_s``: when it first spoke for the item, None if it never did."""

    item_id: str
    at_s: float | None
    weight: float
    watched_s: float | None
    seen: bool = False


@dataclass(frozen=True, slots=True)
class Vector:
    """A stored vector, (D,), and what it was made from."""

    id: str
    content_hash: str
    vector: Float32s


def now() -> datetime:
    """The time that rows are stamped with."""
    return datetime.now(UTC)


def upsert(session: Session, table: type[Any], rows: Sequence[Mapping[str, Any]], *, key: Sequence[str]) -> None:
    """Insert rows, replacing those of the same key, in batches."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    if not rows:
        return
    statement = dialect.insert(table.__table__)
    fresh = {name: statement.excluded[name] for name in rows[0] if name not in key}
    statement = statement.on_conflict_do_update(index_elements=list(key), set_=fresh)
    for at in range(0, len(rows), BATCH):
        session.execute(statement, list(rows[at : at + BATCH]))


# --- the catalogue --------------------------------------------------------------------------------------------------


def next_revision(session: Session, tenant: str) -> int:
    """The number of this change to the catalogue; others wait for it until the transaction ends."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    made = dialect.insert(Counter).values(tenant=tenant, revision=1)
    counted = made.on_conflict_do_update(index_elements=["tenant"], set_={"revision": Counter.revision + 1})
    found: int = session.scalars(
        counted.returning(Counter.revision), execution_options={"populate_existing": True}
    ).one()
    return found


def put_items(session: Session, tenant: str, entries: Sequence[Entry]) -> int:
    """Add or replace items; the last of several with one id counts. Returns: the change's revision."""
    revision, moment = next_revision(session, tenant), now()
    latest = with_pictures(session, tenant, {entry.item.item_id: entry for entry in entries})
    rows = [
        {
            "tenant": tenant,
            "item_id": item_id,
            "document": document_of(entry),
            "clearance": entry.clearance,
            "active": entry.active,
            "content_hash": entry.content_hash,
            "revision": revision,
            "updated_at": moment,
        }
        for item_id, entry in latest.items()
    ]
    upsert(session, ItemRow, rows, key=("tenant", "item_id"))
    return revision


def with_pictures(session: Session, tenant: str, entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Entries by id, those without an embedding with that of their picture. Whoever asks holds the catalogue's counter."""
    found, ids = dict(entries), [item_id for item_id, entry in entries.items() if entry.item.embedding is None]
    mine = (PictureRow.tenant == tenant, PictureRow.vector.is_not(None))
    if not ids or session.scalar(select(PictureRow.item_id).where(*mine).limit(1)) is None:
        return found
    for at in range(0, len(ids), BATCH):
        query = select(PictureRow.item_id, PictureRow.encoder, PictureRow.vector)
        for item_id, encoder, vector in session.execute(
            query.where(*mine, PictureRow.item_id.in_(ids[at : at + BATCH]))
        ):
            found[item_id] = embedded(found[item_id], encoder, np.frombuffer(vector or b"", "<f4"))
    return found


def embedded(entry: Entry, encoder: str | None, vector: Float32s | None) -> Entry:
    """The entry with what an encoder made of its picture; None takes it away."""
    numbers = None if vector is None else tuple(round(float(x), 5) for x in vector)
    item = replace(entry.item, embedding=numbers, embedding_by=encoder)
    return replace(entry, item=item, content_hash=content_hash(item))


def document_of(entry: Entry) -> dict[str, Any]:
    """An item as its row holds it: what is empty is left out."""
    fields = {name: value for name, value in asdict(entry.item).items() if value not in (None, "", ())}
    del fields["item_id"]
    return {**fields, **({"regions": entry.regions} if entry.regions else {})}


def entries(session: Session, tenant: str, *, after: int = 0) -> tuple[list[Entry], int]:
    """Items changed after a revision, in the order of their ids, and the newest revision among them."""
    columns = (
        ItemRow.item_id,
        ItemRow.document,
        ItemRow.clearance,
        ItemRow.active,
        ItemRow.content_hash,
        ItemRow.revision,
    )
    query = select(*columns).where(ItemRow.tenant == tenant, ItemRow.revision > after).order_by(ItemRow.item_id)
    found, newest = [], after
    for item_id, document, clearance, active, content_hash_, revision in session.execute(query).yield_per(5000):
        found.append(_entry(item_id, document, clearance, active, content_hash_))
        newest = max(newest, revision)
    return found, newest


def entries_of(session: Session, tenant: str, item_ids: Sequence[str]) -> list[Entry]:
    """Items by their ids; those that are not there are left out."""
    query = select(ItemRow).where(ItemRow.tenant == tenant, ItemRow.item_id.in_(item_ids))
    return [
        _entry(row.item_id, {**row.document}, row.clearance, row.active, row.content_hash)
        for row in session.scalars(query)
    ]


def _entry(item_id: str, document: dict[str, Any], clearance: int, active: bool, content_hash_: str) -> Entry:  # noqa: FBT001
    regions = tuple(document.pop("regions", ()))
    lists: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
    }
    return Entry(Item(item_id=item_id, **lists), regions, clearance, active, content_hash_)


def revision(session: Session, tenant: str) -> int:
    """The number of the last change to the catalogue."""
    return session.scalar(select(Counter.revision).where(Counter.tenant == tenant)) or 0


# --- users ----------------------------------------------------------------------------------------------------------


def put_users(session: Session, tenant: str, users: Sequence[User]) -> None:
    """Add or replace users."""
    moment = now()
    latest = {user.user_id: user for user in users}
    rows = [{"tenant": tenant, **asdict(user), "updated_at": moment} for user in latest.values()]
    upsert(session, UserRow, rows, key=("tenant", "user_id"))


def user(session: Session, tenant: str, user_id: str) -> User:
    """A user; one of whom nothing was sent has nothing but the id."""
    row = session.get(UserRow, (tenant, user_id))
    return User(user_id) if row is None else User(user_id, row.age_range, row.region, row.sessions_per_week)


def users(session: Session, tenant: str) -> Iterator[User]:
    """All users that were sent."""
    columns = (UserRow.user_id, UserRow.age_range, UserRow.region, UserRow.sessions_per_week)
    query = select(*columns).where(UserRow.tenant == tenant).order_by(UserRow.user_id)
    return (User(*row) for row in session.execute(query).yield_per(5000))


def erase_user(session: Session, tenant: str, user_id: str) -> tuple[int, int]:
    """Delete everything of a user. Returns: how many events and shown lists there were."""
    gone = []
    for table in (EventRow, ExposureRow, UserRow):
        done: Any = session.execute(delete(table).where(table.tenant == tenant, table.user_id == user_id))
        gone.append(int(done.rowcount))
    session.execute(
        delete(EmbeddingRow).where(
            EmbeddingRow.tenant == tenant, EmbeddingRow.kind == "user", EmbeddingRow.id == user_id
        )
    )
    return gone[0], gone[1]


def users_of(session: Session, tenant: str, user_ids: Sequence[str]) -> list[User]:
    """Some users as they are; one of whom nothing is known has nothing but the id."""
    row, found = UserRow, {user_id: User(user_id) for user_id in user_ids}
    columns = (row.user_id, row.age_range, row.region, row.sessions_per_week)
    for at in range(0, len(user_ids), BATCH):
        part = row.user_id.in_(user_ids[at : at + BATCH])
        found |= {each[0]: User(*each) for each in session.execute(select(*columns).where(row.tenant == tenant, part))}
    return list(found.values())


def tell_users_changed(session: Session, tenant: str, user_ids: Sequence[str], *, erased: bool) -> None:
    """Tell other processes, which hold users in memory."""
    row = {"tenant": tenant, "user_ids": list(user_ids), "erased": erased, "at": now()}
    session.execute(insert(UserChange), [row])


def user_changes(session: Session, tenant: str, seq: int) -> Sequence[UserChange]:
    """What was told after a place in the order of arrival."""
    query = select(UserChange).where(UserChange.tenant == tenant, UserChange.seq > seq)
    return session.scalars(query.order_by(UserChange.seq)).all()


def last_user_change(session: Session, *, before: datetime | None = None) -> int:
    """The place of the newest change of all tenants, or of the newest before a moment."""
    query = select(UserChange.seq).order_by(UserChange.seq.desc()).limit(1)
    return session.scalar(query if before is None else query.where(UserChange.at < before)) or 0


def prune_user_changes(session: Session, *, before: datetime) -> None:
    """Forget what was told before a moment."""
    session.execute(delete(UserChange).where(UserChange.at < before))


# --- events ---------------------------------------------------------------------------------------------------------


def add_events(session: Session, tenant: str, events: Sequence[Event]) -> list[Event]:
    """Add events that are not there yet. Returns: those that were added, in the order given."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    moment = now()
    first: dict[str, Event] = {}
    for event in events:
        first.setdefault(event.event_id, event)
    rows = [
        {
            "tenant": tenant,
            "event_id": event.event_id,
            "user_id": event.user_id,
            "item_id": event.item_id,
            "kind": int(event.kind),
            "at": event.at,
            "day": event.day,
            "watched_s": event.watched_s,
            "weight": event.weight,
            "session_id": event.session_id,
            "received_at": moment,
        }
        for event in first.values()
    ]
    table: Any = EventRow.__table__
    adding = dialect.insert(table).on_conflict_do_nothing(index_elements=["tenant", "event_id"])
    added: set[str] = set()
    for at in range(0, len(rows), BATCH):
        added.update(session.scalars(adding.returning(table.c.event_id), rows[at : at + BATCH]))
    return [event for event in first.values() if event.event_id in added]


def deeds(session: Session, tenant: str, *, user_id: str | None = None) -> Iterator[tuple[str, Deed]]:
    """What a user, or every user, has done with each item that they touched: user by user."""
    speaks = EventRow.weight > 0
    is_seen = EventRow.kind.in_([int(kind) for kind in SEEN_KINDS])
    query = (
        select(
            EventRow.user_id,
            EventRow.item_id,
            func.min(case((speaks, EventRow.at))),
            func.max(EventRow.weight),
            func.max(EventRow.watched_s),
            func.max(case((is_seen, 1), else_=0)),
        )
        .where(EventRow.tenant == tenant, _SAYS_SOMETHING)
        .group_by(EventRow.user_id, EventRow.item_id)
        .order_by(EventRow.user_id)
    )
    if user_id is not None:
        query = query.where(EventRow.user_id == user_id)
    for user, item_id, at, weight, watched_s, saw in session.execute(query).yield_per(10_000):
        yield user, Deed(item_id, None if at is None else at.timestamp(), float(weight), watched_s, seen=bool(saw))


def seqs_after(session: Session, tenant: str, seq: int, *, limit: int) -> Sequence[int]:
    """Places in the order of arrival of events that say something, after one."""
    query = select(EventRow.seq).where(EventRow.tenant == tenant, EventRow.seq > seq, _SAYS_SOMETHING)
    return session.scalars(query.order_by(EventRow.seq).limit(limit)).all()


def events_after(session: Session, tenant: str, seq: int, *, limit: int) -> Iterator[tuple[int, Event]]:
    """Events that say something and arrived after a place, in the order of arrival."""
    row = EventRow
    columns = (row.seq, row.event_id, row.user_id, row.item_id, row.kind, row.at, row.day, row.weight, row.watched_s)
    query = select(*columns).where(row.tenant == tenant, row.seq > seq, _SAYS_SOMETHING).order_by(row.seq).limit(limit)
    for place, event_id, user_id, item_id, kind, at, day, weight, watched_s in session.execute(query):
        yield place, Event(event_id, user_id, item_id, Kind(kind), at, day, weight, watched_s)


def last_seq(session: Session, *, before: datetime | None = None) -> int:
    """The place of the newest event of all tenants, or of the newest that came before a moment."""
    query = select(EventRow.seq).order_by(EventRow.seq.desc()).limit(1)
    if before is not None:
        query = query.where(EventRow.received_at < before)
    return session.scalar(query) or 0


def _most_of_a_day(tenant: str, *, since_day: int, up_to_seq: int) -> Select[str, str, int, float]:
    """The most that each user said of an item in a day: somebody who says it twenty times is no crowd."""
    row = EventRow
    speaks = (row.tenant == tenant, row.day >= since_day, row.weight > 0, row.seq <= up_to_seq)
    most = func.max(row.weight).label("weight")
    return select(row.user_id, row.item_id, row.day, most).where(*speaks).group_by(row.item_id, row.day, row.user_id)


def said_on(
    session: Session, tenant: str, user_ids: Sequence[str], days: tuple[int, int]
) -> Iterator[tuple[int, tuple[str, str, int], float]]:
    """(place in the order of arrival, (user, item, day), weight) of what some users said from one day to another."""
    row = EventRow
    columns = (row.seq, row.user_id, row.item_id, row.day, row.weight)
    first, after_last = (
        EPOCH + timedelta(days=day) for day in (days[0], days[1] + 1)
    )  # a user's are in the order of ``at``
    speaks = (row.tenant == tenant, row.at >= first, row.at < after_last, row.weight > 0)
    for at in range(0, len(user_ids), BATCH // 2):
        query = select(*columns).where(row.user_id.in_(user_ids[at : at + BATCH // 2]), *speaks)
        for seq, user_id, item_id, day, weight in session.execute(query).yield_per(10_000):
            yield seq, (user_id, item_id, day), weight


def daily_counts(session: Session, tenant: str, *, since_day: int, up_to_seq: int) -> Iterator[tuple[str, int, float]]:
    """(item id, day, weight) over events that speak for items, up to a place in the order of arrival; see ``_most_of_a_day``."""
    said = _most_of_a_day(tenant, since_day=since_day, up_to_seq=up_to_seq).subquery()
    query = select(said.c.item_id, said.c.day, func.sum(said.c.weight)).group_by(said.c.item_id, said.c.day)
    return ((item_id, day, float(weight)) for item_id, day, weight in session.execute(query).yield_per(10_000))


def segment_counts(
    session: Session, tenant: str, *, since_day: int, up_to_seq: int
) -> Iterator[tuple[str | None, str | None, str, float, int]]:
    """(age range, region, item id, weight, times) of what was said for items, by users of whom either is known."""
    said = _most_of_a_day(tenant, since_day=since_day, up_to_seq=up_to_seq).subquery()
    of_user = and_(UserRow.tenant == tenant, UserRow.user_id == said.c.user_id)
    query = (
        select(UserRow.age_range, UserRow.region, said.c.item_id, func.sum(said.c.weight), func.count())
        .join(UserRow, of_user)
        .group_by(UserRow.age_range, UserRow.region, said.c.item_id)
    )
    return ((age, region, item_id, float(w), int(n)) for age, region, item_id, w, n in session.execute(query))


# --- vectors --------------------------------------------------------------------------------------------------------


def put_vectors(session: Session, tenant: str, version: int, kind: VectorKind, vectors: Sequence[Vector]) -> None:
    """Write vectors, replacing older ones."""
    moment = now()
    rows = [
        {
            "tenant": tenant,
            "version": version,
            "kind": kind,
            "id": each.id,
            "content_hash": each.content_hash,
            "vector": np.ascontiguousarray(each.vector, "<f4").tobytes(),
            "made_at": moment,
        }
        for each in vectors
    ]
    upsert(session, EmbeddingRow, rows, key=("tenant", "version", "kind", "id"))


def vectors(session: Session, tenant: str, version: int, kind: VectorKind) -> Iterator[Vector]:
    """All vectors of a kind under a version."""
    query = select(EmbeddingRow.id, EmbeddingRow.content_hash, EmbeddingRow.vector).where(
        EmbeddingRow.tenant == tenant, EmbeddingRow.version == version, EmbeddingRow.kind == kind
    )
    rows = session.execute(query).yield_per(5000)
    return (Vector(id_, content_hash, np.frombuffer(blob, "<f4")) for id_, content_hash, blob in rows)


def vector_hashes(session: Session, tenant: str, version: int, kind: VectorKind) -> dict[str, str]:
    """What each vector under a version was made from."""
    query = select(EmbeddingRow.id, EmbeddingRow.content_hash).where(
        EmbeddingRow.tenant == tenant, EmbeddingRow.version == version, EmbeddingRow.kind == kind
    )
    return {id_: content_hash for id_, content_hash in session.execute(query)}  # noqa: C416 (dict() of rows does not type)


def retired_versions(session: Session, model: str) -> list[int]:
    """Versions whose files the registry has deleted: they cannot serve any more."""
    query = select(VersionRow.number).where(VersionRow.model == model, VersionRow.status == "retired")
    return list(session.scalars(query))


def delete_vectors(session: Session, tenant: str, versions: Sequence[int]) -> None:
    """Delete all vectors under some versions."""
    session.execute(delete(EmbeddingRow).where(EmbeddingRow.tenant == tenant, EmbeddingRow.version.in_(versions)))


def add_model_version(session: Session, *, model: str, version: int, tower: str, path: str) -> None:
    """Note a version that refreshes may embed for."""
    row = {
        "model": model,
        "version": version,
        "tower": tower,
        "path": path,
        "active": False,
        "refreshes": 0,
        "created_at": now(),
    }
    session.execute(insert(EmbeddingModelVersion).values(**row))


def mark_active(session: Session, model: str, version: int | None) -> None:
    """Repeat which version serves; writes nothing when it is known already."""
    table = EmbeddingModelVersion
    is_it = table.version == version if version is not None else table.version.is_(None)
    wrong = session.scalar(
        select(func.count()).where(table.model == model, ((~is_it) & table.active) | (is_it & ~table.active))
    )
    if wrong:
        session.execute(update(table).where(table.model == model).values(active=is_it))


def refreshes(session: Session, model: str) -> dict[int, int]:
    """How many refreshes each version has had."""
    query = select(EmbeddingModelVersion.version, EmbeddingModelVersion.refreshes)
    rows = session.execute(query.where(EmbeddingModelVersion.model == model))
    return {version: count for version, count in rows}  # noqa: C416 (dict() of rows does not type)


def note_refresh(session: Session, model: str, version: int) -> None:
    """A refresh of a version has ended: readers take up what it wrote."""
    table = EmbeddingModelVersion
    session.execute(
        update(table)
        .where(table.model == model, table.version == version)
        .values(refreshes=table.refreshes + 1, refreshed_at=now())
    )


# --- the refresh log and shown lists --------------------------------------------------------------------------------


def log_refresh(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write lines of a refresh."""
    if rows:
        session.execute(insert(RefreshLog), [{"at": now(), **row} for row in rows])


def prune_refresh_log(session: Session, *, before: datetime) -> None:
    """Forget lines of before a moment."""
    session.execute(delete(RefreshLog).where(RefreshLog.at < before))


def add_exposures(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write lists as they were shown."""
    if rows:
        session.execute(insert(ExposureRow), list(rows))


def erase_exposures(session: Session, tenant: str, user_id: str, *, since: datetime, until: datetime) -> None:
    """Delete the lists that a user was shown between two moments."""
    row = ExposureRow
    shown = (row.tenant == tenant, row.at.between(since, until), row.user_id == user_id)
    session.execute(delete(row).where(*shown))


def prune_exposures(session: Session, *, before: datetime) -> None:
    """Forget lists that were shown before a moment."""
    session.execute(delete(ExposureRow).where(ExposureRow.at < before))


# --- how often items were shown -------------------------------------------------------------------------------------


def add_shown(session: Session, tenant: str, times: Mapping[str, float]) -> None:
    """Add to how often items were shown, by id."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    moment = now()
    # In one order everywhere: two processes that add to the same items must not wait for each other.
    rows = [{"tenant": tenant, "item_id": id_, "times": by, "changed_at": moment} for id_, by in sorted(times.items())]
    adding = dialect.insert(ShownRow)
    adding = adding.on_conflict_do_update(
        index_elements=["tenant", "item_id"],
        set_={"times": ShownRow.times + adding.excluded.times, "changed_at": adding.excluded.changed_at},
    )
    for at in range(0, len(rows), BATCH):
        session.execute(adding, rows[at : at + BATCH])


def shown(session: Session, tenant: str, *, since: datetime | None) -> dict[str, float]:
    """How often items were shown, by id: all of them, or those of which that has changed since."""
    query = select(ShownRow.item_id, ShownRow.times).where(ShownRow.tenant == tenant)
    if since is not None:
        query = query.where(ShownRow.changed_at >= since)
    return {id_: times for id_, times in session.execute(query)}  # noqa: C416 (dict() of rows does not type)


def prune_shown(session: Session, *, before: datetime) -> None:
    """Forget items that were shown last before a moment."""
    session.execute(delete(ShownRow).where(ShownRow.changed_at < before))
