"""``/v1/recommend``: the catalogue, users and events, in bulk. Each row is checked by itself: a malformed one fails alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, TypeVar

from fastapi import APIRouter, Path
from pydantic import BaseModel, JsonValue, ValidationError

from genba_recommend import store
from genba_recommend.catalogue import Entry, content_hash
from genba_recommend.dataset import Item, Kind, User
from genba_recommend.evidence import day_of, weight_of
from genba_recommend.schemas import (
    ID_PATTERN,
    EventIn,
    EventsIn,
    EventsWritten,
    ItemIn,
    ItemsIn,
    Rejected,
    UserErased,
    UserIn,
    UsersIn,
    Written,
)
from genba_recommend.service import Here
from genba_recommend.shop import Shop
from genba_shared.dependencies import require
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import Invalid, PayloadTooLarge, field_name
from genba_shared.service import problem_responses

router = APIRouter(prefix="/v1/recommend", tags=["recommend catalogue"])

Reader = Annotated[Principal, require("recommend:read")]
Writer = Annotated[Principal, require("recommend:write")]
UserId = Annotated[str, Path(pattern=ID_PATTERN)]
Row = TypeVar("Row", bound=BaseModel)

MOST_NAMED = 100
CLOCK_SKEW = timedelta(hours=1)


@router.put("/items", responses=problem_responses(413, 429))
def put_items(body: ItemsIn, here: Here, principal: Writer) -> Written:
    """Add or replace items; send as many in one request as you like, up to 10,000. The next list knows them.

    A row that is malformed is answered with its index and its errors, the others are taken. 422 when none can be.
    """
    shop = here.shop_of(principal)
    with here.ingesting(shop):
        rows, rejected = _checked(body.items, ItemIn, most=here.settings.max_rows, where="items")
        above = [index for index, row in rows if Clearance.parse(row.clearance) > principal.clearance]
        rejected += [_rejected(index, "clearance", "is above your own") for index in above]
        held = [index for index, row in rows if _is_above(shop, row.item_id, principal)]
        rejected += [_rejected(index, "item_id", "is of an item above your clearance") for index in held]
        mixed = _with_embeddings(rows) if shop.has_pictures() else []
        rejected += [_rejected(index, "embedding", "would mix: this catalogue's come from pictures") for index in mixed]
        refused = {*above, *held, *mixed}
        allowed = [(index, row) for index, row in rows if index not in refused]
        _check_any(allowed, rejected, "items")
        shop.put_items([entry_of(row) for _, row in allowed])
    return Written(accepted=len(allowed), rejected=sorted(rejected, key=lambda each: each.index))


@router.put("/users", responses=problem_responses(413, 429))
def put_users(body: UsersIn, here: Here, principal: Writer) -> Written:
    """Add or replace what is known of users beside what they do. None of it is needed."""
    shop = here.shop_of(principal)
    with here.ingesting(shop):
        rows, rejected = _checked(body.users, UserIn, most=here.settings.max_rows, where="users")
        _check_any(rows, rejected, "users")
        shop.put_users([User(**row.model_dump()) for _, row in rows])
    return Written(accepted=len(rows), rejected=rejected)


@router.post("/events", responses=problem_responses(413, 429))
def add_events(body: EventsIn, here: Here, principal: Writer) -> EventsWritten:
    """Add events. An event id that was sent before counts once; the next list of each user knows what they did.

    An event of an item that the catalogue does not have is kept, reported, and counts as soon as the item comes.
    429 says that more is sent than can be written: send the same request again.
    """
    shop = here.shop_of(principal)
    with here.ingesting(shop):
        rows, rejected = _checked(body.events, EventIn, most=here.settings.max_rows, where="events")
        now = store.now()
        late = [index for index, row in rows if row.at is not None and row.at > now + CLOCK_SKEW]
        rejected += [_rejected(index, "at", "lies in the future") for index in late]
        kept = [(index, row) for index, row in rows if index not in set(late)]
        _check_any(kept, rejected, "events")
        events = [_event_of(row, shop, now) for _, row in kept]
        added = shop.add_events(events)
    strays = [event.item_id for event in added if shop.view.shelf.row(event.item_id) is None]
    outcomes = {"added": len(added), "duplicate": len(events) - len(added), "rejected": len(rejected)}
    for outcome, count in outcomes.items():
        here.counters.events.labels(outcome).inc(count)
    return EventsWritten(
        accepted=len(added),
        duplicates=outcomes["duplicate"],
        rejected=sorted(rejected, key=lambda each: each.index),
        unknown_items=list(dict.fromkeys(strays))[:MOST_NAMED],
        unknown_item_events=len(strays),
    )


@router.delete("/users/{user_id}", responses=problem_responses(404))
def erase_user(user_id: UserId, here: Here, principal: Writer) -> UserErased:
    """Erase a user with events, shown lists and vectors. Versions of the towers hold no users. Cannot be undone."""
    events, exposures = here.shop_of(principal).erase_user(user_id, actor=principal.subject)
    return UserErased(user_id=user_id, events=events, exposures=exposures)


def _checked(
    given: Sequence[JsonValue], kind: type[Row], *, most: int, where: str
) -> tuple[list[tuple[int, Row]], list[Rejected]]:
    """Rows with their index, and those that are malformed. Raises: PayloadTooLarge."""
    if len(given) > most:
        raise PayloadTooLarge(f"{len(given)} {where} in one request; {most} at most.", max_rows=most)
    rows, rejected = [], []
    for index, row in enumerate(given):
        try:
            rows.append((index, kind.model_validate(row)))
        except ValidationError as error:
            errors = [
                {"field": field_name(("body", *found["loc"])) if found["loc"] else "row", "message": str(found["msg"])}
                for found in error.errors(include_url=False, include_input=False)
            ]
            rejected.append(Rejected(index=index, errors=errors))
    return rows, rejected


def _check_any(rows: Sequence[object], rejected: Sequence[Rejected], where: str) -> None:
    """Raises: Invalid when no row can be taken, with every row's errors."""
    if not rows:
        errors: list[JsonValue] = [
            {"field": f"{where}.{each.index}.{error['field']}", "message": error["message"]}
            for each in rejected[:MOST_NAMED]
            for error in each.errors
        ]
        raise Invalid(f"None of the {len(rejected)} {where} can be taken.", errors=errors)


