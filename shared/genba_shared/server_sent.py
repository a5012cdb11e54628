"""Server-sent events as they are read from a stream: what the command line and the Python client follow jobs by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def events(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """The fields of each event, such as ``id``, ``event`` and ``data``; a stream that breaks off leaves out its last, half one.

    Comments are skipped. Source: HTML Living Standard, 9.2.6; the server here writes one ``data`` line an event.
    """
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        fields.pop("", None)  # a line that begins with a colon is a comment
        if fields:
            yield fields
        fields = {}
