"""``genba audit``: check the audit log of this installation, prove single entries, export it, and remember its head elsewhere.

Works on the database itself, not over the API: who audits an administrator should not have to trust the server.

Exit codes: 0 it holds, 1 it does not, 2 bad input.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from genba_shared.audit import AuditLog
from genba_shared.audit_export import Witness, check_proof, proof_text, restrict
from genba_shared.audit_export import export as write_tiles
from genba_shared.audit_tree import prove as make_proof
from genba_shared.audit_tree import seal_in
from genba_shared.audit_writer import audit_signer
from genba_shared.commands import BAD_INPUT, NEGATIVE, complain, out
from genba_shared.db import Database
from genba_shared.problems import Conflict, Problem
from genba_shared.settings import Platform
from genba_shared.tlog import NoteKey, NotSigned, open_checkpoint

app = typer.Typer(help="Check and export the audit log.", no_args_is_help=True, pretty_exceptions_enable=False)

File = Annotated[Path, typer.Argument(dir_okay=False)]


@app.command()
def verify(
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint that was kept elsewhere; repeat it for several.")
    ] = None,
) -> None:
    """Walk the whole log: chain, tree, tiles, signatures. Exit 0 only if all of it holds."""
    with _opened() as (database, platform):
        key = audit_signer(platform).key
        kept = [open_checkpoint(path.read_text(encoding="utf-8"), [key]) for path in checkpoint or []]
        report = AuditLog(database, key=key).verify(witnessed=kept)
    if not report.intact:
        complain(f"The audit log breaks at entry {report.broken_at}: {report.reason}.")
        raise typer.Exit(NEGATIVE)
    loose = report.entries - report.sealed
    out.print(
        f"[green]holds[/]: {report.entries} entries, root {report.root}"
        + (f", the last {loose} not below a signed checkpoint yet" if loose else ""),
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def export(folder: Annotated[Path, typer.Argument(file_okay=False)]) -> None:
    """Seal the log and write it as tlog-tiles, with its public key beside it."""
    with _opened() as (database, platform):
        _seal(database, platform)
        head = write_tiles(database, folder)
        (folder / "key").write_text(audit_signer(platform).key.vkey + "\n", encoding="utf-8")
    out.print(f"{head.size} entries in {folder}", highlight=False, soft_wrap=True)


@app.command()
def prove(
    entry: Annotated[int, typer.Argument(min=1, max=2**63 - 1, help="Number of the entry.")],
    path: Annotated[Path | None, typer.Option("--out", help="File to write; the proof is printed when absent.")] = None,
) -> None:
    """Prove that an entry is in the log, to somebody who has nothing but the log's public key."""
    with _opened() as (database, platform):
        _seal(database, platform)
        with database.read() as session:
            text = proof_text(make_proof(session, entry))
    if path is None:
        typer.echo(text, nl=False)
    else:
        path.write_text(text, encoding="utf-8")
        out.print(f"The proof of entry {entry} is in {path}.", highlight=False, soft_wrap=True)


@app.command()
def check(
    proof: File,
    key: Annotated[str, typer.Option(help="The log's public key (genba audit key), or a file that holds it.")],
) -> None:
    """Check a proof. Needs no database and no server."""
    with _one_line_failures():
        vkey = Path(key).read_text(encoding="utf-8") if Path(key).is_file() else key
        entry, head = check_proof(proof.read_text(encoding="utf-8"), NoteKey.parse(vkey))
    out.print(f"[green]holds[/]: entry {entry.seq} of {head.size} in {head.origin}", highlight=False, soft_wrap=True)
    out.print_json(data={"at": entry.at, "event": entry.event, "subject": entry.subject, "detail": dict(entry.detail)})


@app.command()
def key() -> None:
    """Print the public key that checks this log's checkpoints and proofs."""
    with _one_line_failures():
        typer.echo(audit_signer(Platform()).key.vkey)


@app.command()
def witness(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to remember; keep it off this machine.")],
) -> None:
    """Remember the log's head, if it extends the one remembered before. Exit 1 at a fork or a log cut off."""
    with _opened() as (database, platform):
        _seal(database, platform)
        seen = Witness(file, log=audit_signer(platform).key).look(database)
    out.print(f"{seen.size} entries, root {seen.root.hex()}", highlight=False, soft_wrap=True)


@app.command()
def drill(times: Annotated[int, typer.Option(min=1, help="How often to tamper.")] = 260) -> None:
    """Tamper with a scratch log in every way that we know, and count what goes unnoticed. Your log is not touched."""
    import tempfile

    from genba_shared.audit_drill import drill as tamper

    with _one_line_failures(), tempfile.TemporaryDirectory() as folder:
        tried, missed = tamper(Path(folder), times=times)
    table = Table("tampering", "tried", "unnoticed")
    for name, count in tried.items():
        table.add_row(name.replace("_", " "), str(count), str(missed[name]))
    out.print(table)
    raise typer.Exit(NEGATIVE if missed else 0)


@app.command("restrict")
def restrict_role(role: Annotated[str, typer.Argument(help="The Postgres role that Genba connects with.")]) -> None:
    """Let a Postgres role only read and append to the log. Run it as the tables' owner."""
    with _opened() as (database, _):
        restrict(database, role)


def _seal(database: Database, platform: Platform) -> None:
    with database.transaction() as session:
        seal_in(session, audit_signer(platform))


@contextlib.contextmanager
def _opened() -> Iterator[tuple[Database, Platform]]:
    with _one_line_failures():
        platform = Platform()
        database = Database(platform.database_url)
        try:
            database.upgrade()
            yield database, platform
        finally:
            database.close()


@contextlib.contextmanager
def _one_line_failures() -> Iterator[None]:
    try:
        yield
    except (NotSigned, Conflict) as failure:
        complain(str(failure))
        raise typer.Exit(NEGATIVE) from failure
    except Problem as failure:
        complain(failure.detail)
        raise typer.Exit(NEGATIVE) from failure
    except (OSError, ValueError) as failure:
        complain(str(failure))
        raise typer.Exit(BAD_INPUT) from failure
