"""The ``genba`` command. Composes what others offer: each service brings its own commands through the entry points ``genba.commands``.

Imports what was asked for and nothing else, so that ``genba --help`` does not wait for video codecs.

Exit codes: 0 done, 1 the work ran and its result is negative, 2 bad input or set-up, 3 the server said no, 130 interrupted.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

out = Console()
err = Console(stderr=True)
app = typer.Typer(
    name="genba",
    help="On-premises AI for the shop floor and the regulated office.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Home = Annotated[
    Path | None, typer.Option(envvar="GENBA_HOME", help="Data folder of embedded mode.", show_default=".genba")
]
Host = Annotated[str, typer.Option(envvar="GENBA_HOST", help="Address to listen on.")]
Port = Annotated[int, typer.Option(envvar="GENBA_PORT", min=1, max=65535, help="Port to listen on.")]


class Failed(Exception):
    """A failure that a person can mend: printed as one line, no traceback."""

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@app.command()
def up(home: Home = None, host: Host = "127.0.0.1", port: Port = 8080) -> None:
    """Run Genba on this machine: the API and a worker, supervised. No server to install."""
    from genba_gateway import up as supervised

    supervised.up(home, host=host, port=port, console=out)


@app.command()
def run(
    service: Annotated[str, typer.Argument(help="gateway, worker, embedded, or a service such as sop or training.")],
    host: Host = "127.0.0.1",
    port: Port = 8080,
    queues: Annotated[str, typer.Option(help="Queues that a worker takes from, comma-separated.")] = "cpu",
) -> None:
    """Run one service in the foreground, as a container does."""
    from genba_gateway import embedded

    embedded.run_service(service, host=host, port=port, queues=queues)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where videos, data and the report go.")] = Path("demo"),
) -> None:
    """Start embedded mode and run every service's main job on generated input. Exit 0 only if what was planted was found."""
    from genba_gateway import demo as story

    raise typer.Exit(story.run(folder, console=out))


@app.command(name="version")
def print_version() -> None:
    """Print the version."""
    out.print(version("genba"), highlight=False)


def main() -> None:
    """Run the command; the console script's entry."""
    asked = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), None)
    for entry in _others():
        app.add_typer(entry.load() if entry.name == asked else _unloaded(entry), name=entry.name)
    try:
        app()
    except Failed as failure:
        err.print(f"[bold red]genba:[/] {escape(str(failure))}", highlight=False, soft_wrap=True)
        sys.exit(failure.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except ValueError as error:
        if not (faults := _faults_of_settings(error)):
            raise
        for fault in faults:
            err.print(f"[bold red]genba:[/] {escape(fault)}", highlight=False, soft_wrap=True)
        sys.exit(2)


def _faults_of_settings(error: ValueError) -> list[str]:
    """One line for each environment variable that does not validate; nothing for an error of another kind."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    if isinstance(error, SettingsError):
        return [str(error)]
    if not isinstance(error, ValidationError):
        return []
    faults = []
    for found in error.errors():
        path = "__".join(str(part) for part in found["loc"] if isinstance(part, str)).upper()
        if not (names := _variables_of(path)):  # of something else than a setting
            return []
        faults.append(f"{' or '.join(names)}: {found['msg']}")
    return faults


def _variables_of(path: str) -> list[str]:
    """The variables that are set for a setting, or for a part of it; for one that is missing in a group, the one that would be it."""
    ours = sorted(name for name in os.environ if name.startswith("GENBA_"))
    group = path.rpartition("__")[0]
    beside = (name.partition(f"_{group}__")[0] for name in ours if group and f"_{group}__" in name)
    return (
        [name for name in ours if name.endswith(f"_{path}")]
        or [name for name in ours if f"_{path}__" in name]
        or sorted({f"{prefix}_{path}" for prefix in beside})
    )


def _others() -> Iterator[EntryPoint]:
    yield EntryPoint("jobs", "genba_gateway.jobs_cli:app", "genba.commands")
    yield EntryPoint("models", "genba_gateway.models_cli:app", "genba.commands")
    yield EntryPoint("keys", "genba_gateway.keys_cli:keys", "genba.commands")
    yield EntryPoint("backup", "genba_gateway.backup_cli:app", "genba.commands")
    yield from sorted(entry_points(group="genba.commands"), key=lambda entry: entry.name)


def _unloaded(entry: EntryPoint) -> typer.Typer:
    """Stands in a list of commands for one that was not asked for; its help is read, not imported."""
    return typer.Typer(help=_summary(entry.module))


def _summary(module: str) -> str:
    """The first sentence of a module's docstring, without the command's name before it."""
    found = find_spec(module)
    if found is None or found.origin is None:
        return ""
    text = ast.get_docstring(ast.parse(Path(found.origin).read_bytes())) or ""
    sentence = " ".join(text.split("\n\n")[0].split()).partition(": ")[2].partition(". ")[0].removesuffix(".")
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""
