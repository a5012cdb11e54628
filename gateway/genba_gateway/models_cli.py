"""``genba models``: look at the models of a running Genba, promote a version, try one beside it, roll back.

Exit codes: 0 done, 2 bad input, 3 the server said no (a gate that is missed, a move that somebody else made) or does not answer.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column

from genba_gateway.cli import Failed, Home
from genba_gateway.client import Client
from genba_gateway.client_models import Alias, Gates, Model, Pointer, Version
from genba_gateway.shell import AsJson, clock, connected, print_json
from genba_shared.commands import LOCAL, Key, Url, folding_table, out
from genba_shared.problems import Problem

app = typer.Typer(help="Models of a running Genba.", no_args_is_help=True, pretty_exceptions_enable=False)

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Its name, such as recommend.two_tower.")]
Number = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="A version's number.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; it stays in the history.")]
Overridden = Annotated[bool, typer.Option("--override-gates", help="Although it missed a gate.")]
Expected = Annotated[
    int | None, typer.Option("--generation", help="Refuse if the alias has moved since this generation.")
]

_COLOURS = {"registered": "default", "gate_failed": "red", "retired": "bright_black"}


@app.command("list")
def list_models(as_json: AsJson = False, url: Url = LOCAL, key: Key = "") -> None:  # noqa: FBT002 - a flag
    """List the models: which version serves, which is tried beside it."""
    with connected(url, key) as genba:
        found = genba.models.list()
    if as_json:
        print_json([dataclasses.asdict(model) for model in found])
        return
    table = folding_table(Column("model", no_wrap=True), "champion", "since", "challenger", "rollback to", "newest")
    for model in found:
        since = clock(model.champion.moved_at) if model.champion.number else "–"
        table.add_row(model.name, _number(model.champion.number), since, *_others(model))
    out.print(table)


@app.command()
def show(
    model: ModelName,
    number: Annotated[int | None, typer.Argument(metavar="[VERSION]", min=1, help="Only this version.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many versions, newest first.")] = 20,
    as_json: AsJson = False,  # noqa: FBT002 - a flag
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Show a model with its versions, or one version with its metrics, gates and lineage."""
    with connected(url, key) as genba:
        if number is None:
            _show_model(genba, model, limit, as_json=as_json)
            return
        version = genba.models.version(model, number)
    if as_json:
        print_json(dataclasses.asdict(version))
    else:
        _show_version(version)


