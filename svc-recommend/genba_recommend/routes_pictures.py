"""``/v1/recommend/items/{item_id}/picture``: thumbnails or previews of items, embedded by svc-sop's encoder."""

from __future__ import annotations

from io import BytesIO
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, JsonValue

from genba_recommend import picture_store
from genba_recommend.picture_store import Claimed, Kept, Made
from genba_recommend.routes_catalogue import Reader, Writer
from genba_recommend.routes_lists import ItemId
from genba_recommend.schemas import ID_PATTERN, PictureOut, PicturesOut, UnreadablePicture
from genba_recommend.service import Here, Recommender
from genba_recommend.shop import Shop
from genba_recommend.sop_door import NoEncoder
from genba_recommend.tables import PictureRow
from genba_shared.audit import append_in
from genba_shared.forms import FORM, Landing, check_length, content_type, read_form, read_raw
from genba_shared.principal import Principal
from genba_shared.problems import Conflict, Invalid, NotFound, UnsupportedMedia, fault
from genba_shared.service import problem_responses

router = APIRouter(prefix="/v1/recommend", tags=["recommend catalogue"])

_WHAT: Final = "A picture"
_TAKEN: Final = ("image/jpeg", "image/png", "image/webp")
_SUFFIXES: Final = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}
_BINARY: Final = {"type": "string", "format": "binary"}
_FORM: Final = {"type": "object", "required": ["file"], "properties": {"file": _BINARY}}
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {**{kind: {"schema": _BINARY} for kind in _TAKEN}, FORM: {"schema": _FORM}},
    }
}
MOST_NAMED: Final = 200
ItemName = Annotated[str, Field(pattern=ID_PATTERN)]


class PictureUnreadable(Invalid):
    """The picture cannot be read."""


@router.put("/items/{item_id}/picture", openapi_extra=_BODY, responses=problem_responses(404, 408, 409, 413, 415, 429))
async def put_picture(
    item_id: ItemId,
    request: Request,
    here: Here,
    principal: Writer,
    embed: Annotated[
        Literal["now", "later"], Query(description="later: do not wait for it; many are embedded together.")
    ] = "now",
) -> PictureOut:
    """Set an item's picture (JPEG, PNG or WebP), as the body or a form's ``file``, and embed it with svc-sop's encoder.

    Without an encoder it is kept, ``note`` says why it waits, and it is embedded when there is one. 409 where items were sent with
    embeddings of their own: two encoders are not mixed in one catalogue.
    """
    shop = here.shop_of(principal)
    await run_in_threadpool(_check, shop, item_id, principal)
    with here.ingesting(shop):
        data = await _received(request, cap_bytes=here.settings.max_picture_bytes)
        media_type = _kind(data)
        made, note = await _made(here, principal.tenant, data) if embed == "now" else (None, None)
        row = await run_in_threadpool(_set, here, shop, item_id, data, media_type, made, note)
    here.counters.pictures.labels(row.state).inc()
    return row


@router.get(
    "/items/{item_id}/picture",
    response_class=Response,
    responses={200: {"content": {kind: {"schema": _BINARY} for kind in _TAKEN}}, **problem_responses(404)},
)
def get_picture(item_id: ItemId, here: Here, principal: Reader) -> Response:
    """An item's picture as it was sent. 404 when it has none."""
    shop = here.shop_of(principal)
    _check_seen(shop, item_id, principal)
    with here.database.read() as session:
        row = _found(picture_store.get(session, shop.tenant, item_id), item_id)
        key, media_type, sha256 = row.key, row.media_type, row.sha256
    with here.picturing.store_of(shop.tenant).open(key) as file:
        data = file.read()
    headers = {"cache-control": "private, max-age=300", "etag": f'"{sha256}"', "x-content-type-options": "nosniff"}
    return Response(data, media_type=media_type, headers=headers)


@router.delete("/items/{item_id}/picture", status_code=status.HTTP_204_NO_CONTENT, responses=problem_responses(404))
def delete_picture(item_id: ItemId, here: Here, principal: Writer) -> None:
    """Erase an item's picture and the embedding that was made of it."""
    shop = here.shop_of(principal)
    _check_seen(shop, item_id, principal)
    with here.database.transaction() as session:
        _found(picture_store.get(session, shop.tenant, item_id), item_id)
        key = picture_store.drop(session, shop.tenant, item_id)
        append_in(session, "recommend.picture_erased", actor=principal.subject, subject=item_id)
    if key is not None:
        here.picturing.store_of(shop.tenant).delete(key)
    shop.take_up_items()


