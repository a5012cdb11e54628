"""Take an upload from the wire to a file on this disk, under a name of ours, never holding more than a chunk of it in
memory.

Raw bodies (``video/*``, ``application/octet-stream``) and multipart forms with a field ``file``. What is larger than
the cap is refused
before its body is read when it says how long it is, and at the cap when it does not. Knows nothing of what a video is.
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
from genba_sop.ingest import Received

_FLUSH_BYTES: Final = 1 << 20
_FORM_OVERHEAD_BYTES: Final = 1 << 16  # boundaries, headers and small fields around the file
_MAX_FIELD_BYTES: Final = 1 << 12
_TITLE_CHARS: Final = 200
_RAW: Final = ("video/", "application/octet-stream", "application/mp4")
FIELDS: Final = ("title", "clearance", "retention_days")


@dataclass
class _Landing:
    """A file being written, its hash and its length."""

    file: IO[bytes]
    cap_bytes: int
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    size_bytes: int = 0
    waiting: bytearray = field(default_factory=bytearray)

    def add(self, chunk: bytes | memoryview) -> None:
        self.size_bytes += len(chunk)
        if self.size_bytes > self.cap_bytes:
            raise _too_large(self.cap_bytes)
        self.waiting += chunk

    async def flush(self, *, at_bytes: int = 0) -> None:
        """Write what waits, off the event loop, once it is at least ``at_bytes``."""
        if self.waiting and len(self.waiting) >= at_bytes:
            chunk, self.waiting = self.waiting, bytearray()
            await run_in_threadpool(self._write, bytes(chunk))

    def _write(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        self.file.write(chunk)


@dataclass(frozen=True)
class Upload:
    """What came: the file and the small fields around it."""

    received: Received
    fields: dict[str, str]


def _too_large(cap_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"A video may have at most {cap_bytes} bytes.", max_bytes=cap_bytes)


def check(request: Request, *, cap_bytes: int) -> None:
    """Refuse by the headers alone. Raises PayloadTooLarge, UnsupportedMedia, BadRequest."""
    kind = _content_type(request).get_content_type()
    if kind != "multipart/form-data" and not kind.startswith(_RAW):
        raise UnsupportedMedia(f"{kind} is not taken: send video/*, application/octet-stream or multipart/form-data.")
    length = request.headers.get("content-length")
    if length is None:
        return
    if not length.isascii() or not length.isdigit():
        raise BadRequest("Content-Length is not a number.")
    overhead = _FORM_OVERHEAD_BYTES if kind == "multipart/form-data" else 0
    if int(length) > cap_bytes + overhead:
        raise _too_large(cap_bytes)


def _content_type(request: Request) -> Message:
    message = Message()
    message["content-type"] = request.headers.get("content-type") or "application/x-nothing"
    return message


@contextlib.asynccontextmanager
async def receive(request: Request, folder: Path, *, cap_bytes: int) -> AsyncIterator[Upload]:
    """Stream the body to a file below ``folder`` that is gone when the block ends.

    Raises:  PayloadTooLarge, UnsupportedMedia, BadRequest, Invalid for a form without ``file``.
    """
    check(request, cap_bytes=cap_bytes)
    kind = _content_type(request)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="upload-") as file:
        landing = _Landing(file, cap_bytes)
        if kind.get_content_type() == "multipart/form-data":
            fields = await _read_form(request, landing, str(kind.get_param("boundary", "")))
        else:
            fields = {name: value for name, value in request.query_params.items() if name in FIELDS}
            await _read_raw(request, landing)
        await landing.flush()
        await run_in_threadpool(file.flush)
        if landing.size_bytes == 0:
            raise UnsupportedMedia("The body is empty: send a video.")
        title = fields.pop("title", "")[:_TITLE_CHARS].strip()
        yield Upload(Received(Path(file.name), landing.digest.hexdigest(), landing.size_bytes, title), fields)


async def _read_raw(request: Request, landing: _Landing) -> None:
    async for chunk in request.stream():
        landing.add(chunk)
        await landing.flush(at_bytes=_FLUSH_BYTES)


async def _read_form(request: Request, landing: _Landing, boundary: str) -> dict[str, str]:
    if not boundary or len(boundary) > 256 or not boundary.isascii():
        raise BadRequest("multipart/form-data needs a boundary.")
    form = _Form(landing)
    parser = MultipartParser(boundary, form.callbacks())
    taken = 0
    try:
        async for chunk in request.stream():
            taken += len(chunk)
            if taken > landing.cap_bytes + _FORM_OVERHEAD_BYTES:
                raise _too_large(landing.cap_bytes)
            parser.write(chunk)
            await landing.flush(at_bytes=_FLUSH_BYTES)
        parser.finalize()
    except MultipartParseError as err:
        raise BadRequest(f"The form cannot be read: {err}.") from err
    if not form.has_file or not form.is_complete:
        raise Invalid("The form has no complete field 'file'.", errors=[fault("file", "send the video in this field")])
    return form.fields()


class _Form:
    """Follows a multipart form: the field ``file`` goes to the landing, the known small ones are kept."""

    def __init__(self, landing: _Landing) -> None:
        self._landing = landing
        self._header, self._value = b"", b""
        self._disposition = Message()
        self._name: str | None = None
        self._small: dict[str, bytearray] = {}
        self._file_name = ""
        self.has_file = False
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
        if self._name == "file":
            if self.has_file:
                raise Invalid("The form has several fields 'file'.", errors=[fault("file", "send one video")])
            self.has_file = True
            self._file_name = self._disposition.get_filename() or ""
        elif self._name in FIELDS:
            self._small[self._name] = bytearray()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self._landing.add(memoryview(data)[start:end])
        elif self._name in self._small:
            small = self._small[self._name]
            small += data[start:end]
            if len(small) > _MAX_FIELD_BYTES:
                raise Invalid(f"{self._name} is too long.", errors=[fault(self._name, "is too long")])

    def _end(self) -> None:
        self.is_complete = True

    def fields(self) -> dict[str, str]:
        """The small fields; the title defaults to the file's own name, without its folders."""
        fields = {name: bytes(value).decode("utf-8", "replace") for name, value in self._small.items()}
        if not fields.get("title"):
            fields["title"] = display_name(self._file_name)
        return fields


def display_name(file_name: str) -> str:
    """A file name fit to be shown: without folders and control characters."""
    base = PurePosixPath(PureWindowsPath(file_name).name).name
    return "".join(_printable(base))


def _printable(text: str) -> Iterator[str]:
    return (character for character in text if character.isprintable())
