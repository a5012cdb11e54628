"""Documents out of the files that corpora come in: Wikipedia dumps, CC-100, mC4, and a company's own text. One at a time.

A file is streamed, whatever its size. Knows the formats and nothing of what a document is good for.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from genba_llm.refused import Refused

OnBad = Callable[[str, str], None]
Format = Literal["wikipedia", "cc100", "mc4", "jsonl", "text"]
ROBOTS_DUMP = "published as a dump; nothing was crawled here"
ROBOTS_CRAWL = "Common Crawl honours robots.txt; nothing was crawled here"
ROBOTS_OWN = "local file; nothing was crawled"


@dataclass(frozen=True)
class Document:
    """A text and where it is from. ``source`` names the page or line, ``licence`` and ``robots`` what may be done with it."""

    text: str
    source: str
    licence: str
    robots: str


class Unreadable(Refused):
    """The file is not what its format says."""


def _refuse(place: str, reason: str) -> None:
    message = f"{place}: {reason}"
    raise Unreadable(message)


def read_documents(path: Path, how: Format | None = None, *, bad: OnBad = _refuse) -> Iterator[Document]:
    """The documents of a file in their order; without ``how`` the name tells the format.

    ``bad(place, reason)`` hears of a line that is none; it may raise, or return to have it skipped.
    Raises: Unreadable (a ValueError) for a file, and without ``bad`` for a line, with the place; OSError.
    """
    how = how or format_of(path)
    try:
        yield from _READERS[how](path, bad)
    except (EOFError, lzma.LZMAError, zlib.error, OSError, ParseError, DefusedXmlException, UnicodeDecodeError) as err:
        if isinstance(err, OSError) and err.errno is not None:  # the disk's; gzip's and bz2's own have no number
            raise
        message = f"{path.name} is no readable {how} file: {err}"
        raise Unreadable(message) from err


def format_of(path: Path) -> Format:
    """Raises: Unreadable for a name that no reader knows."""
    name = path.name
    for suffix in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(suffix)
    if name.endswith(".xml"):
        return "wikipedia"
    if name.endswith(".jsonl"):
        return "jsonl"
    if name.endswith(".json"):
        return "mc4"
    if name.endswith(".txt"):
        return "cc100" if path.name.endswith(".xz") else "text"
    message = f"{path.name}: a Wikipedia dump (.xml), CC-100 (.txt.xz), mC4 (.json), JSON lines (.jsonl) or text (.txt) is wanted."
    raise Unreadable(message)


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".bz2":
        return bz2.open(path, "rb")
    if path.suffix == ".xz":
        return lzma.open(path, "rb")
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def _wikipedia(path: Path, _bad: OnBad) -> Iterator[Document]:
    """Articles (namespace 0, no redirects) of a pages-articles dump, as plain text."""
    with _open(path) as file:
        title, namespace, text, redirect = "", "", "", False
        parents: list[Element] = []
        for event, element in iterparse(file, events=("start", "end")):
            tag = element.tag.rsplit("}", 1)[-1]
            if event == "start":
                parents.append(element)
                continue
            parents.pop()
            if tag == "title":
                title = element.text or ""
            elif tag == "ns":
                namespace = element.text or ""
            elif tag == "redirect":
                redirect = True
            elif tag == "text":
                text = element.text or ""
            elif tag == "page":
                if namespace == "0" and not redirect and (plain := plain_wikitext(text)):
                    yield Document(plain, f"wikipedia:{title}", "CC-BY-SA-4.0", ROBOTS_DUMP)
                title, namespace, text, redirect = "", "", "", False
                for parent in parents:
                    parent.clear()  # else the tree grows with the dump


def _cc100(path: Path, bad: OnBad) -> Iterator[Document]:
    """Documents between empty lines, a paragraph on each line."""
    for first, text in _paragraphs(path, bad):
        yield Document(text, f"cc100:{path.name}:{first}", "Common Crawl terms of use", ROBOTS_CRAWL)


def _mc4(path: Path, bad: OnBad) -> Iterator[Document]:
    for place, document in _json_lines(path, bad):
        text, url = document.get("text"), document.get("url")
        if isinstance(text, str) and isinstance(url, str):
            yield Document(text, f"mc4:{url}", "ODC-BY", ROBOTS_CRAWL)
        else:
            bad(place, "mC4 lines have `text` and `url`.")


def _jsonl(path: Path, bad: OnBad) -> Iterator[Document]:
    for place, document in _json_lines(path, bad):
        text, licence = document.get("text"), document.get("licence")
        if isinstance(text, str) and isinstance(licence, str):
            yield Document(text, str(document.get("source") or place), licence, ROBOTS_OWN)
        else:
            bad(place, "a line needs `text` and `licence`.")


def _text(path: Path, bad: OnBad) -> Iterator[Document]:
    """Paragraphs of a text file; their licence is the user's to know."""
    for first, text in _paragraphs(path, bad):
        yield Document(text, f"{path.name}:{first}", "own", ROBOTS_OWN)


