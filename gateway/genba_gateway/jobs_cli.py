"""``genba jobs``: submit, list, watch, cancel and requeue jobs of a running Genba, and keep its schedules.

Exit codes: 0 done, 1 the job ended without success, 2 bad input, 3 the server said no or does not answer, 130 interrupted
(the job goes on).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from rich.markup import escape
from rich.table import Column

from genba_gateway.client import Client, Job, Schedule
from genba_gateway.client_records import Overlap, Status
from genba_gateway.job_progress import Display
from genba_gateway.shell import AsJson, clock, connected, print_json
from genba_shared.commands import BAD_INPUT, LOCAL, NEGATIVE, Key, Url, complain, err, folding_table, out

app = typer.Typer(help="Jobs of a running Genba.", no_args_is_help=True, pretty_exceptions_enable=False)
schedules = typer.Typer(help="Jobs by the clock: list, create, change, delete.", no_args_is_help=True)
app.add_typer(schedules, name="schedules")

_COLOURS = {"succeeded": "green", "failed": "red", "dead": "red", "cancelled": "yellow", "running": "cyan"}

JobIds = Annotated[list[str], typer.Argument(metavar="JOB…", help="Ids of jobs.")]
ScheduleId = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Id of a schedule.")]
Param = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter; JSON if it reads as such, else text."),
]
Params = Annotated[str | None, typer.Option("--params", metavar="JSON|@FILE", help="All parameters as one object.")]
Watch = Annotated[bool, typer.Option("--watch", help="Follow it; the exit code tells how it ended.")]


@app.command()
def submit(
    recipe: Annotated[str, typer.Argument(help="One of `genba jobs recipes`.")],
    param: Param = None,
    params: Params = None,
    clearance: Annotated[str | None, typer.Option(help="The job's label; your own by default.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Submissions with one key are one job, for 24 hours.")
    ] = None,
    watch: Watch = False,  # noqa: FBT002 - a flag
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Submit a job and print its id."""
    given = _params(params, param or [])
    with connected(url, key) as genba:
        job = genba.jobs.submit(recipe, given, clearance=clearance, idempotency_key=idempotency_key)
        typer.echo(job.id)
        if watch:
            _follow(genba, job.id)


