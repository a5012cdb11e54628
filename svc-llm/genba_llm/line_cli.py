"""``genba llm train run.yaml``: the whole line from one file, job after job through the queue, with what each says as it runs.

    collect, synthesise, multimodal → validate → so8t → calibrate → evaluate

The file has a part for each step that is wanted; what a step needs of those before it (shards, held-out shares) is filled
in. The same file sent again within a day finds its jobs again, so a command that was interrupted takes up where it was; a
step that failed is tried anew.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
import uuid
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer
import yaml
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from genba_llm.finetune_config import config_of
from genba_shared import yaml_files
from genba_shared.commands import BAD_INPUT, LOCAL, NEGATIVE, Key, Url, checked, complain, connect, folding_table, out
from genba_shared.server_sent import events

Json = dict[str, Any]
STEPS: Final = ("collect", "synthesise", "multimodal", "validate", "so8t", "calibrate", "evaluate")
_IN_VAIN: Final = frozenset({"failed", "dead", "cancelled"})
_OVER: Final = _IN_VAIN | {"succeeded"}
_AS_WISHED: Final = frozenset({"promoted", "not_asked"})
_RECONNECT_S: Final = 0.5
_SILENCE_S: Final = 60.0


class BadRunFile(ValueError):
    """The file does not describe a line."""


def read_run(path: Path) -> dict[str, Json]:
    """The steps of a run file in the line's order, each with its parameters. Raises: BadRunFile; OSError."""
    try:
        document = yaml_files.load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as failure:
        raise BadRunFile(f"{path.name} cannot be read: {yaml_files.fault(failure)}") from failure
    if not isinstance(document, dict) or not all(isinstance(each or {}, dict) for each in document.values()):
        raise BadRunFile(f"{path.name} must hold a part for each step: {', '.join(STEPS)}.")
    if unknown := [name for name in document if name not in STEPS]:
        raise BadRunFile(f"There is no step {unknown[0]!r}; there are {', '.join(STEPS)}.")
    steps: dict[str, Json] = {name: dict(document[name] or {}) for name in STEPS if name in document}
    if "so8t" not in steps:
        raise BadRunFile(f"{path.name} has no part so8t: nothing would be trained.")
    if {"synthesise", "multimodal"} & set(steps):
        steps = {name: steps.get(name, {}) for name in STEPS if name in steps or name == "validate"}
    try:
        config_of(steps["so8t"].get("config", {"preset": "tiny"}))
    except ValueError as failure:
        raise BadRunFile(f"so8t.config: {failure}") from failure
    return steps


def filled_in(name: str, params: Json, steps: dict[str, Json], results: dict[str, Json]) -> Json:
    """A step's parameters with what the steps before it made; what the file says itself stays."""

    def shards(*of: str) -> list[str]:
        return [key for each in of if each in results for key in results[each]["value"]["shards"]]

    held_out = config_of(steps["so8t"].get("config", {"preset": "tiny"})).validation_share
    checked_rows = shards("validate")
    known: dict[str, Json] = {
        "validate": {"shards": shards("synthesise", "multimodal")},
        "so8t": {"shards": checked_rows, "texts": shards("collect")},
        "calibrate": {"shards": checked_rows, "held_out_share": held_out},
        "evaluate": {"shards": checked_rows, "held_out_share": held_out},
    }
    return {**known.get(name, {}), **params}


