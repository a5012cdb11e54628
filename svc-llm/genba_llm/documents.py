"""Text out of the files that people have: plain text, Markdown, HTML, PDF and Word; and text into chunks.

Files are not trusted: their kind is told by their bytes, what they unpack to is capped, nothing in them is run. Knows no
database and no web.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Final, Literal

from genba_shared.problems import Invalid, PayloadTooLarge, UnsupportedMedia

Kind = Literal["text", "markdown", "html", "pdf", "docx"]

MAX_CHARS: Final = 5_000_000
MAX_PAGES: Final = 3000
_MAX_UNPACKED_BYTES: Final = 200 * 1024**2
_CHUNK_CHARS: Final = 800
_SKIPPED = {"script", "style", "noscript", "template", "head", "svg"}
_BLOCKS = {
    "p",
    "div",
    "li",
    "tr",
    "br",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "section",
    "article",
    "table",
    "pre",
    "dt",
    "dd",
}
_ENCODINGS = ("utf-8-sig", "cp932", "euc_jp")
_MANY_BLANKS = re.compile(r"[ \t\u3000]+")
_MANY_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class Extracted:
    """A file's text, its kind, and its title where it brings one."""

    kind: Kind
    text: str
    title: str | None = None


def extract(data: bytes, *, content_type: str | None = None, name: str | None = None) -> Extracted:
    """The text of a file.

    Raises: UnsupportedMedia for bytes of no known kind; Invalid for a file that is damaged, encrypted or holds no text;
    PayloadTooLarge for one that unpacks to too much.
    """
    kind = _kind(data, content_type or "", name or "")
    found = _READERS[kind](data)
    text = tidy(found.text)
    if len(text) > MAX_CHARS:
        raise PayloadTooLarge(f"The document has {len(text)} characters; {MAX_CHARS} are taken.", limit=MAX_CHARS)
    if not text:
        raise Invalid("The document holds no text; a scan needs OCR first.")
    return Extracted(kind, text, tidy(found.title or "") or None)


def _kind(data: bytes, content_type: str, name: str) -> Kind:
    """By the bytes; what they leave open, by the declared type and then by the name."""
    if content_type.lower().startswith("multipart/"):  # its fields, such as a clearance, would be lost in the text
        raise UnsupportedMedia("Send the file itself as the body; title, name and clearance are query parameters.")
    if data[:1024].lstrip().startswith(b"%PDF-"):
        return "pdf"
    if data[:4] == b"PK\x03\x04":
        return "docx"
    if b"\x00" in data[:4096]:
        raise UnsupportedMedia("Send text, Markdown, HTML, PDF or Word (.docx).")
    start = data[:2048].lstrip().lower()
    if (
        "html" in content_type
        or start.startswith((b"<!doctype html", b"<html"))
        or name.lower().endswith((".html", ".htm"))
    ):
        return "html"
    return "markdown" if "markdown" in content_type or name.lower().endswith((".md", ".markdown")) else "text"


def _text(data: bytes) -> str:
    for encoding in _ENCODINGS:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UnsupportedMedia("The text is neither UTF-8 nor Shift_JIS nor EUC-JP.")


def _read_text(data: bytes) -> Extracted:
    return Extracted("text", _text(data))


def _read_markdown(data: bytes) -> Extracted:
    text = _text(data)
    heading = re.search(r"^#\s+(.+)$", text, re.MULTILINE)
    return Extracted("markdown", text, heading[1].strip() if heading else None)


class _Html(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.title: list[str] = []
        self._skipping = 0
        self._in_title = False

    def handle_starttag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title"
        if tag in _SKIPPED:
            self._skipping += 1
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if tag in _SKIPPED:
            self._skipping = max(0, self._skipping - 1)
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif not self._skipping:
            self.parts.append(data)


def _read_html(data: bytes) -> Extracted:
    parser = _Html()
    parser.feed(_text(data))
    parser.close()
    return Extracted("html", "".join(parser.parts), " ".join("".join(parser.title).split()) or None)


def _read_pdf(data: bytes) -> Extracted:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Invalid("The PDF is protected by a password.")
        if len(reader.pages) > MAX_PAGES:
            raise PayloadTooLarge(f"The PDF has {len(reader.pages)} pages; {MAX_PAGES} are taken.", limit=MAX_PAGES)
        text, size = [], 0
        for page in reader.pages:
            text.append(page.extract_text() or "")
            size += len(text[-1])
            if size > MAX_CHARS:
                raise PayloadTooLarge(f"The PDF holds more than {MAX_CHARS} characters.", limit=MAX_CHARS)
        title = reader.metadata.title if reader.metadata else None
    except (
        PyPdfError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
        NotImplementedError,
    ) as error:
        raise Invalid("The PDF cannot be read: it is damaged, or protected.") from error
    return Extracted("pdf", "\n\n".join(text), str(title) if title else None)


def _read_docx(data: bytes) -> Extracted:
    from docx import Document
    from docx.opc.exceptions import PackageNotFoundError

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(each.file_size for each in archive.infolist()) > _MAX_UNPACKED_BYTES:
                raise PayloadTooLarge("The document unpacks to too much.", limit=_MAX_UNPACKED_BYTES)
            if "word/document.xml" not in archive.namelist():
                raise UnsupportedMedia("This is a zip file, and not a Word document.")
        document = Document(io.BytesIO(data))
        lines = [paragraph.text for paragraph in document.paragraphs]
        lines += [" | ".join(cell.text for cell in row.cells) for table in document.tables for row in table.rows]
        title = document.core_properties.title
    except (zipfile.BadZipFile, PackageNotFoundError, KeyError, ValueError, AttributeError, SyntaxError) as error:
        raise Invalid("The Word document is damaged.") from error
    return Extracted("docx", "\n".join(lines), title or None)


_READERS: dict[Kind, Callable[[bytes], Extracted]] = {
    "text": _read_text,
    "markdown": _read_markdown,
    "html": _read_html,
    "pdf": _read_pdf,
    "docx": _read_docx,
}


def tidy(text: str) -> str:
    """Without control characters and runs of blanks; paragraphs stay apart."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    plain = "".join(each for each in lines if each in "\n\t" or each.isprintable() or each == "\u3000")
    return _MANY_LINES.sub("\n\n", "\n".join(_MANY_BLANKS.sub(" ", line).strip() for line in plain.split("\n"))).strip()


def chunks(text: str, *, size_chars: int = _CHUNK_CHARS) -> list[str]:
    """Pieces of about ``size_chars``, cut between paragraphs, else between sentences, else anywhere; nothing is lost."""
    found: list[str] = []
    current = ""
    for part in _parts(text, size_chars):
        if current and len(current) + len(part) + 1 > size_chars:
            found.append(current)
            current = part
        else:
            current = f"{current}\n{part}" if current else part
    return [*found, current] if current else found


def _parts(text: str, size_chars: int) -> list[str]:
    parts: list[str] = []
    for paragraph in text.split("\n"):
        rest = paragraph.strip()
        while len(rest) > size_chars:
            cut = max((rest.rfind(mark, 0, size_chars) for mark in "。！？.!? 、,"), default=-1) + 1
            cut = cut if cut > size_chars // 4 else size_chars
            parts.append(rest[:cut].strip())
            rest = rest[cut:].strip()
        if rest:
            parts.append(rest)
    return parts
