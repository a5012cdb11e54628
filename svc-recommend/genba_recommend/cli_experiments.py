"""``genba recommend experiments``: start, look, stop, promote, through the public API."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from genba_shared.commands import BAD_INPUT, LOCAL, Key, Url, checked, complain, connect, folding_table, out

experiments = typer.Typer(help="Try versions against each other.", no_args_is_help=True)
PATH = "/v1/recommend/experiments"
ExperimentId = Annotated[str, typer.Argument(help="Id of the experiment.")]


@experiments.command("list")
def list_experiments(url: Url = LOCAL, key: Key = "") -> None:
    """The newest experiments."""
    table = folding_table("id", "name", "status", "share", "arms")
    with connect(url, key) as client:
        for each in checked(client.get(PATH)).json()["experiments"]:
            arms = ", ".join(f"{arm['name']} ({arm['version'] or arm['lists']})" for arm in each["arms"])
            table.add_row(each["id"], escape(each["name"]), each["status"], f"{each['share']:.0%}", escape(arms))
    out.print(table)


@experiments.command()
def start(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    arm: Annotated[
        list[str], typer.Option(help="name=version, or name=popular or name=trending; the first is the control.")
    ],
    share: Annotated[float, typer.Option(min=0.001, max=1, help="Of the users that take part.")] = 1.0,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Start an experiment; prints its id."""
    arms: list[dict[str, Any]] = []
    for each in arm:
        label, _, what = each.partition("=")
        if what.isdecimal():
            arms.append({"name": label, "version": int(what)})
        elif what in {"popular", "trending"}:
            arms.append({"name": label, "lists": what})
        else:
            complain(f"{each!r} must look like new=7 or control=popular.")
            raise typer.Exit(BAD_INPUT)
    with connect(url, key) as client:
        typer.echo(checked(client.post(PATH, json={"name": name, "arms": arms, "share": share})).json()["id"])


@experiments.command()
def results(
    experiment: ExperimentId,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer.")] = False,  # noqa: FBT002
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """What came of it so far. The interval holds however often you look."""
    with connect(url, key) as client:
        found = checked(client.get(f"{PATH}/{experiment}/results")).json()
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    table = folding_table("arm", "users", "lists", "metric", "value", "against control", "verdict")
    for arm in found["arms"]:
        if not arm["values"]:
            table.add_row(escape(arm["name"]), str(arm["users"]), str(arm["lists"]), "nothing to compare yet")
        for metric, value in arm["values"].items():
            against = found["against_control"].get(arm["name"], {}).get(metric)
            told = ("", "control") if against is None else (_interval(against), against["verdict"])
            table.add_row(escape(arm["name"]), str(arm["users"]), str(arm["lists"]), metric, f"{value:.4f}", *told)
    out.print(table)
    if found["sample_ratio_p"] < 0.001:
        complain(f"Users do not fall into the arms as they should (p = {found['sample_ratio_p']:.1g}).")


def _interval(found: dict[str, Any]) -> str:
    if found["always_low"] is None:
        return "–" if found["difference"] is None else f"{found['difference']:+.4f}"
    return f"{found['difference']:+.4f} ({found['always_low']:+.4f} to {found['always_high']:+.4f})"


@experiments.command()
def stop(experiment: ExperimentId, url: Url = LOCAL, key: Key = "") -> None:
    """End it."""
    with connect(url, key) as client:
        typer.echo(checked(client.post(f"{PATH}/{experiment}/stop")).json()["status"])


@experiments.command()
def promote(
    experiment: ExperimentId,
    arm: Annotated[str, typer.Option(help="Whose version shall serve everybody.")],
    reason: Annotated[str, typer.Option(help="For the history.")] = "",
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Make an arm's version the champion, and end the experiment."""
    with connect(url, key) as client:
        body = {"arm": arm, "reason": reason}
        found = checked(client.post(f"{PATH}/{experiment}/promote", json=body)).json()
    typer.echo(f"version {found['model_version']} of {found['model']} serves")


@experiments.command()
def estimate(
    version: Annotated[int, typer.Argument(min=1, help="Of the model; it need not have been shown.")],
    outcome: Annotated[Literal["click", "like"], typer.Option(help="Within a day of being shown.")] = "click",
    policy: Annotated[
        Literal["drawn", "best"], typer.Option(help="As an exploring list draws, or the version's best candidate.")
    ] = "drawn",
    days: Annotated[int, typer.Option(min=1, max=365, help="How far back.")] = 14,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """What places left to chance would have earned under a version, from lists made with explore."""
    asked: dict[str, Any] = {"outcome": outcome, "policy": policy, "days": days}
    with connect(url, key) as client:
        found = checked(client.get(f"/v1/recommend/models/{version}/offpolicy", params=asked)).json()
    table = folding_table("", f"{outcome}s a place", "95 %", title=f"version {version} of {found['model']}")
    for name in ("shown", "ips", "snips", "doubly_robust", "gain"):
        it = found[name]
        table.add_row(name.replace("_", " "), f"{it['value']:.4f}", f"{it['low']:.4f} to {it['high']:.4f}")
    out.print(table)
    places, effective = found["places"], found["effective_places"]
    typer.echo(f"{places} places in {found['lists']} lists of {found['users']} users; worth {effective:.0f} of its own")
    typer.echo(f"left out: {found['older']} lists older than the version, {found['unknown']} that it knows nothing of")
