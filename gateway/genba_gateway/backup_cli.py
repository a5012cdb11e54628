"""``genba backup``: write an installation of embedded mode to one file while it runs, check such a file, make a home from it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from genba_gateway import backup
from genba_gateway.cli import Failed, Home
from genba_gateway.home import platform_at

app = typer.Typer(help="Back up and restore embedded mode.", no_args_is_help=True)
out = Console()

BackupFile = Annotated[Path, typer.Argument(dir_okay=False, help="The backup, a tar file.")]


@app.command()
def create(file: BackupFile, home: Home = None) -> None:
    """Write a backup; Genba may go on running. The file holds secrets: keep it like the machine itself."""
    platform = platform_at(home)
    with _work("backing up") as progress:
        contents = backup.create(platform, file, progress=progress)
    out.print(f"{file}: {_told(contents)}", highlight=False, soft_wrap=True)
    for name in backup.kept_outside():
        out.print(f"Not in it, for it is kept outside of the home: what {name} names.", highlight=False, soft_wrap=True)


@app.command()
def check(file: BackupFile) -> None:
    """Read a backup whole and make sure that it can be restored. Exit 1 if not."""
    with _work("reading") as progress:
        contents = backup.check(file, progress=progress)
    out.print(f"[green]whole[/]: {_told(contents)}", highlight=False, soft_wrap=True)


@app.command()
def restore(file: BackupFile, home: Home = None) -> None:
    """Make a home from a backup, in a folder that is not there yet."""
    platform = platform_at(home)
    with _work("restoring") as progress:
        contents = backup.restore(file, platform, progress=progress)
    out.print(f"{platform.home} is as it was: {_told(contents)}", highlight=False, soft_wrap=True)
    out.print(
        "Keys that were revoked and records that were erased since then are back: revoke and erase them again.",
        highlight=False,
        soft_wrap=True,
    )
    out.print(f"Start it with: genba up --home {shlex.quote(str(platform.home))}", highlight=False, soft_wrap=True)


@contextmanager
def _work(what: str) -> Iterator[backup.Progress]:
    """A bar while it lasts, and failures in one line: 1 for a file that is no whole backup, 2 for what can be mended."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bars:
            task = bars.add_task(what, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)
    except backup.NotABackup as failure:
        raise Failed(str(failure), exit_code=1) from failure
    except backup.CannotBackUp as failure:
        raise Failed(str(failure)) from failure
    except OSError as failure:
        raise Failed(f"{failure.strerror}: {failure.filename or what}; nothing was changed.") from failure


def _told(contents: backup.Contents) -> str:
    return (
        f"{len(contents.files)} files, {decimal(contents.size_bytes)}, "
        f"of {contents.made_at:%Y-%m-%d %H:%M} UTC by Genba {contents.genba}"
    )
