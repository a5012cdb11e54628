"""Find and write the pictures of items. A vector goes to the picture's row and to the item in one transaction.

A catalogue's embeddings come from one place: they are sent with the items, or one encoder makes them of pictures. Towers read those
of the encoder that they were trained with and no others (``features``), so nothing is mixed while pictures are embedded anew.
Transactions are begun and committed by whoever calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

import numpy as np
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from genba_recommend import store
from genba_recommend.store import Float32s
from genba_recommend.tables import ItemRow, PictureRow

State = Literal["waiting", "embedded", "unreadable"]
OTHER_ENCODER: Final = "other_encoder"  # svc-sop has another one than the catalogue's vectors are of
CLAIM: Final = timedelta(minutes=2)


@dataclass(frozen=True)
class Kept:
    """A picture among the artifacts."""

    key: str
    sha256: str
    media_type: str
    size_bytes: int


@dataclass(frozen=True)
class Made:
    """What an encoder made of a picture; ``vector`` None: it could not be read, and why."""

    encoder: str
    vector: Float32s | None
    error: str | None = None


@dataclass(frozen=True)
class Claimed:
    """A picture to embed."""

    tenant: str
    item_id: str
    key: str
    sha256: str
    size_bytes: int


def put(session: Session, tenant: str, item_id: str, kept: Kept, *, note: str | None) -> None:
    """Set an item's picture in place of the one it may have; it waits to be embedded."""
    row = {
        "tenant": tenant, "item_id": item_id, "key": kept.key, "sha256": kept.sha256, "media_type": kept.media_type,
        "size_bytes": kept.size_bytes, "state": "waiting", "note": note, "encoder": None, "vector": None,
        "claimed_until": None, "sent_at": store.now(),
    }  # fmt: skip
    store.upsert(session, PictureRow, [row], key=("tenant", "item_id"))


def get(session: Session, tenant: str, item_id: str) -> PictureRow | None:
    """An item's picture."""
    return session.get(PictureRow, (tenant, item_id))


def drop(session: Session, tenant: str, item_id: str) -> str | None:
    """Delete an item's picture and take its embedding away. Returns: the key, where nobody else has the same picture."""
    revision = store.next_revision(session, tenant)
    row = get(session, tenant, item_id)
    if row is None:
        return None
    key = row.key
    session.execute(delete(PictureRow).where(PictureRow.tenant == tenant, PictureRow.item_id == item_id))
    _write(session, tenant, {item_id: (None, None)}, revision)
    others = session.scalar(select(func.count()).where(PictureRow.tenant == tenant, PictureRow.key == key))
    return None if others else key


def encoder_of(session: Session, tenant: str) -> str | None:
    """The encoder of the pictures that are embedded; None where none is."""
    row = PictureRow
    return session.scalar(select(row.encoder).where(row.tenant == tenant, row.vector.is_not(None)).limit(1))


def counts(session: Session, tenant: str) -> dict[tuple[str, str | None], int]:
    """How many pictures there are, by state and, of those that wait, by note."""
    row = PictureRow
    note = row.note.label("note")
    query = select(row.state, note, func.count()).where(row.tenant == tenant).group_by(row.state, note)
    found: dict[tuple[str, str | None], int] = {}
    for state, why, count in session.execute(query):
        kind = (state, why if state == "waiting" else None)
        found[kind] = found.get(kind, 0) + count
    return found


def with_pictures(session: Session, tenant: str, item_ids: Sequence[str]) -> list[str]:
    """Those that have a picture, in their order."""
    query = select(PictureRow.item_id).where(PictureRow.tenant == tenant, PictureRow.item_id.in_(item_ids))
    found = set(session.scalars(query)) if item_ids else set[str]()
    return [item_id for item_id in item_ids if item_id in found]


def unreadable(session: Session, tenant: str, *, clearance: int, most: int) -> list[tuple[str, str]]:
    """Items whose picture could not be read, and why; of those that the caller may see."""
    row = PictureRow
    joined = (ItemRow.tenant == row.tenant) & (ItemRow.item_id == row.item_id) & (ItemRow.clearance <= clearance)
    query = select(row.item_id, row.note).join(ItemRow, joined).where(row.tenant == tenant, row.state == "unreadable")
    return [(item_id, why or "") for item_id, why in session.execute(query.order_by(row.item_id).limit(most))]