def _paragraphs(path: Path, bad: OnBad) -> Iterator[tuple[int, str]]:
    """Lines between empty ones, with the number of the first."""
    lines: list[str] = []
    first = 1
    with _open(path) as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8").strip()
            except UnicodeDecodeError as err:
                bad(f"{path.name}:{number}", f"no UTF-8: {err.reason}")
                continue
            if line:
                lines.append(line)
                continue
            if lines:
                yield first, "\n".join(lines)
                lines = []
            first = number + 1
    if lines:
        yield first, "\n".join(lines)


def _json_lines(path: Path, bad: OnBad) -> Iterator[tuple[str, dict[str, object]]]:
    """Every object with the place of its line."""
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{path.name}:{number}"
            try:
                document = json.loads(line)
            except ValueError as err:
                bad(place, f"no JSON: {err}")
                continue
            if isinstance(document, dict):
                yield place, document
            else:
                bad(place, "an object is wanted.")


_READERS: dict[Format, Callable[[Path, OnBad], Iterator[Document]]] = {
    "wikipedia": _wikipedia,
    "cc100": _cc100,
    "mc4": _mc4,
    "jsonl": _jsonl,
    "text": _text,
}

_DROPPED = re.compile(
    r"<!--.*?-->|<ref[^>/]*/>|<ref[^>]*>.*?</ref>|<(math|gallery|source|syntaxhighlight|table|score)[^>]*>.*?</\1>",
    re.DOTALL,
)
_TABLE = re.compile(r"\{\|(?:(?!\{\|).)*?\|\}", re.DOTALL)
_TEMPLATE = re.compile(r"\{\{(?:(?!\{\{|\}\}).)*\}\}", re.DOTALL)
_FILE_LINK = re.compile(
    r"\[\[(?:File|Image|Category|ファイル|画像|カテゴリ)\s*:(?:[^\[\]]|\[\[[^\[\]]*\]\])*\]\]", re.IGNORECASE
)
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_EXTERNAL = re.compile(r"\[https?://[^\s\]]+\s*([^\]]*)\]")
_TAG = re.compile(r"</?[a-zA-Z][^>]*>")
_LINE_START = re.compile(r"^[*#:;]+\s*", re.MULTILINE)
_HEADING = re.compile(r"^=+\s*(.*?)\s*=+\s*$", re.MULTILINE)
_BLANK = re.compile(r"\n{2,}")


def plain_wikitext(text: str) -> str:
    """The prose of an article: no templates, tables, references, files or markup. Nested templates are peeled off inside out."""
    text = _DROPPED.sub("", text)
    for pattern in (_TEMPLATE, _TABLE):
        for _ in range(20):
            peeled = pattern.sub("", text)
            if peeled == text:
                break
            text = peeled
    text = _LINK.sub(r"\1", _FILE_LINK.sub("", text))
    text = _TAG.sub("", _EXTERNAL.sub(r"\1", text))
    text = _HEADING.sub(r"\1", _LINE_START.sub("", text)).replace("'''", "").replace("''", "").replace("&nbsp;", " ")
    return _BLANK.sub("\n", text).strip()