@app.command("list")
def list_jobs(
    status: Annotated[Status | None, typer.Option(help="`dead` are the dead letters.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Only this recipe's.")] = None,
    queue: Annotated[str | None, typer.Option(help="cpu or gpu.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Only those that this schedule made.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    as_json: AsJson = False,  # noqa: FBT002 - a flag
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """List your jobs, newest first; all of them for who may administer jobs."""
    with connected(url, key) as genba:
        found = list(genba.jobs.list(status=status, recipe=recipe, queue=queue, schedule=schedule, limit=limit))
    if as_json:
        print_json([dataclasses.asdict(job) for job in found])
        return
    table = folding_table(Column("id", no_wrap=True), Column("recipe", overflow="fold"), "status", "created", "says")
    for job in found:
        table.add_row(job.id, job.recipe, _status(job), clock(job.created_at), escape(_says(job)))
    out.print(table)


@app.command()
def show(job_id: Annotated[str, typer.Argument(metavar="JOB")], url: Url = LOCAL, key: Key = "") -> None:
    """Print a job as JSON."""
    with connected(url, key) as genba:
        print_json(dataclasses.asdict(genba.jobs.get(job_id)))


@app.command()
def watch(job_id: Annotated[str, typer.Argument(metavar="JOB")], url: Url = LOCAL, key: Key = "") -> None:
    """Follow a job to its end, over lost connections. Exit 0 only if it succeeded; Ctrl-C leaves it running."""
    with connected(url, key) as genba:
        _follow(genba, job_id)


@app.command()
def cancel(
    job_ids: JobIds,
    watch: Watch = False,  # noqa: FBT002 - a flag
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Cancel jobs: one that waits at once, one that runs within seconds."""
    with connected(url, key) as genba:
        for job_id in job_ids:
            job = genba.jobs.cancel(job_id)
            if watch and not job.done:
                job = genba.jobs.wait(job_id)
            said = "is being stopped" if job.status == "running" else f"is {job.status}"
            out.print(f"{job_id} {said}", highlight=False)


@app.command()
def requeue(
    job_ids: JobIds,
    watch: Watch = False,  # noqa: FBT002 - a flag
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Give dead, failed or cancelled jobs a fresh set of attempts; they go on from their checkpoints."""
    with connected(url, key) as genba:
        for job_id in job_ids:
            genba.jobs.requeue(job_id)
            out.print(f"{job_id} is queued", highlight=False)
        if watch:
            for job_id in job_ids:
                _follow(genba, job_id)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print the JSON Schema of this one's parameters.")] = None,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """List what can be submitted."""
    with connected(url, key) as genba:
        found = {recipe.name: recipe for recipe in genba.recipes()}
    if name is not None:
        if name not in found:
            complain(f"There is no recipe {name!r}; there are {', '.join(found)}.")
            raise typer.Exit(BAD_INPUT)
        print_json(found[name].params_schema)
        return
    table = folding_table(Column("recipe", no_wrap=True), "queue", "parameters", "what it does")
    for recipe in found.values():
        required = set(recipe.params_schema.get("required", []))
        names = [each if each in required else f"[{each}]" for each in recipe.params_schema.get("properties", {})]
        table.add_row(recipe.name, recipe.queue, escape(" ".join(names)), escape(recipe.summary))
    out.print(table)


@schedules.command("list")
def list_schedules(as_json: AsJson = False, url: Url = LOCAL, key: Key = "") -> None:  # noqa: FBT002 - a flag
    """List your schedules; due times are shown in their own time zones."""
    with connected(url, key) as genba:
        found = list(genba.schedules.list())
    if as_json:
        print_json([dataclasses.asdict(schedule) for schedule in found])
        return
    table = folding_table(Column("id", no_wrap=True), "name", Column("recipe", overflow="fold"), "when", "next", "says")
    for each in found:
        says = (each.last_error or {}).get("detail", "")
        table.add_row(
            each.id,
            escape(each.name),
            each.recipe,
            f"{each.cron} {each.time_zone}",
            _due(each),
            escape(str(says)),
        )
    out.print(table)


@schedules.command("create")
def create_schedule(
    name: Annotated[str, typer.Argument(help="Your name for it.")],
    recipe: Annotated[str, typer.Argument(help="One of `genba jobs recipes`.")],
    cron: Annotated[str, typer.Option(help='Five fields, such as "30 2 * * MON-FRI".')],
    time_zone: Annotated[str, typer.Option(help="In which they are read, such as Asia/Tokyo.")] = "UTC",
    overlap: Annotated[Overlap, typer.Option(help="While its last job is not over.")] = "skip",
    param: Param = None,
    params: Params = None,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Run a recipe by the clock, with the authority that you have now; prints the schedule's id."""
    given = _params(params, param or [])
    with connected(url, key) as genba:
        made = genba.schedules.create(name, recipe, given, cron=cron, time_zone=time_zone, overlap=overlap)
        typer.echo(made.id)
        err.print(f"next: {_due(made)}", highlight=False)


@schedules.command("show")
def show_schedule(schedule_id: ScheduleId, url: Url = LOCAL, key: Key = "") -> None:
    """Print a schedule as JSON."""
    with connected(url, key) as genba:
        print_json(dataclasses.asdict(genba.schedules.get(schedule_id)))


@schedules.command("change")
def change_schedule(
    schedule_id: ScheduleId,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    cron: Annotated[str | None, typer.Option(help="Another rhythm.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="Another time zone.")] = None,
    overlap: Annotated[Overlap | None, typer.Option(help="While its last job is not over.")] = None,
    params: Params = None,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Change what is given."""
    changes: dict[str, Any] = {"name": name, "cron": cron, "time_zone": time_zone, "overlap": overlap}
    if params is not None:
        changes["params"] = _params(params, [])
    with connected(url, key) as genba:
        changed = genba.schedules.change(schedule_id, **changes)
        out.print(f"{schedule_id}: next {_due(changed)}", highlight=False)


@schedules.command("enable")
def enable_schedule(schedule_id: ScheduleId, url: Url = LOCAL, key: Key = "") -> None:
    """Switch a schedule on; what was missed while it was off stays missed."""
    with connected(url, key) as genba:
        out.print(f"{schedule_id}: next {_due(genba.schedules.change(schedule_id, enabled=True))}", highlight=False)


@schedules.command("disable")
def disable_schedule(schedule_id: ScheduleId, url: Url = LOCAL, key: Key = "") -> None:
    """Switch a schedule off."""
    with connected(url, key) as genba:
        genba.schedules.change(schedule_id, enabled=False)
        out.print(f"{schedule_id} is off", highlight=False)


@schedules.command("delete")
def delete_schedule(schedule_id: ScheduleId, url: Url = LOCAL, key: Key = "") -> None:
    """Delete a schedule; its jobs stay."""
    with connected(url, key) as genba:
        genba.schedules.delete(schedule_id)
        out.print(f"{schedule_id} is deleted", highlight=False)


def _follow(genba: Client, job_id: str) -> None:
    """Show a job until it is over. Raises Exit unless it succeeded."""
    try:
        with Display(err, job_id) as display:
            job = genba.jobs.wait(job_id, on_event=display.show, on_trouble=display.trouble)
    except KeyboardInterrupt:
        err.print(f"{job_id} goes on; stop it with: genba jobs cancel {job_id}", highlight=False)
        raise
    colour = _COLOURS[job.status]
    err.print(f"[{colour}]{job.status}[/] after {job.attempt} attempt{'s' * (job.attempt != 1)}", highlight=False)
    if job.result is not None:
        print_json(job.result)
    if not job.succeeded:
        if job.error is not None and job.status != "cancelled":
            complain(_says(job), job.error.get("errors") or [])
        raise typer.Exit(NEGATIVE)


def _params(document: str | None, pairs: list[str]) -> dict[str, Any]:
    """What --params and -p say together; the latter wins."""
    params: Any = {}
    try:
        if document is not None:
            text = Path(document[1:]).read_text("utf-8") if document.startswith("@") else document
            params = json.loads(text)
    except OSError as failure:
        complain(f"{failure.strerror}: {failure.filename}")
        raise typer.Exit(BAD_INPUT) from failure
    except ValueError as failure:
        complain(f"--params is no JSON: {failure}")
        raise typer.Exit(BAD_INPUT) from failure
    if not isinstance(params, dict):
        complain('--params must be an object, such as {"steps": 3}.')
        raise typer.Exit(BAD_INPUT)
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            complain(f"{pair!r} must look like name=value.")
            raise typer.Exit(BAD_INPUT)
        try:
            params[name] = json.loads(value)
        except ValueError:
            params[name] = value
    return params


def _status(job: Job) -> str:
    colour = _COLOURS.get(job.status, "default")
    stopping = " (stopping)" if job.cancel_requested and not job.done else ""
    how_far = f" {job.progress:.0%}" if 0 < job.progress < 1 else ""
    attempt = f", attempt {job.attempt}" if job.attempt > 1 else ""
    return f"[{colour}]{job.status}{stopping}{how_far}{attempt}[/]"


def _says(job: Job) -> str:
    """Why it failed, or is to be tried again; what it does while it runs, whatever an attempt before failed with."""
    failure = {} if job.status == "running" else job.error or {}
    return str(failure.get("detail") or job.message)


def _due(schedule: Schedule) -> str:
    """When it is due next, on the clock of its time zone."""
    if schedule.next_run_at is None:
        return "off"
    try:
        zone = ZoneInfo(schedule.time_zone)
    except (KeyError, ValueError):  # this machine's time zones are older than the server's
        return f"{schedule.next_run_at:%Y-%m-%d %H:%M %Z}"
    return f"{schedule.next_run_at.astimezone(zone):%Y-%m-%d %H:%M %Z}"