def _is_above(shop: Shop, item_id: str, principal: Principal) -> bool:
    """Whether there is such an item that the caller may not see: nor may they write over it, and so lower its label."""
    shelf = shop.view.shelf
    row = shelf.row(item_id)
    return row is not None and shelf.entries[row].clearance > principal.clearance


def _with_embeddings(rows: Sequence[tuple[int, ItemIn]]) -> list[int]:
    return [index for index, row in rows if row.embedding is not None]


def _rejected(index: int, field: str, message: str) -> Rejected:
    return Rejected(index=index, errors=[{"field": field, "message": message}])


def entry_of(row: ItemIn) -> Entry:
    """A row of the wire as the catalogue holds it."""
    item = Item(
        item_id=row.item_id,
        title=row.title,
        description=row.description,
        genre=tuple(dict.fromkeys(row.genre)),
        maker=row.maker,
        performers=tuple(dict.fromkeys(row.performers)),
        tags=tuple(dict.fromkeys(row.tags)),
        price=row.price,
        duration_s=row.duration_s,
        published_at_s=None if row.published_at is None else row.published_at.timestamp(),
        embedding=None if row.embedding is None else tuple(row.embedding),
    )
    label = int(Clearance.parse(row.clearance))
    return Entry(item, tuple(dict.fromkeys(row.regions)), label, row.active, content_hash(item))


def _event_of(row: EventIn, shop: Shop, now: datetime) -> store.Event:
    at, kind, shelf = row.at or now, Kind[row.kind.upper()], shop.view.shelf
    place = shelf.row(row.item_id)
    duration_s = None if place is None else shelf.entries[place].item.duration_s
    weight = weight_of(kind, watched_s=row.watched_s, duration_s=duration_s)
    return store.Event(
        row.event_id, row.user_id, row.item_id, kind, at, day_of(at), weight, row.watched_s, row.session_id
    )