def again(session: Session, tenant: str, *, everything: bool) -> int:
    """Let pictures be embedded once more: those that are not, or all. Returns: how many wait now."""
    row = PictureRow
    wanted = update(row).where(row.tenant == tenant)
    if not everything:
        wanted = wanted.where(row.state != "embedded")
    # The items keep their vectors until they have others.
    session.execute(wanted.values(state="waiting", note=None, encoder=None, vector=None, claimed_until=None))
    return session.scalar(select(func.count()).where(row.tenant == tenant, row.state == "waiting")) or 0


def claim(session: Session, *, most: int, most_bytes: int) -> list[Claimed]:
    """Pictures of one tenant to embed, which nobody else takes for two minutes."""
    row, now = PictureRow, store.now()
    free = (
        row.state == "waiting",
        or_(row.note.is_(None), row.note != OTHER_ENCODER),
        or_(row.claimed_until.is_(None), row.claimed_until < now),
    )
    tenant = session.scalar(select(row.tenant).where(*free).limit(1))
    query = select(row).where(*free, row.tenant == tenant).order_by(row.item_id).limit(most)
    found: list[Claimed] = []
    for each in session.scalars(query.with_for_update(skip_locked=True)).all():
        if found and sum(other.size_bytes for other in found) + each.size_bytes > most_bytes:
            break
        each.claimed_until = now + CLAIM
        found.append(Claimed(each.tenant, each.item_id, each.key, each.sha256, each.size_bytes))
    return found


def release(session: Session, claimed: Sequence[Claimed], *, note: str) -> None:
    """Nobody embedded them, for this reason."""
    for each in claimed:
        _set(session, each, note=note, claimed_until=None)


def embed(session: Session, tenant: str, made: Mapping[Claimed, Made]) -> dict[str, int]:
    """Write what an encoder made, unless the catalogue's vectors are of another. Returns: how many, by state or note."""
    revision, done = store.next_revision(session, tenant), dict.fromkeys(("embedded", "unreadable", OTHER_ENCODER), 0)
    vectors: dict[str, tuple[str | None, Float32s | None]] = {}
    encoder = encoder_of(session, tenant)
    values: dict[str, object]
    for claimed, each in made.items():
        if each.vector is None:
            outcome, values = "unreadable", {"state": "unreadable", "note": (each.error or "")[:300]}
        elif encoder not in {None, each.encoder}:
            outcome, values = OTHER_ENCODER, {"note": OTHER_ENCODER}
        else:
            outcome, encoder = "embedded", each.encoder
            blob = np.ascontiguousarray(each.vector, "<f4").tobytes()
            values = {"state": "embedded", "note": None, "encoder": each.encoder, "vector": blob}
        if _set(session, claimed, claimed_until=None, **values):
            done[outcome] += 1
            if outcome == "embedded":
                vectors[claimed.item_id] = (each.encoder, each.vector)
    _write(session, tenant, vectors, revision)
    return done


def _set(session: Session, claimed: Claimed, **values: object) -> bool:
    """Whether it is still the picture that was looked at."""
    row = PictureRow
    same = (row.tenant == claimed.tenant, row.item_id == claimed.item_id, row.sha256 == claimed.sha256)
    changed = session.execute(update(row).where(*same, row.state == "waiting").values(**values).returning(row.item_id))
    return changed.first() is not None


def _write(
    session: Session, tenant: str, vectors: Mapping[str, tuple[str | None, Float32s | None]], revision: int
) -> None:
    """Items with other embeddings, as a change of the catalogue; what was sent with an item is not touched."""
    moment = store.now()
    for entry in store.entries_of(session, tenant, list(vectors)):
        if entry.item.embedding is not None and entry.item.embedding_by is None:
            continue
        new = store.embedded(entry, *vectors[entry.item.item_id])
        session.execute(
            update(ItemRow)
            .where(ItemRow.tenant == tenant, ItemRow.item_id == entry.item.item_id)
            .values(
                document=store.document_of(new), content_hash=new.content_hash, revision=revision, updated_at=moment
            )
        )