def train(
    path: Annotated[Path, typer.Argument(metavar="RUN.YAML", dir_okay=False, exists=True)],
    fresh: Annotated[bool, typer.Option("--fresh", help="New jobs, though the same file ran today.")] = False,  # noqa: FBT002
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Run the training line of a file: data, fine-tuning, calibration, evaluation. Exit 1 if a job fails or nothing is promoted."""
    try:
        steps = read_run(path)
    except BadRunFile as failure:
        complain(str(failure))
        raise typer.Exit(BAD_INPUT) from failure
    seal = uuid.uuid4().hex if fresh else hashlib.sha256(json.dumps(steps, sort_keys=True).encode()).hexdigest()
    results: dict[str, Json] = {}
    serves = True
    with connect(url, key) as client:
        board = _Board(list(steps))
        with Live(board.progress, console=out, refresh_per_second=4):
            for name, params in steps.items():
                body = {"recipe": f"llm.{name}", "params": filled_in(name, params, steps, results)}
                job = _follow(client, _submit(client, body, f"{seal[:40]}-{name}"), board, name)
                if job["status"] != "succeeded":
                    break
                results[name] = job["result"]
                if name == "so8t" and not (serves := _serves_as_wished(client, job["result"].get("registered"))):
                    break  # what comes next would calibrate and measure another
    if not out.is_terminal:
        out.line()  # rich leaves the last line of its board open there
    if job["status"] != "succeeded":
        complain(f"llm.{name} {job['status']}: {(job['error'] or {}).get('detail', job['message'])} ({job['id']})")
        raise typer.Exit(NEGATIVE)
    _show(results)
    if not serves:
        made = results["so8t"]["registered"]
        complain(
            f"Version {made['number']} of {made['model']} was not promoted: {' '.join(made['missed'])} Whoever decides that"
            f" it shall serve all the same: genba models promote {made['model']} {made['number']} --override-gates"
            " --reason …; the same command then goes on."
        )
        raise typer.Exit(NEGATIVE)


def _serves_as_wished(client: httpx.Client, registered: Json | None) -> bool:
    """Whether the version that was trained serves, or need not; somebody may have promoted it in spite of its gates."""
    if registered is None or registered["outcome"] in _AS_WISHED:
        return True
    pointed = checked(client.get(f"/v1/models/{registered['model']}")).json()
    return bool(pointed["champion"]["number"] == registered["number"])


def _submit(client: httpx.Client, body: Json, key: str) -> Json:
    """The job of that key, found again or new; one that ended in vain gives way to another: what it failed of may be mended."""
    for attempt in itertools.count(1):
        headers = {"idempotency-key": key if attempt == 1 else f"{key}-{attempt}"}
        job: Json = checked(client.post("/v1/jobs", json=body, headers=headers)).json()
        if job["status"] not in _IN_VAIN:
            break
    return job


class _Board:
    """A line for each step: how far, what it says, its newest loss."""

    def __init__(self, names: list[str]) -> None:
        self.progress = Progress(
            TextColumn("{task.fields[step]:<10}"),
            BarColumn(24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[says]}"),
            console=out,
        )
        self._rows = {name: self.progress.add_task(name, total=1.0, start=False, step=name, says="") for name in names}
        self._loss: dict[str, str] = {}

    def begin(self, name: str) -> None:
        self.progress.start_task(self._rows[name])

    def hear(self, name: str, kind: str, data: Json) -> None:
        """An event of the job's."""
        row = self._rows[name]
        if kind == "progress":
            self.progress.update(row, completed=data["fraction"], says=self._with_loss(name, data["message"]))
        elif kind == "metrics" and (loss := data["values"].get("loss")) is not None:
            self._loss[name] = f"loss {loss:.4f}"
        elif kind == "line":
            self.progress.console.print(f"[dim]{name}[/] {escape(str(data['message']))}", highlight=False)

    def _with_loss(self, name: str, message: str) -> str:
        return escape(" · ".join(part for part in (message, self._loss.get(name, "")) if part))

    def end(self, name: str, job: Json) -> None:
        done = job["status"] == "succeeded"
        row = self._rows[name]
        self.progress.update(row, completed=1.0 if done else job["progress"], says=_outcome(job))
        self.progress.stop_task(row)


def _outcome(job: Json) -> str:
    if job["status"] != "succeeded":
        return f"[red]{job['status']}[/]"
    registered = (job["result"] or {}).get("registered")
    if registered is None:
        return "[green]done[/]"
    return escape(f"{registered['model']}@{registered['number']} {registered['outcome']}")


def _follow(client: httpx.Client, job: Json, board: _Board, name: str) -> Json:
    """Until the job is over, however often the connection breaks. Exits when nothing answers for a minute."""
    board.begin(name)
    path, last, ends_s = f"/v1/jobs/{job['id']}", 0, time.monotonic() + _SILENCE_S
    while job["status"] not in _OVER:
        try:
            with client.stream("GET", f"{path}/events", headers={"last-event-id": str(last)}) as answer:
                for event in events(answer.iter_lines()):
                    if "id" in event:
                        last = int(event["id"])
                        board.hear(name, event.get("event", ""), json.loads(event["data"]))
            job = checked(client.get(path)).json()
            ends_s = time.monotonic() + _SILENCE_S
        except httpx.TransportError as failure:
            if time.monotonic() > ends_s:
                complain(f"{client.base_url} does not answer; {job['id']} may go on. The same command finds it again.")
                raise typer.Exit(NEGATIVE) from failure
        time.sleep(_RECONNECT_S)
    board.end(name, job)
    return job


def _show(results: dict[str, Json]) -> None:
    """What was measured, and where the bundle is from."""
    table = folding_table("step", "figure", "value")
    for name in ("so8t", "calibrate", "evaluate"):
        for figure, value in results.get(name, {}).get("metrics", {}).items():
            table.add_row(name, figure, f"{value:.4g}")
    out.print(table)
    chain = folding_table("lineage", "SHA-256", "files")
    for link in results["so8t"]["value"].get("lineage", []):
        chain.add_row(link["step"], link["sha256"][:16], str(len(link["files"])) if link["files"] else "")
    if chain.row_count:
        out.print(chain)
