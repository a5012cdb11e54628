"""Text out of the files that people have: plain text, Markdown, HTML, PDF and Word; and text into chunks.

Files are not trusted: their kind is told by their bytes, what they unpack to is capped, nothing in them is run. Knows no
database and no web.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Final, Literal

from genba_shared.problems import Invalid, PayloadTooLarge, UnsupportedMedia

Kind = Literal["text", "markdown", "html", "pdf", "docx"]

MAX_CHARS: Final = 5_000_000
MAX_PAGES: Final = 3000
_MAX_UNPACKED_BYTES: Final = 200 * 1024**2
_MAX_TAGS: Final = 5_000_000
_PIECE_BYTES: Final = 1024**2
_PROPERTIES: Final = "docProps/core.xml"
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
_CELLS = {"td", "th"}
_OF_HEAD = {"title", "meta", "link", "base", "script", "style", "noscript", "template"}
# EUC-JP before Shift_JIS: kana of Shift_JIS are no EUC-JP, while short texts in EUC-JP pass for half-width kana.
_ENCODINGS = ("utf-8-sig", "euc_jp", "cp932")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_ISO_2022 = b"\x1b$"
_MANY_BLANKS = re.compile(r"[ \t\u3000]+")
_OPENED = re.compile(r"<[A-Za-z/!?]")
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
    kind = kind_of(data, content_type or "", name or "")
    found = _READERS[kind](data)
    text = tidy(found.text)
    if len(text) > MAX_CHARS:
        raise PayloadTooLarge(f"The document has {len(text)} characters; {MAX_CHARS} are taken.", limit=MAX_CHARS)
    if not text:
        raise Invalid("The document holds no text; a scan needs OCR first.")
    return Extracted(kind, text, tidy(found.title or "") or None)


def kind_of(data: bytes, content_type: str, name: str) -> Kind:
    """By the bytes; what they leave open, by the declared type and then by the name."""
    if content_type.lower().startswith("multipart/"):  # its fields, such as a clearance, would be lost in the text
        raise UnsupportedMedia("Send the file itself as the body; title, name and clearance are query parameters.")
    if data[:1024].lstrip().startswith(b"%PDF-"):
        return "pdf"
    if data[:4] == b"PK\x03\x04":
        return "docx"
    if b"\x00" in data[:4096] and not data.startswith(_UTF_16):
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
    known = "utf-16" if data.startswith(_UTF_16) else "iso2022_jp_ext" if _ISO_2022 in data else None
    for encoding in [known] if known else _ENCODINGS:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UnsupportedMedia("The text is neither UTF-8 nor UTF-16, Shift_JIS, EUC-JP or ISO-2022-JP.")


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
        self._in_title = self._in_head = False

    def handle_starttag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title" and not self.title  # a drawing in the text may have one, too
        if tag == "body" or (self._in_head and tag not in _OF_HEAD):
            self._end_head()
        if tag in _SKIPPED:
            self._skipping += 1
            self._in_head = self._in_head or tag == "head"
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if tag == "head":
            self._in_head = False
        if tag in _SKIPPED:
            self._skipping = max(0, self._skipping - 1)
        elif tag in _BLOCKS:
            self.parts.append("\n")
        elif tag in _CELLS:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
            return
        if self._in_head and data.strip():
            self._end_head()
        if not self._skipping:
            self.parts.append(data)

    def _end_head(self) -> None:
        """``</head>`` may be left out, and ``<body>`` as well: the first thing that belongs in no head ends it."""
        if self._skipping <= 1:
            self._skipping, self._in_head = 0, False


def _read_html(data: bytes) -> Extracted:
    parser = _Html()
    parser.feed(_text(data))
    if _OPENED.match(
        parser.rawdata
    ):  # a tag that never ends says nothing; close() would look for its end at every "<" in it
        parser.rawdata = ""
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


class _WordText:
    """The text of ``word/document.xml`` as its tags go by: no tree, for a few kilobytes may unpack to a million of them.

    What was struck out and the second form of a drawing are left out; a row of a table is a line, its cells parted by bars.
    """

    _SKIPPED: Final = frozenset({"Fallback", "moveFrom", "del", "pPr"})
    _SIGNS: Final = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}

    def __init__(self) -> None:
        self._texts: list[list[str]] = [[]]  # of the body, and of each cell that is open
        self._rows: list[list[str]] = []
        self._skipping = self._tags = self._chars = 0
        self._in_text = False

    def start(self, tag: str, _: object) -> None:
        self._tags += 1
        if self._tags > _MAX_TAGS:
            raise PayloadTooLarge(f"The document has more than {_MAX_TAGS} tags.", limit=_MAX_TAGS)
        name = tag.rpartition("}")[2]
        if self._skipping or name in self._SKIPPED:
            self._skipping += 1
        elif name == "t":
            self._in_text = True
        elif name in self._SIGNS:
            self._texts[-1].append(self._SIGNS[name])
        elif name == "tr":
            self._rows.append([])
        elif name == "tc":
            self._texts.append([])

    def end(self, tag: str) -> None:
        name = tag.rpartition("}")[2]
        if self._skipping:
            self._skipping -= 1
        elif name == "t":
            self._in_text = False
        elif name == "p":
            self._texts[-1].append("\n")
        elif name == "tc":
            cell = "".join(self._texts.pop()).replace("\n", " ").strip()
            (self._rows[-1] if self._rows else self._texts[-1]).append(cell)
        elif name == "tr":
            self._texts[-1] += [" | ".join(self._rows.pop()), "\n"]

    def data(self, text: str) -> None:
        if self._in_text and not self._skipping:
            self._chars += len(text)
            if self._chars > MAX_CHARS:
                raise PayloadTooLarge(f"The document holds more than {MAX_CHARS} characters.", limit=MAX_CHARS)
            self._texts[-1].append(text)

    def close(self) -> str:
        return "".join(self._texts[0])


def _read_docx(data: bytes) -> Extracted:
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import XMLParser, fromstring

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            if sum(each.file_size for each in archive.infolist()) > _MAX_UNPACKED_BYTES:
                raise PayloadTooLarge("The document unpacks to too much.", limit=_MAX_UNPACKED_BYTES)
            if "word/document.xml" not in names:
                raise UnsupportedMedia("This is a zip file, and not a Word document.")
            parser = XMLParser(target=_WordText())
            with archive.open("word/document.xml") as part:
                while piece := part.read(_PIECE_BYTES):
                    parser.feed(piece)
            text = parser.close()
            about = archive.read(_PROPERTIES) if _PROPERTIES in names else b""
            title = (
                fromstring(about[:_PIECE_BYTES]).findtext("{http://purl.org/dc/elements/1.1/}title") if about else None
            )
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        SyntaxError,
        DefusedXmlException,
        ValueError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise Invalid("The Word document is damaged.") from error
    return Extracted("docx", text, title or None)


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
        plain = paragraph.strip()
        at = 0
        while len(plain) - at > size_chars:
            end = at + size_chars
            cut = max((plain.rfind(mark, at, end) for mark in "。！？.!? 、,"), default=-1) + 1
            cut = cut if cut - at > size_chars // 4 else end
            parts.append(plain[at:cut].strip())
            at = cut
            while plain[at].isspace():  # the last one is none
                at += 1
        if at < len(plain):
            parts.append(plain[at:])
    return parts
