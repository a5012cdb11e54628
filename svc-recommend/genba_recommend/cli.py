"""``genba recommend``: load a catalogue, ask for lists, train, refresh, try versions, export towers. Every failure is one line.

Exit codes: 0 done, 1 the work ran and its result is negative, 2 bad input, 3 the server said no, 130 interrupted.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import typer
from rich.markup import escape
from rich.progress import Progress

from genba_recommend.cli_experiments import experiments
from genba_recommend.cli_pictures import pictures
from genba_shared.commands import BAD_INPUT, LOCAL, Key, Url, checked, complain, connect, err, folding_table, out

app = typer.Typer(help="Recommend videos.", no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(experiments, name="experiments")
app.add_typer(pictures, name="pictures")

ROWS_AT_ONCE = 5000
TRIES = 60  # of a part while too much is being written
FILES = {"items": "PUT", "users": "PUT", "events": "POST"}
SCHEDULES = (
    ("recommend: weekly training", "recommend.two_tower", "0 4 * * 0"),
    ("recommend: daily refresh", "recommend.refresh", "0 5 * * *"),
)
Places = Annotated[int, typer.Option("-k", min=1, max=200, help="Places of the list.")]
Genres = Annotated[list[str] | None, typer.Option("--genre", help="Only these; repeat it for several.")]
Language = Annotated[Literal["en", "ja"], typer.Option(help="Language of the reasons.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the whole answer.")]


@app.command()
def load(
    folder: Annotated[Path, typer.Argument(help="Holds items.jsonl, users.jsonl or events.jsonl: a row a line.")],
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Send a catalogue, users and events. Sending again changes nothing; malformed rows are named and the others taken."""
    paths = {name: folder / f"{name}.jsonl" for name in FILES if (folder / f"{name}.jsonl").is_file()}
    if not paths:
        complain(f"{folder} holds none of {', '.join(f'{name}.jsonl' for name in FILES)}.")
        raise typer.Exit(BAD_INPUT)
    with connect(url, key) as client, Progress(console=err, transient=True) as progress:
        for name, path in paths.items():
            task = progress.add_task(f"Sending {path.name}", total=path.stat().st_size)
            taken, refused, strays = 0, 0, 0
            for numbers, rows, size in _parts(path):
                answer = _sent(client, name, rows)
                taken += answer["accepted"] + answer.get("duplicates", 0)
                refused += answer.get("refused", len(answer["rejected"]))
                strays += answer.get("unknown_item_events", 0)
                for each in answer["rejected"]:
                    first = each["errors"][0]
                    said = f"{path.name}:{numbers[each['index']]}: {first['field']}: {first['message']}"
                    err.print(said, highlight=False, markup=False, soft_wrap=True)
                progress.update(task, advance=size)
            waits = (
                f", {strays} of items that are not in the catalogue yet: they count when those come" if strays else ""
            )
            err.print(f"{path.name}: {taken} rows taken, {refused} refused{waits}", highlight=False, soft_wrap=True)


def _sent(client: httpx.Client, name: str, rows: list[Any]) -> dict[str, Any]:
    """Rows, sent again when too much is being written. One answer, whether some rows or all of them are malformed."""
    for _ in range(TRIES):
        answer = client.request(FILES[name], f"/v1/recommend/{name}", json={name: rows})
        if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
            break
        time.sleep(float(answer.headers.get("retry-after", 1)))
    if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
        errors = [(each["field"].split(".", 2), each["message"]) for each in answer.json().get("errors", [])]
        of_rows: dict[int, list[dict[str, str]]] = {}
        for where, message in errors:
            if len(where) == 3 and where[0] == name and where[1].isdecimal():
                of_rows.setdefault(int(where[1]), []).append({"field": where[2], "message": message})
        if of_rows:
            rejected = [{"index": index, "errors": found} for index, found in sorted(of_rows.items())]
            return {"accepted": 0, "rejected": rejected, "refused": len(rows)}
    found: dict[str, Any] = checked(answer).json()
    return found


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is larger than a number may be")
    return value