@router.get("/pictures", responses=problem_responses())
def get_pictures(
    here: Here,
    principal: Reader,
    item: Annotated[list[ItemName], Query(max_length=MOST_NAMED, description="Say which of these have one.")] = [],  # noqa: B006
) -> PicturesOut:
    """How many items have pictures, how many of them are embedded, and by which encoder."""
    shop = here.shop_of(principal)
    tenant, seen = shop.tenant, [each for each in dict.fromkeys(item) if _is_seen(shop, each, principal)]
    with here.database.read() as session:
        pictured = picture_store.with_pictures(session, tenant, seen)
        encoder, found = picture_store.encoder_of(session, tenant), picture_store.counts(session, tenant)
        bad = picture_store.unreadable(session, tenant, clearance=int(principal.clearance), most=MOST_NAMED)
    waiting = {note or "its_turn": count for (state, note), count in found.items() if state == "waiting"}
    return PicturesOut(
        encoder=encoder,
        embedded=found.get(("embedded", None), 0),
        waiting=sum(waiting.values()),
        unreadable=found.get(("unreadable", None), 0),
        waiting_for=waiting,
        items=pictured,
        unreadable_items=[UnreadablePicture(item_id=item_id, why=why) for item_id, why in bad],
    )


def _check(shop: Shop, item_id: str, principal: Principal) -> None:
    _check_seen(shop, item_id, principal)
    if shop.has_sent_embeddings():
        raise Conflict(
            "Items of this catalogue were sent with embeddings; those of pictures would be of another encoder. "
            "Send the items without `embedding` first, or go on sending it."
        )


def _check_seen(shop: Shop, item_id: str, principal: Principal) -> None:
    if not _is_seen(shop, item_id, principal):
        raise NotFound(f"There is no item {item_id}.")


def _is_seen(shop: Shop, item_id: str, principal: Principal) -> bool:
    shelf = shop.view.shelf
    row = shelf.row(item_id)
    return row is not None and shelf.entries[row].clearance <= principal.clearance


def _found(row: PictureRow | None, item_id: str) -> PictureRow:
    if row is None:
        raise NotFound(f"Item {item_id} has no picture.")
    return row


async def _received(request: Request, *, cap_bytes: int) -> bytes:
    kind = content_type(request).get_content_type()
    if kind != FORM and kind not in _TAKEN:
        taken: list[JsonValue] = [*_TAKEN, FORM]
        raise UnsupportedMedia(f"{kind} is not taken: send {', '.join(_TAKEN)} or {FORM}.", sent=kind, taken=taken)
    check_length(request, _WHAT, cap_bytes=cap_bytes)
    files: list[BytesIO] = []

    def place(name: str, _file_name: str) -> Landing | None:
        if name != "file":
            return None
        if files:
            raise Invalid("The form has several fields 'file'.", errors=[fault("file", "send one picture")])
        files.append(BytesIO())
        return Landing(files[0], _WHAT, cap_bytes)

    if kind == FORM:
        await read_form(request, _WHAT, place, cap_bytes=cap_bytes)
    else:
        files.append(BytesIO())
        await read_raw(request, Landing(files[0], _WHAT, cap_bytes))
    if not files:
        raise Invalid("The form has no field 'file'.", errors=[fault("file", "send the picture in this field")])
    return files[0].getvalue()


def _kind(data: bytes) -> str:
    """By the first bytes, never by what was said of it. Raises: UnsupportedMedia."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise UnsupportedMedia("The file is no JPEG, PNG or WebP picture.", taken=[*_TAKEN])


async def _made(here: Recommender, tenant: str, data: bytes) -> tuple[Made | None, str | None]:
    """What the encoder makes of it, or why it waits. Raises: PictureUnreadable."""
    try:
        made = await here.picturing.look_at(tenant, data)
    except NoEncoder as why:
        return None, why.reason
    if made.vector is None:
        raise PictureUnreadable(made.error or "The picture cannot be decoded.")
    return made, None


def _set(
    here: Recommender, shop: Shop, item_id: str, data: bytes, media_type: str, made: Made | None, note: str | None
) -> PictureOut:
    store = here.picturing.store_of(shop.tenant)
    with here.database.read() as session:
        before = picture_store.get(session, shop.tenant, item_id)
        old = None if before is None else before.key
    key = store.put(data, suffix=_SUFFIXES[media_type])
    sha256 = key.rpartition("/")[2].partition(".")[0]
    kept = Kept(key, sha256, media_type, len(data))
    with here.database.transaction() as session:
        unused = picture_store.drop(session, shop.tenant, item_id)
        picture_store.put(session, shop.tenant, item_id, kept, note=note)
        if made is not None:
            picture_store.embed(session, shop.tenant, {Claimed(shop.tenant, item_id, key, sha256, len(data)): made})
        session.flush()
        row = picture_store.get(session, shop.tenant, item_id)
        if row is None:
            raise AssertionError("It was put here.")
        session.refresh(row)
        out = _out(row)
    if unused is not None and unused == old and unused != key:
        store.delete(unused)
    shop.take_up_items()
    return out


def _out(row: PictureRow) -> PictureOut:
    return PictureOut(
        item_id=row.item_id,
        sha256=row.sha256,
        media_type=row.media_type,
        size_bytes=row.size_bytes,
        state=row.state,
        note=row.note,
        encoder=row.encoder,
        dim=None if row.vector is None else len(row.vector) // 4,
    )
