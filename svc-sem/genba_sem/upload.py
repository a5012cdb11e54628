"""Take a particle's form from the wire: every view to a file on this disk under a name of ours, small fields to memory.

What a field may say is for the route to judge. Knows nothing of what an image is.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import Request

from genba_shared.forms import FORM, Landing, SmallField, check_length, content_type, display_name, read_form
from genba_shared.problems import Invalid, UnsupportedMedia, fault

VIEWS: Final = "views"
PREFIX: Final = "particle-"  # of the folder that an upload lands in
_WHAT: Final = "A particle"
_MAX_FIELDS: Final = 40
_MOST_FILES: Final = 64  # views, sidecars and what will be dropped; above it somebody sent a folder


@dataclass(frozen=True)
class Sent:
    """A file that lies on this disk."""

    path: Path
    file_name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Form:
    """What came: the files in their order, and the small fields."""

    files: tuple[Sent, ...]
    fields: dict[str, str]


def check(request: Request, *, cap_bytes: int) -> None:
    """Refuse by the headers alone. Raises PayloadTooLarge, UnsupportedMedia, BadRequest."""
    kind = content_type(request).get_content_type()
    if kind != FORM:
        raise UnsupportedMedia(f"{kind} is not taken: send {FORM} with {VIEWS}.", sent=kind, taken=[FORM])
    check_length(request, _WHAT, cap_bytes=cap_bytes)


@contextlib.asynccontextmanager
async def receive(request: Request, folder: Path, *, cap_bytes: int, cap_file_bytes: int) -> AsyncIterator[Form]:
    """Stream the form to files below ``folder`` that are gone when the block ends.

    Raises:  PayloadTooLarge, UnsupportedMedia, BadRequest, Invalid for a form without a view.
    """
    check(request, cap_bytes=cap_bytes)
    landings: list[Landing] = []
    small: dict[str, SmallField] = {}
    with contextlib.ExitStack() as opened:
        spool = Path(opened.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix=PREFIX)))

        def place(name: str, file_name: str) -> Landing | SmallField:
            if name == VIEWS:
                _at_most(len(landings), _MOST_FILES, "files", VIEWS)
                number = len(landings) + 1
                file = opened.enter_context((spool / f"{number:03d}").open("xb"))
                landings.append(Landing(file, display_name(file_name) or f"view {number}", cap_file_bytes))
                return landings[-1]
            if name in small:
                raise Invalid(f"{name} is there twice.", errors=[fault(name, "is there twice")])
            _at_most(len(small), _MAX_FIELDS, "fields", "body")
            return small.setdefault(name, SmallField(name))

        await read_form(request, _WHAT, place, cap_bytes=cap_bytes)
        if not landings:
            raise Invalid(f"The form has no field {VIEWS!r}.", errors=[fault(VIEWS, "send the images in this field")])
        yield Form(tuple(map(_sent, landings)), {name: value.text for name, value in small.items()})


def _sent(landing: Landing) -> Sent:
    return Sent(Path(landing.file.name), landing.what, landing.digest.hexdigest(), landing.size_bytes)


def _at_most(n: int, most: int, what: str, where: str) -> None:
    if n >= most:
        raise Invalid(f"The form has too many {what}.", errors=[fault(where, f"has more than {most} {what}")])
