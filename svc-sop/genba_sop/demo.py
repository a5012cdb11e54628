"""The story that ``genba demo`` tells of svc-sop: real video files go in through the gateway, a score with timed deviations comes out.

Speaks HTTP as a web application would. What was planted is read from the generator's truth only after the answer is there.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

OVERLAP_S = 4.0  # a deviation counts as found when it lies within this many seconds of the planted one
Json = dict[str, Any]


@dataclass(frozen=True)
class Planted:
    """What the generator did to the trainee's run."""

    kind: str
    step_id: str | None
    start_s: float
    end_s: float

    def is_found_in(self, deviations: Sequence[Mapping[str, Any]]) -> bool:
        """Same kind, same step, and the times meet."""
        return any(
            found["kind"] == self.kind
            and (self.step_id is None or found["step_id"] == self.step_id)
            and found["start_s"] <= self.end_s + OVERLAP_S
            and found["end_s"] >= self.start_s - OVERLAP_S
            for found in deviations
        )


def run(client: httpx.Client, folder: Path, console: Console) -> bool:
    """Film, register, upload, score, report. True when every planted deviation was found and the run failed for it."""
    from genba_sop.data import generate

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Filming the oil change (3 golds, 1 trainee)", total=1.0)
        made = generate(
            "oil_change",
            folder,
            progress=lambda share, name: progress.update(task, completed=share, description=f"Filming {name}"),
        )
    console.print(
        f"Videos: {', '.join(gold.path.name for gold in made.golds)} and {made.trainee.path.name} in {folder}",
        highlight=False,
    )
    procedure_id = _register(client, made.steps_path, console)
    started = time.perf_counter()
    trainee = _upload(client, made.trainee.path, "Trainee")
    uploaded = time.perf_counter()
    evaluation = _evaluate(client, procedure_id, trainee["id"])
    evaluated = time.perf_counter()
    report = folder / "report.html"
    report.write_bytes(_get(client, f"/v1/sop/evaluations/{evaluation['id']}/report").content)
    reported = time.perf_counter()
    _print_result(console, evaluation)
    measured = {
        "upload and ingest": uploaded - started,
        "evaluate": evaluated - uploaded,
        "report": reported - evaluated,
    }
    _print_timings(console, measured, trainee["timings_ms"], evaluation["timings_ms"])
    found = _compare(console, made.truth_path, evaluation)
    console.print(f"Report: open [bold]{report.resolve().as_uri()}[/] in a browser", highlight=False, soft_wrap=True)
    console.print(
        "Your own files: genba sop score --gold gold.mp4 --trainee trainee.mp4 --steps steps.yaml",
        highlight=False,
        soft_wrap=True,
    )
    return found


def _register(client: httpx.Client, steps_path: Path, console: Console) -> str:
    document = yaml.safe_load(steps_path.read_text(encoding="utf-8"))
    golds = document.pop("golds")
    procedure = _post(client, "/v1/sop/procedures", document)
    for gold in golds:
        video = _upload(client, steps_path.parent / gold["video"], gold["video"])
        _post(client, f"/v1/sop/procedures/{procedure['id']}/golds", {"video_id": video["id"], "steps": gold["steps"]})
    console.print(f"Procedure {procedure['id']}: {len(document['steps'])} steps, {len(golds)} golds", highlight=False)
    return str(procedure["id"])


def _upload(client: httpx.Client, path: Path, title: str) -> Json:
    with path.open("rb") as video:
        answer = client.post("/v1/sop/videos", files={"file": (path.name, video, "video/mp4")}, data={"title": title})
    return _checked(answer)


def _evaluate(client: httpx.Client, procedure_id: str, video_id: str) -> Json:
    body = {"procedure_id": procedure_id, "video_id": video_id, "operator": "trainee-1"}
    return _post(client, "/v1/sop/evaluations", body, headers={"idempotency-key": str(uuid.uuid4())})


def _post(client: httpx.Client, path: str, body: Json, *, headers: Mapping[str, str] | None = None) -> Json:
    return _checked(client.post(path, json=body, headers=headers))


def _get(client: httpx.Client, path: str) -> httpx.Response:
    answer = client.get(path)
    _checked(answer) if answer.is_error else None
    return answer


def _checked(answer: httpx.Response) -> Json:
    if answer.is_error:
        message = f"{answer.request.method} {answer.request.url.path} was answered {answer.status_code}: {answer.text}"
        raise SystemExit(message)
    document: Json = answer.json()
    return document


def _print_result(console: Console, evaluation: Json) -> None:
    low, high = evaluation["interval"]["low"], evaluation["interval"]["high"]
    state = "calibrated" if evaluation["interval"]["calibrated"] else "uncalibrated: too few reviews yet"
    console.print(
        f"\nScore [bold]{evaluation['score']:.1f}[/] of 100 · verdict [bold]{evaluation['verdict']}[/]"
        f" · interval {low:.0f}–{high:.0f} ({state}) · encoder {evaluation['encoder']}",
        highlight=False,
    )
    table = Table("deviation", "step", "from", "to", "severity", "p", title="Deviations")
    for deviation in evaluation["deviations"]:
        name = (deviation["step_name"] or {"en": "–"})["en"]
        p_value = _p_text(deviation["p_value"])
        table.add_row(
            deviation["kind"],
            name,
            f"{deviation['start_s']:.1f} s",
            f"{deviation['end_s']:.1f} s",
            deviation["severity"],
            p_value,
        )
    console.print(table)


def _p_text(p_value: float | None) -> str:
    if p_value is None:
        return "–"
    return "< .001" if p_value < 0.001 else f"{p_value:.3f}"


def _print_timings(
    console: Console, measured: Mapping[str, float], ingest_ms: Mapping[str, float], evaluation_ms: Mapping[str, float]
) -> None:
    table = Table("stage", "time", title="Measured, this run")
    for name, seconds in measured.items():
        table.add_row(f"[bold]{name}[/] (through the gateway)", f"{seconds * 1000:.0f} ms")
    for part, stages in (("ingest", ingest_ms), ("evaluate", evaluation_ms)):
        for name, value in stages.items():
            table.add_row(f"  {part}: {name.removesuffix('_ms')}", f"{value:.0f} ms")
    console.print(table)


def _compare(console: Console, truth_path: Path, evaluation: Json) -> bool:
    truth = json.loads(truth_path.read_text(encoding="utf-8"))["trainee"]["truth"]
    planted = [Planted(row["kind"], row["step_id"], row["start_s"], row["end_s"]) for row in truth]
    missed = [each for each in planted if not each.is_found_in(evaluation["deviations"])]
    for each in planted:
        console.print(
            f"  {'[red]missed[/]' if each in missed else '[green]found [/]'} {each.kind} {each.step_id or ''} at {each.start_s:.1f} s",
            highlight=False,
        )
    for found in evaluation["deviations"]:
        if not any(each.is_found_in([found]) for each in planted):
            console.print(
                f"  [yellow]not planted[/] {found['kind']} {found['step_id'] or ''} at {found['start_s']:.1f} s",
                highlight=False,
            )
    return bool(planted) and not missed and evaluation["verdict"] == "fail"
