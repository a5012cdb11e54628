"""What the gateway's commands that speak to a running Genba share: a client whose failures are one line, and how values are printed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import typer

from genba_gateway.client import Client, Refused, Unreachable
from genba_shared.commands import SERVER_SAID_NO, complain

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextlib.contextmanager
def connected(url: str, key: str) -> Iterator[Client]:
    """A client whose failures are said in one line. Raises: Exit."""
    try:
        with Client(url, key, retry_within_s=3.0) as client:
            yield client
    except Refused as refused:
        complain(f"{refused.status}: {refused.detail or refused.title}", refused.errors)
        raise typer.Exit(SERVER_SAID_NO) from refused
    except Unreachable as failure:
        complain(str(failure))
        raise typer.Exit(SERVER_SAID_NO) from failure


def print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False, default=lambda moment: moment.isoformat()))


def clock(moment: datetime) -> str:
    """On this machine's clock."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"