def _parts(path: Path) -> Iterator[tuple[list[int], list[Any], int]]:
    """(numbers of the lines, rows, bytes) of a file, part by part; lines of blanks are none."""
    numbers: list[int] = []
    rows: list[Any] = []
    size = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            size += len(line)
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"), parse_float=_number))
            except ValueError as failure:
                complain(f"{path.name}:{number} is not readable as JSON: {failure}")
                raise typer.Exit(BAD_INPUT) from failure
            numbers.append(number)
            if len(rows) == ROWS_AT_ONCE:
                yield numbers, rows, size
                numbers, rows, size = [], [], 0
    if rows:
        yield numbers, rows, size


@app.command("demo-data")
def demo_data(
    folder: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    items: Annotated[int, typer.Option(min=1, max=2_000_000)] = 2000,
    users: Annotated[int, typer.Option(min=1, max=2_000_000)] = 1000,
    days: Annotated[int, typer.Option(min=1, max=3650)] = 60,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same data.")] = 0,
) -> None:
    """Make a catalogue, users and events with structure, ready for ``load``."""
    from genba_recommend.generator import Size, generate, write

    with Progress(console=err, transient=True) as progress:
        task = progress.add_task("Making", total=1.0)
        world = generate(
            Size(items, users, days),
            seed=seed,
            progress=lambda share, what: progress.update(task, completed=share, description=what),
        )
        made = write(world, folder)
    err.print(f"{folder}: {made.items} items, {made.users} users, {made.events} events", highlight=False)