@app.command()
def history(
    model: ModelName,
    alias: Annotated[Alias | None, typer.Option(help="Only this one's moves.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    as_json: AsJson = False,  # noqa: FBT002 - a flag
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Show who moved an alias, when and why."""
    with connected(url, key) as genba:
        moves = genba.models.history(model, alias=alias, limit=limit)
    if as_json:
        print_json([dataclasses.asdict(move) for move in moves])
        return
    table = folding_table("when", "alias", "move", "from", "to", "by", "why")
    for move in moves:
        numbers = map(_number, (move.from_number, move.to_number))
        table.add_row(clock(move.at), move.alias, move.kind, *numbers, escape(move.by), escape(move.reason))
    out.print(table)


@app.command()
def promote(
    model: ModelName,
    number: Number,
    reason: Reason,
    override_gates: Overridden = False,  # noqa: FBT002 - a flag
    generation: Expected = None,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Make a version the champion; services follow within seconds, without a restart."""
    with connected(url, key) as genba:
        gates: Gates = "overridden" if override_gates else "must_pass"
        now = genba.models.promote(model, number, reason=reason, generation=generation, gates=gates)
    _say(model, now.champion)


@app.command()
def rollback(model: ModelName, reason: Reason, generation: Expected = None, url: Url = LOCAL, key: Key = "") -> None:
    """Go back to the champion before this one."""
    with connected(url, key) as genba:
        now = genba.models.rollback(model, reason=reason, generation=generation)
    _say(model, now.champion)


@app.command()
def challenger(
    model: ModelName,
    number: Annotated[str, typer.Argument(metavar="VERSION|none", help="The version to try, or none to end it.")],
    reason: Reason,
    override_gates: Overridden = False,  # noqa: FBT002 - a flag
    generation: Expected = None,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Try a version beside the champion, or end the trial."""
    if number != "none" and not (number.isascii() and number.isdigit()):
        raise typer.BadParameter(f"{number!r} is neither a version's number nor none.")
    with connected(url, key) as genba:
        if number == "none":
            now = genba.models.clear_challenger(model, reason=reason, generation=generation)
        else:
            gates: Gates = "overridden" if override_gates else "must_pass"
            now = genba.models.promote(
                model, int(number), reason=reason, alias="challenger", generation=generation, gates=gates
            )
    _say(model, now.challenger)


@app.command()
def fetch(
    model: ModelName,
    number: Number,
    folder: Annotated[Path, typer.Option("--out", file_okay=False, help="Where the bundle's folder goes.")],
    home: Home = None,
) -> None:
    """Write a version's files into a folder and print its path. Works on the database and the artifacts, where Genba runs."""
    from genba_gateway.home import migrate, platform_at
    from genba_shared.artifacts import Artifacts
    from genba_shared.registry import Registry

    platform = platform_at(home)
    database = migrate(platform)
    try:
        registry = Registry(database, Artifacts(platform.artifacts_url))
        typer.echo(registry.fetch(registry.get(model, number), folder))
    except Problem as problem:
        raise Failed(problem.detail) from problem
    except OSError as failure:
        raise Failed(str(failure)) from failure
    finally:
        database.close()


def _show_model(genba: Client, name: str, limit: int, *, as_json: bool) -> None:
    model, versions = genba.models.get(name), list(genba.models.versions(name, limit=limit))
    if as_json:
        print_json({**dataclasses.asdict(model), "versions": [dataclasses.asdict(version) for version in versions]})
        return
    champion = _number(model.champion.number)
    out.print(f"{name}: champion {champion}, challenger {_number(model.challenger.number)}", highlight=False)
    out.print(f"a rollback goes to {_number(model.previous)}", highlight=False)
    table = folding_table("version", "serves as", "status", "outcome", "metrics", "job", "made")
    for version in versions:
        metrics = "  ".join(f"{metric}={_value(value)}" for metric, value in version.metrics.items())
        table.add_row(
            f"{version.number}",
            " ".join(version.aliases),
            f"[{_COLOURS.get(version.status, 'default')}]{version.status}[/]",
            version.outcome,
            escape(metrics),
            version.lineage["job_id"],
            clock(version.created_at),
        )
    out.print(table)


def _show_version(version: Version) -> None:
    serves = f", {' and '.join(version.aliases)}" if version.aliases else ""
    out.print(f"{version.model} version {version.number}: {version.status}{serves}", highlight=False)
    table = folding_table("metric", Column("value", justify="right"), "gate")
    for metric in sorted({*version.metrics, *(gate.metric for gate in version.gates)}):
        gates = [gate for gate in version.gates if gate.metric == metric]
        said = "\n".join(
            f"{'[green]met[/]' if gate.passed else '[red]missed[/]'} {escape(gate.reason)}" for gate in gates
        )
        table.add_row(escape(metric), _value(version.metrics.get(metric)), said)
    out.print(table)
    lineage = version.lineage
    origin = (
        f"job {lineage['job_id'] or '–'}, data {lineage['data_hash']}, code {lineage['code_commit']}, "
        f"compared with {_number(lineage['parent'])}"
    )
    out.print(escape(origin), highlight=False, soft_wrap=True)
    size = f"{len(version.files)} files, {version.size_bytes} bytes, {version.clearance}, by {version.created_by}"
    out.print(escape(size), highlight=False, soft_wrap=True)


def _say(model: str, pointer: Pointer) -> None:
    where = "points nowhere" if pointer.number is None else f"is version {pointer.number}"
    out.print(f"{model}: {pointer.alias} {where}", highlight=False)


def _others(model: Model) -> tuple[str, ...]:
    return tuple(map(_number, (model.challenger.number, model.previous, model.newest)))


def _number(number: int | None) -> str:
    return "–" if number is None else f"{number}"


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"
