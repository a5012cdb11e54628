"""Take a video from the wire to a file on this disk, under a name of ours.

Raw bodies (``video/*``, ``application/octet-stream``) and multipart forms with a field ``file`` and, if there is one, the
video's ``transcript``. Knows nothing of what a video is.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import JsonValue

from genba_shared.forms import (
    FORM,
    Landing,
    SmallField,
    check_length,
    content_type,
    display_name,
    display_text,
    read_form,
    read_raw,
)
from genba_shared.problems import Invalid, UnsupportedMedia, fault
from genba_sop import transcripts
from genba_sop.ingest import Received

_WHAT: Final = "A video"
_TITLE_CHARS: Final = 200
_RAW: Final = ("video/", "application/octet-stream", "application/mp4")
FIELDS: Final = ("title", "clearance", "retention_days")


@dataclass(frozen=True)
class Upload:
    """What came: the file and the small fields around it."""

    received: Received
    fields: dict[str, str]
    transcript: bytes | None = None  # as it came, not read yet


def check(request: Request, *, cap_bytes: int) -> str:
    """Refuse by the headers alone; the body's type. Raises PayloadTooLarge, UnsupportedMedia, BadRequest."""
    kind = content_type(request).get_content_type()
    if kind != FORM and not kind.startswith(_RAW):
        taken: list[JsonValue] = ["video/*", "application/octet-stream", FORM]
        raise UnsupportedMedia(
            f"{kind} is not taken: send video/*, application/octet-stream or {FORM}.", sent=kind, taken=taken
        )
    check_length(request, _WHAT, cap_bytes=cap_bytes + (transcripts.MOST_BYTES if kind == FORM else 0))
    return kind


@contextlib.asynccontextmanager
async def receive(request: Request, folder: Path, *, cap_bytes: int) -> AsyncIterator[Upload]:
    """Stream the body to a file below ``folder`` that is gone when the block ends.

    Raises:  PayloadTooLarge, UnsupportedMedia, BadRequest, Invalid for a form without ``file``.
    """
    kind = check(request, cap_bytes=cap_bytes)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="upload-") as file:
        landing = Landing(file, _WHAT, cap_bytes)
        spoken = BytesIO()
        if kind == FORM:
            fields = await _read_form(request, landing, Landing(spoken, "A transcript", transcripts.MOST_BYTES))
        else:
            fields = {name: value for name, value in request.query_params.items() if name in FIELDS}
            await read_raw(request, landing)
        await run_in_threadpool(file.flush)
        if landing.size_bytes == 0:
            raise UnsupportedMedia("The body is empty: send a video.")
        title = display_text(fields.pop("title", ""))[:_TITLE_CHARS].strip()
        yield Upload(
            Received(Path(file.name), landing.digest.hexdigest(), landing.size_bytes, title),
            fields,
            spoken.getvalue() or None,
        )


async def _read_form(request: Request, landing: Landing, spoken: Landing) -> dict[str, str]:
    """The fields ``file`` and ``transcript`` go to theirs; the known small ones come back, the title by default the file's name."""
    small: dict[str, SmallField] = {}
    names: list[str] = []
    transcript: list[str] = []

    def place(name: str, file_name: str) -> Landing | SmallField | None:
        if name == "file":
            if names:
                raise Invalid("The form has several fields 'file'.", errors=[fault("file", "send one video")])
            names.append(display_name(file_name))
            return landing
        if name == "transcript":
            if transcript:
                raise Invalid(
                    "The form has several fields 'transcript'.", errors=[fault("transcript", "send one transcript")]
                )
            transcript.append(file_name)
            return spoken
        return small.setdefault(name, SmallField(name)) if name in FIELDS else None

    await read_form(request, _WHAT, place, cap_bytes=landing.cap_bytes + spoken.cap_bytes)
    if not names:
        raise Invalid("The form has no field 'file'.", errors=[fault("file", "send the video in this field")])
    fields = {name: value.text for name, value in small.items()}
    return {**fields, "title": fields.get("title") or names[0]}