@app.command("list")
def list_for_user(
    user: Annotated[str, typer.Argument(help="Id of the user.")],
    k: Places = 10,
    genre: Genres = None,
    diversity: Annotated[float | None, typer.Option(min=0, max=1, help="0: by score alone.")] = None,
    discover: Annotated[
        Literal["never", "sometimes", "always"],
        typer.Option(help="Whether the last place goes to what is seldom shown."),
    ] = "sometimes",
    aim: Annotated[str, typer.Option(help="fit, or what a head foresees: watched, liked, returns.")] = "fit",
    lang: Language = "en",
    as_json: AsJson = False,  # noqa: FBT002 - a flag
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """The list of a user, with the reasons."""
    asked: dict[str, Any] = {"k": k, "genre": genre or [], "aim": aim, "discover": discover}
    if diversity is not None:
        asked["diversity"] = diversity
    _ask(f"/v1/recommend/users/{user}/items", asked, lang=lang, as_json=as_json, url=url, key=key)


@app.command()
def similar(
    item: Annotated[str, typer.Argument(help="Id of the item.")],
    k: Places = 10,
    lang: Language = "en",
    as_json: AsJson = False,  # noqa: FBT002 - a flag
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Items like one item."""
    _ask(f"/v1/recommend/items/{item}/similar", {"k": k}, lang=lang, as_json=as_json, url=url, key=key)


@app.command()
def popular(
    k: Places = 10,
    genre: Genres = None,
    trending: Annotated[bool, typer.Option("--trending", help="Over days instead of months.")] = False,  # noqa: FBT002
    lang: Language = "en",
    as_json: AsJson = False,  # noqa: FBT002 - a flag
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """What is popular with everybody."""
    path = "/v1/recommend/trending" if trending else "/v1/recommend/popular"
    _ask(path, {"k": k, "genre": genre or []}, lang=lang, as_json=as_json, url=url, key=key)


def _ask(path: str, asked: dict[str, Any], *, lang: str, as_json: bool, url: str, key: str) -> None:
    with connect(url, key) as client:
        made = checked(client.get(path, params=asked)).json()
    if as_json:
        typer.echo(json.dumps(made, indent=2, ensure_ascii=False))
        return
    version = (
        f"version {made['model_version']} of {made['model']}, index {made['index']}" if made["model"] else "no model"
    )
    table = folding_table("item", "title", "score", "source", "why", title=f"{made['source']} · {version}")
    for each in made["items"]:
        why = "; ".join(reason[lang] for reason in each["reasons"])
        table.add_row(each["item_id"], escape(each["title"]), f"{each['score']:.3f}", each["source"], escape(why))
    out.print(table)
    for each in made["passed_over"]:
        err.print(f"no {each['source']} list: {each['why']}", highlight=False)


@app.command()
def status(url: Url = LOCAL, key: Key = "") -> None:
    """What serves: the version, the index, the size of the catalogue."""
    with connect(url, key) as client:
        found = checked(client.get("/v1/recommend/status")).json()
    typer.echo(json.dumps(found, indent=2))


@app.command()
def train(
    epochs: Annotated[int | None, typer.Option(min=1, max=200, help="At most.")] = None,
    loss: Annotated[Literal["sampled_softmax", "hinge"], typer.Option(help="What is learnt by.")] = "sampled_softmax",
    promote: Annotated[Literal["when_gates_pass", "never"], typer.Option()] = "when_gates_pass",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be learnt from.")] = False,  # noqa: FBT002
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Submit a training job; prints its id. Watch it with ``genba jobs watch``."""
    params: dict[str, Any] = {"loss": loss, "promote": promote, "dry_run": dry_run}
    if epochs is not None:
        params["max_epochs"] = epochs
    _submit("recommend.two_tower", params, url=url, key=key)


@app.command()
def refresh(
    version: Annotated[int | None, typer.Option(min=1, help="The one that serves when absent.")] = None,
    what: Annotated[Literal["all", "items", "users"], typer.Option()] = "all",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what is missing or stale.")] = False,  # noqa: FBT002
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Submit a refresh of the vectors; prints the job's id."""
    _submit("recommend.refresh", {"version": version, "what": what, "dry_run": dry_run}, url=url, key=key)


@app.command()
def evaluate(
    version: Annotated[int | None, typer.Option(min=1, help="The one that serves when absent.")] = None,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Submit an evaluation of a version, with what each feature is worth to it; prints the job's id."""
    _submit("recommend.evaluate", {"version": version}, url=url, key=key)


def _submit(recipe: str, params: dict[str, Any], *, url: str, key: str) -> None:
    headers = {"idempotency-key": str(uuid.uuid4())}
    with connect(url, key) as client:
        body = {"recipe": recipe, "params": params}
        typer.echo(checked(client.post("/v1/jobs", json=body, headers=headers)).json()["id"])


@app.command()
def schedules(
    time_zone: Annotated[str, typer.Option(help="Whose clock.")] = "Asia/Tokyo",
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Train every Sunday at 04:00 and refresh every day at 05:00. Schedules that are there already are left as they are."""
    with connect(url, key) as client:
        for name, recipe, cron in SCHEDULES:
            body = {"name": name, "recipe": recipe, "cron": cron, "time_zone": time_zone}
            answer = client.post("/v1/schedules", json=body)
            if answer.status_code == httpx.codes.CONFLICT:
                err.print(f"{name}: there already", highlight=False)
            else:
                made = checked(answer).json()
                err.print(f"{name}: next at {made['next_run_at']}", highlight=False)


@app.command("export")
def export_towers(
    bundle: Annotated[Path, typer.Argument(help="Folder of a version's bundle.", exists=True, file_okay=False)],
    folder: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    form: Annotated[Literal["onnx", "tfjs", "savedmodel"], typer.Option("--format")] = "onnx",
    tables: Annotated[
        Literal["float32", "float16", "int8"], typer.Option(help="How embeddings are stored.")
    ] = "float16",
) -> None:
    """Write the towers of a bundle for use elsewhere, a browser for one. Needs no service."""
    from genba_recommend.export import export
    from genba_shared.problems import Problem

    try:
        made = export(bundle, form, folder, tables=tables)
    except (Problem, ImportError) as failure:
        complain(str(failure))
        raise typer.Exit(BAD_INPUT) from failure
    err.print(f"{folder}: {len(made.files)} files, {made.total_bytes / 1e6:.1f} MB", highlight=False)
