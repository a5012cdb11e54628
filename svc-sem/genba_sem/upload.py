"""Take a particle's form from the wire: every view to a file on this disk under a name of ours, small fields to memory.

A view is never held in memory whole, the form has a cap that its headers are held to first, and what a field may say is
for the route to judge. Knows nothing of what an image is.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TYPE_CHECKING, Final

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart import MultipartParser
from python_multipart.exceptions import MultipartParseError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

from genba_shared.problems import BadRequest, Invalid, PayloadTooLarge, UnsupportedMedia, fault

VIEWS: Final = "views"
_FLUSH_BYTES: Final = 1 << 20
_FORM_OVERHEAD_BYTES: Final = 1 << 17  # boundaries, headers and small fields around the files
_MAX_FIELD_BYTES: Final = 1 << 14
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


@dataclass
class _Landing:
    """A file being written, its hash and its length."""

    file: IO[bytes]
    file_name: str
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    size_bytes: int = 0
    waiting: bytearray = field(default_factory=bytearray)

    async def flush(self, *, at_bytes: int = 1) -> None:
        """Write what waits, off the event loop, once it is at least ``at_bytes``."""
        if len(self.waiting) >= at_bytes:
            chunk, self.waiting = bytes(self.waiting), bytearray()
            await run_in_threadpool(self._write, chunk)

    def _write(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        self.file.write(chunk)
        self.file.flush()

    def sent(self) -> Sent:
        return Sent(Path(self.file.name), self.file_name, self.digest.hexdigest(), self.size_bytes)


def check(request: Request, *, cap_bytes: int) -> str:
    """Refuse by the headers alone; the form's boundary. Raises PayloadTooLarge, UnsupportedMedia, BadRequest."""
    message = Message()
    message["content-type"] = request.headers.get("content-type") or "application/x-nothing"
    if message.get_content_type() != "multipart/form-data":
        raise UnsupportedMedia(f"{message.get_content_type()} is not taken: send multipart/form-data with {VIEWS}.")
    boundary = str(message.get_param("boundary", ""))
    if not boundary or len(boundary) > 256 or not boundary.isascii():
        raise BadRequest("multipart/form-data needs a boundary.")
    length = request.headers.get("content-length")
    if length is not None and not (length.isascii() and length.isdigit()):
        raise BadRequest("Content-Length is not a number.")
    if length is not None and int(length) > cap_bytes + _FORM_OVERHEAD_BYTES:
        raise _too_large(cap_bytes)
    return boundary


@contextlib.asynccontextmanager
async def receive(request: Request, folder: Path, *, cap_bytes: int, cap_file_bytes: int) -> AsyncIterator[Form]:
    """Stream the form to files below ``folder`` that are gone when the block ends.

    Raises:  PayloadTooLarge, UnsupportedMedia, BadRequest, Invalid for a form without a view.
    """
    boundary = check(request, cap_bytes=cap_bytes)
    with tempfile.TemporaryDirectory(dir=folder, prefix="particle-") as spool:
        reader = _Reader(Path(spool), cap_file_bytes)
        try:
            await _read(request, MultipartParser(boundary, reader.callbacks()), reader, cap_bytes)
            yield reader.form()
        finally:
            reader.close()


async def _read(request: Request, parser: MultipartParser, reader: _Reader, cap_bytes: int) -> None:
    taken = 0
    try:
        async for chunk in request.stream():
            taken += len(chunk)
            if taken > cap_bytes + _FORM_OVERHEAD_BYTES:
                raise _too_large(cap_bytes)
            parser.write(chunk)
            for landing in reader.landings[-2:]:  # a chunk may end one file and begin the next
                await landing.flush(at_bytes=_FLUSH_BYTES)
        parser.finalize()
    except MultipartParseError as err:
        raise BadRequest(f"The form cannot be read: {err}.") from err
    for landing in reader.landings:
        await landing.flush()
    if not reader.is_complete or not reader.landings:
        raise Invalid(
            f"The form has no complete field {VIEWS!r}.", errors=[fault(VIEWS, "send the images in this field")]
        )


def _too_large(cap_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"A particle may have at most {cap_bytes} bytes in all.", max_bytes=cap_bytes)


class _Reader:
    """Follows a multipart form: every field ``views`` goes to a file, the small ones are kept."""

    def __init__(self, spool: Path, cap_file_bytes: int) -> None:
        self._spool, self._cap_file_bytes = spool, cap_file_bytes
        self._header, self._value = b"", b""
        self._disposition = Message()
        self._name: str | None = None
        self._small: dict[str, bytearray] = {}
        self.landings: list[_Landing] = []
        self.is_complete = False

    def callbacks(self) -> MultipartCallbacks:
        """For ``MultipartParser``."""
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": lambda data, start, end: self._grow("_header", data[start:end]),
            "on_header_value": lambda data, start, end: self._grow("_value", data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_end": self._end,
        }

    def form(self) -> Form:
        """What was read. Raises Invalid for a field that is no text."""
        fields = {}
        for name, value in self._small.items():
            try:
                fields[name] = value.decode("utf-8").strip()
            except UnicodeDecodeError as err:
                raise Invalid(f"{name} is no UTF-8 text.", errors=[fault(name, "is no UTF-8 text")]) from err
        return Form(tuple(landing.sent() for landing in self.landings), fields)

    def close(self) -> None:
        for landing in self.landings:
            landing.file.close()

    def _part_begin(self) -> None:
        self._disposition, self._name = Message(), None

    def _grow(self, attribute: str, data: bytes) -> None:
        grown = getattr(self, attribute) + data
        if len(grown) > _MAX_FIELD_BYTES:
            raise BadRequest("A header in the form is too long.")
        setattr(self, attribute, grown)

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = Message()
            self._disposition["content-disposition"] = self._value.decode("utf-8", "replace")
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        name = self._disposition.get_param("name", header="content-disposition")
        self._name = name if isinstance(name, str) else None
        if self._name == VIEWS:
            if len(self.landings) >= _MOST_FILES:
                raise Invalid(
                    "Too many files for one particle.", errors=[fault(VIEWS, f"more than {_MOST_FILES} files")]
                )
            path = self._spool / f"{len(self.landings):03d}"
            name_given = display_name(self._disposition.get_filename() or "") or f"view {len(self.landings) + 1}"
            self.landings.append(_Landing(path.open("xb"), name_given))
        elif self._name is not None:
            if self._name in self._small:
                raise Invalid(f"{self._name} is there twice.", errors=[fault(self._name, "is there twice")])
            if len(self._small) >= _MAX_FIELDS:
                raise Invalid("The form has too many fields.", errors=[fault("body", "has too many fields")])
            self._small[self._name] = bytearray()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == VIEWS:
            landing = self.landings[-1]
            landing.waiting += data[start:end]
            landing.size_bytes += end - start
            if landing.size_bytes > self._cap_file_bytes:
                raise PayloadTooLarge(
                    f"{landing.file_name} is larger than {self._cap_file_bytes} bytes.", max_bytes=self._cap_file_bytes
                )
        elif self._name is not None:
            small = self._small[self._name]
            small += data[start:end]
            if len(small) > _MAX_FIELD_BYTES:
                raise Invalid(f"{self._name} is too long.", errors=[fault(self._name, "is too long")])

    def _end(self) -> None:
        self.is_complete = True


def display_name(file_name: str) -> str:
    """A file name fit to be shown: without folders and control characters, at most 200 characters."""
    base = PurePosixPath(PureWindowsPath(file_name).name).name
    return "".join(_printable(base))[:200]


def _printable(text: str) -> Iterator[str]:
    return (character for character in text if character.isprintable())
