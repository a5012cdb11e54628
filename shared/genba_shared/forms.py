"""Uploads off the wire: files to this disk a chunk at a time, small fields to memory, and everything held to its cap.

What is too large is refused before its body is read when it says how long it is, and at the cap when it does not. Where a
part of a form goes is for the caller to say; knows nothing of what a file holds.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from pathlib import PurePosixPath, PureWindowsPath
from typing import IO, TYPE_CHECKING, Final

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart import MultipartParser
from python_multipart.exceptions import MultipartParseError

from genba_shared.problems import BadRequest, Invalid, PayloadTooLarge, fault

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FORM: Final = "multipart/form-data"
_FLUSH_BYTES: Final = 1 << 20
_OVERHEAD_BYTES: Final = 1 << 17  # boundaries, headers and small fields around the files
_MAX_FIELD_BYTES: Final = 1 << 14
_NAME_CHARS: Final = 200


@dataclass
class Landing:
    """A file being written, with its hash and its length. ``what`` it is, for who sent too much of it."""

    file: IO[bytes]
    what: str
    cap_bytes: int
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    size_bytes: int = 0
    _waiting: bytearray = field(default_factory=bytearray)

    def add(self, chunk: bytes | memoryview) -> None:
        """Take a chunk. Raises: PayloadTooLarge."""
        self.size_bytes += len(chunk)
        if self.size_bytes > self.cap_bytes:
            raise too_large(self.what, self.cap_bytes)
        self._waiting += chunk

    async def flush(self, *, at_bytes: int = 1) -> None:
        """Write what waits, off the event loop, once it is at least ``at_bytes``."""
        if len(self._waiting) >= at_bytes:
            chunk, self._waiting = bytes(self._waiting), bytearray()
            await run_in_threadpool(self._write, chunk)

    def _write(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        self.file.write(chunk)
        self.file.flush()


@dataclass
class SmallField:
    """A field that stays in memory."""

    name: str
    _data: bytearray = field(default_factory=bytearray)

    def add(self, chunk: bytes | memoryview) -> None:
        """Take a chunk. Raises: Invalid when the field is too long."""
        self._data += chunk
        if len(self._data) > _MAX_FIELD_BYTES:
            raise Invalid(f"{self.name} is too long.", errors=[fault(self.name, "is too long")])

    @property
    def text(self) -> str:
        """What it says. Raises: Invalid when that is no text."""
        try:
            return self._data.decode("utf-8").strip()
        except UnicodeDecodeError as err:
            raise Invalid(f"{self.name} is no UTF-8 text.", errors=[fault(self.name, "is no UTF-8 text")]) from err


Place = Callable[[str, str], Landing | SmallField | None]
"""Where the part of this name, with this file name, goes; None passes it over."""


def content_type(request: Request) -> Message:
    """The body's type with its parameters."""
    message = Message()
    message["content-type"] = request.headers.get("content-type") or "application/x-nothing"
    return message


def check_length(request: Request, what: str, *, cap_bytes: int) -> None:
    """Refuse by what the headers say. Raises: PayloadTooLarge; BadRequest for a length that is no number."""
    length = request.headers.get("content-length")
    if length is None:
        return
    if not (length.isascii() and length.isdigit()):
        raise BadRequest("Content-Length is not a number.")
    if int(length) > cap_bytes + _overhead(content_type(request)):
        raise too_large(what, cap_bytes)


def too_large(what: str, cap_bytes: int) -> PayloadTooLarge:
    """The problem to raise."""
    return PayloadTooLarge(f"{what} may have at most {cap_bytes} bytes.", max_bytes=cap_bytes)


async def read_raw(request: Request, landing: Landing) -> None:
    """The whole body into ``landing``. Raises: PayloadTooLarge."""
    async for chunk in request.stream():
        landing.add(chunk)
        await landing.flush(at_bytes=_FLUSH_BYTES)
    await landing.flush()


async def read_form(request: Request, what: str, place: Place, *, cap_bytes: int) -> None:
    """Every part of a multipart form to where ``place`` says. ``cap_bytes`` is for the form as a whole.

    Raises: PayloadTooLarge; BadRequest for a form that cannot be read; Invalid for one that ends too early; what ``place`` raises.
    """
    boundary = str(content_type(request).get_param("boundary", ""))
    if not boundary or len(boundary) > 256 or not boundary.isascii():
        raise BadRequest(f"{FORM} needs a boundary.")
    parts = _Parts(place)
    parser = MultipartParser(boundary, parts.callbacks())
    taken = 0
    try:
        async for chunk in request.stream():
            taken += len(chunk)
            if taken > cap_bytes + _OVERHEAD_BYTES:
                raise too_large(what, cap_bytes)
            parser.write(chunk)
            for landing in parts.landings[-2:]:  # a chunk may end one file and begin the next
                await landing.flush(at_bytes=_FLUSH_BYTES)
        parser.finalize()
    except MultipartParseError as err:
        raise BadRequest(f"The form cannot be read: {err}.") from err
    if not parts.is_complete:
        raise Invalid("The form ends too early.", errors=[fault("body", "ends too early")])
    for landing in parts.landings:
        await landing.flush()


def display_name(file_name: str) -> str:
    """A file name fit to be shown: without folders and control characters, at most 200 characters."""
    base = PurePosixPath(PureWindowsPath(file_name).name).name
    return display_text(base)[:_NAME_CHARS]


def display_text(text: str) -> str:
    """A text on one line: without control characters, with every blank, the wide one of Japanese too."""
    return "".join(each for each in text if each.isprintable() or unicodedata.category(each) == "Zs")


class _Parts:
    """Follows the parts of a form."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._header, self._value = bytearray(), bytearray()
        self._disposition = Message()
        self._goes_to: Landing | SmallField | None = None
        self.landings: list[Landing] = []
        self.is_complete = False

    def callbacks(self) -> MultipartCallbacks:
        """For ``MultipartParser``."""
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._disposition, self._goes_to = Message(), None

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]  # the parser holds a header to 4 KiB

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = Message()
            self._disposition["content-disposition"] = self._value.decode("utf-8", "replace")
        self._header, self._value = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        name = self._disposition.get_param("name", header="content-disposition")
        if isinstance(name, str):
            self._goes_to = self._place(name, self._disposition.get_filename() or "")
        if isinstance(self._goes_to, Landing):
            self.landings.append(self._goes_to)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._goes_to is not None:
            self._goes_to.add(memoryview(data)[start:end])

    def _end(self) -> None:
        self.is_complete = True


def _overhead(kind: Message) -> int:
    return _OVERHEAD_BYTES if kind.get_content_type() == FORM else 0
