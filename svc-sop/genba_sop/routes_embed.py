"""``/v1/sop/embed``: pictures as vectors of the encoder that videos have. Nothing of them is kept."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import JsonValue

from genba_shared.forms import FORM, Landing, check_length, content_type, read_form, read_raw
from genba_shared.problems import Invalid, PayloadTooLarge, UnsupportedMedia, fault
from genba_shared.service import problem_responses
from genba_sop.pictures import Limits, Unreadable, read_pictures
from genba_sop.routes_videos import Reader
from genba_sop.schemas import EmbeddedOut, EmbeddedPicture
from genba_sop.service import Here, Sop

router = APIRouter(prefix="/v1/sop", tags=["sop insight"])

FIELD: Final = "pictures"
MOST: Final = 64
MOST_BYTES: Final = 64 * 2**20  # of a request
_WHAT: Final = "A request of pictures"
_BINARY: Final = {"type": "string", "format": "binary"}
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "array", "items": _BINARY}},
                }
            },
            **{kind: {"schema": _BINARY} for kind in ("image/jpeg", "image/png", "image/webp")},
        },
    }
}


@router.post("/embed", openapi_extra=_BODY, responses=problem_responses(408, 413, 415, 429))
async def embed(request: Request, here: Here, principal: Reader) -> EmbeddedOut:
    """Embed pictures (JPEG, PNG or WebP, up to 20 MiB each): a form of up to 64 fields ``pictures``, or one as the body.

    Vectors have unit length; compare them with those of the same ``encoder`` alone. A picture that cannot be read fails by itself;
    422 when none can be.
    """
    del principal  # whoever may read, and nothing is kept
    with here.evaluating.place():
        given = await _received(request)
    return await here.evaluating.run(lambda: _embedded(here, given))


async def _received(request: Request) -> list[bytes]:
    kind = content_type(request).get_content_type()
    cap_bytes = Limits.max_bytes if kind != FORM else MOST_BYTES
    if kind != FORM and not kind.startswith("image/"):
        taken: list[JsonValue] = ["image/jpeg", "image/png", "image/webp", FORM]
        raise UnsupportedMedia(f"{kind} is not taken: send pictures or {FORM}.", sent=kind, taken=taken)
    check_length(request, _WHAT, cap_bytes=cap_bytes)
    files: list[BytesIO] = []

    def place(name: str, _file_name: str) -> Landing | None:
        if name != FIELD:
            return None
        if len(files) == MOST:
            raise PayloadTooLarge(f"There are more than {MOST} pictures in one request.", max_pictures=MOST)
        files.append(BytesIO())
        return Landing(files[-1], "A picture", Limits.max_bytes)

    if kind == FORM:
        await read_form(request, _WHAT, place, cap_bytes=MOST_BYTES)
    else:
        files.append(BytesIO())
        await read_raw(request, Landing(files[0], "A picture", Limits.max_bytes))
    if not files:
        raise Invalid(f"The form has no field {FIELD!r}.", errors=[fault(FIELD, "send the pictures in this field")])
    return [file.getvalue() for file in files]


def _embedded(here: Sop, given: Sequence[bytes]) -> EmbeddedOut:
    encoder = here.pictures
    width_px, height_px = encoder.size_px
    read = read_pictures(given, width_px=width_px, height_px=height_px)
    errors: list[JsonValue] = [
        fault(f"{FIELD}.{at}", each.detail) for at, each in enumerate(read) if isinstance(each, Unreadable)
    ]
    if len(errors) == len(read):
        raise Invalid(f"None of the {len(read)} pictures can be read.", errors=errors)
    rows = iter(encoder.rows([each for each in read if not isinstance(each, Unreadable)]).tolist())
    return EmbeddedOut(
        encoder=encoder.id,
        dim=encoder.dim,
        needs_weights=encoder.needs_weights,
        pictures=[
            EmbeddedPicture(index=at, error=each.detail)
            if isinstance(each, Unreadable)
            else EmbeddedPicture(index=at, embedding=next(rows))
            for at, each in enumerate(read)
        ],
    )
