"""``genba keys``: make, list, revoke and rotate API keys, straight on the database, so that it works before anything is served."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column

from genba_gateway.cli import Failed, Home
from genba_gateway.home import migrate, platform_at, write_private
from genba_gateway.keys import Keys
from genba_shared.commands import folding_table, out
from genba_shared.problems import Problem

keys = typer.Typer(help="API keys: create, list, revoke, rotate.", no_args_is_help=True)

KeyFile = Annotated[Path | None, typer.Option(help="Write the key to this file (mode 0600) instead of printing it.")]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Who will use it.")],
    role: Annotated[str, typer.Option(help="viewer, operator, reviewer, engineer, auditor or admin.")] = "viewer",
    clearance: Annotated[str, typer.Option(help="public, internal, confidential or secret.")] = "internal",
    expires_days: Annotated[
        int | None, typer.Option(min=1, max=36500, help="Days until it expires; never, if left out.")
    ] = None,
    file: KeyFile = None,
    home: Home = None,
) -> None:
    """Make a key. It is shown once: the database keeps its hash only."""
    expires_at = None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days)
    with _keys(home) as store:
        record, plaintext = store.create(
            name, role=role, clearance=clearance, expires_at=expires_at, keep=_keeper(file)
        )
    _hand_over(record.id, plaintext, file)


@keys.command(name="list")
def list_keys(home: Home = None) -> None:
    """List every key, without its secret."""
    table = folding_table(Column("id", no_wrap=True), "name", "role", "clearance", "created", "expires", "state")
    with _keys(home) as store:
        for key in store.list():
            expires = f"{key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else "never"
            table.add_row(
                key.id,
                escape(key.name),
                key.role,
                key.clearance,
                f"{key.created_at:%Y-%m-%d %H:%M}",
                expires,
                key.state,
            )
    out.print(table)


@keys.command()
def revoke(key_id: str, home: Home = None) -> None:
    """Revoke a key. Running gateways stop taking it within a minute."""
    with _keys(home) as store:
        store.revoke(key_id)
    out.print(f"{key_id} is revoked; running gateways stop taking it within 60 s.", highlight=False)


@keys.command()
def rotate(
    key_id: str,
    overlap_hours: Annotated[float, typer.Option(min=0, max=2160, help="How long the old key still works.")] = 24,
    file: KeyFile = None,
    home: Home = None,
) -> None:
    """Make a successor with the same rights; the old key works on for a while."""
    with _keys(home) as store:
        record, plaintext = store.rotate(key_id, overlap_s=overlap_hours * 3600, keep=_keeper(file))
    _hand_over(record.id, plaintext, file)


@contextmanager
def _keys(home: Path | None) -> Iterator[Keys]:
    platform = platform_at(home)
    database = migrate(platform)
    try:
        yield Keys(database, env=platform.env)
    except Problem as problem:
        faults = problem.members.get("errors")
        named = (
            [f"{each['field']}: {each['message']}" for each in faults if isinstance(each, dict)]
            if isinstance(faults, list)
            else []
        )
        raise Failed("; ".join(named) or problem.detail) from problem
    finally:
        database.close()


def _keeper(file: Path | None) -> Callable[[str], object]:
    """What keeps a key before it counts: a file that cannot be written must leave no key that nobody has."""

    def keep(plaintext: str) -> None:
        if file is not None:
            try:
                write_private(file, plaintext)
            except OSError as failure:
                raise Failed(f"{failure.strerror}: {failure.filename}; no key was made.") from failure

    return keep


def _hand_over(key_id: str, plaintext: str, file: Path | None) -> None:
    if file is not None:
        out.print(f"{key_id} is in {file}.", highlight=False)
        return
    out.print(f"{key_id}\n[bold]{plaintext}[/]\nThis is the only time that it is shown.", highlight=False)
