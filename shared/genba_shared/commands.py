"""What every command that speaks to a running Genba shares: where it answers, with which key, its exit codes, its one-line failures.

A service's commands use ``connect`` and ``checked``; the gateway's own have ``genba_gateway.client``, which services do not know.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from genba_shared.trust import trust_of

# 0 done, 1 the work ran and its result is negative, 130 interrupted.
NEGATIVE, BAD_INPUT, SERVER_SAID_NO = 1, 2, 3
LOCAL = "http://127.0.0.1:8080"
_TIMEOUT_S = 600.0
_WIDE = 200


def _printed() -> Console:
    """What goes into a file or another program is as wide as it is, and not cut to the 80 columns that rich takes for one."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDE)


def folding_table(*columns: str | Column, title: str | None = None) -> Table:
    """A table whose cells fold where the terminal is narrow: an id or a date that is cut off is of no use."""
    return Table(*(Column(each, overflow="fold") if isinstance(each, str) else each for each in columns), title=title)


out = _printed()
err = Console(stderr=True)

Url = Annotated[str, typer.Option("--url", envvar="GENBA_URL", help="Where Genba answers.")]
Key = Annotated[str, typer.Option("--key", envvar="GENBA_API_KEY", help="API key.", show_default=False)]


def complain(said: str, errors: Sequence[Mapping[str, Any]] = ()) -> None:
    """One line for what failed, and one for each field that is wrong."""
    err.print(f"[bold red]genba:[/] {escape(said)}", highlight=False, soft_wrap=True)
    for each in errors:
        if each.get("message") == said:
            continue
        err.print(
            f"  {escape(str(each.get('field')))}: {escape(str(each.get('message')))}", highlight=False, soft_wrap=True
        )


@contextlib.contextmanager
def connect(url: str, key: str) -> Iterator[httpx.Client]:
    """A client whose failures are said in one line."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S, verify=trust_of(url)) as client:
            yield client
    except httpx.HTTPError as failure:
        complain(f"{url} does not answer: {failure}")
        raise typer.Exit(SERVER_SAID_NO) from failure
    except OSError as failure:
        complain(f"{failure.strerror}: {failure.filename}")
        raise typer.Exit(BAD_INPUT) from failure


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer, unless it is a problem: that is said, and the command ends."""
    if not answer.is_error:
        return answer
    try:
        problem: dict[str, Any] = answer.json()
    except ValueError:
        problem = {"detail": answer.text[:500]}
    hint = " Set GENBA_API_KEY, or pass --key." if answer.status_code == 401 else ""
    complain(f"{answer.status_code}: {problem.get('detail', answer.reason_phrase)}{hint}", problem.get("errors", []))
    raise typer.Exit(SERVER_SAID_NO)
