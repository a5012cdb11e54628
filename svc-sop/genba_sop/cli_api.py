"""The ``genba sop`` commands that speak to a running Genba through its public API, as any client would."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import typer
import yaml
from rich.console import Console
from rich.table import Column, Table

BAD_INPUT, SERVER_SAID_NO = 2, 3
_TIMEOUT_S = 600.0

out = Console()
err = Console(stderr=True)
procedures = typer.Typer(help="Procedures of a running Genba.", no_args_is_help=True)
videos = typer.Typer(help="Videos of a running Genba.", no_args_is_help=True)

Url = Annotated[str, typer.Option("--url", envvar="GENBA_URL", help="Where Genba answers.")]
Key = Annotated[str, typer.Option("--key", envvar="GENBA_API_KEY", help="API key.", show_default=False)]
LOCAL = "http://127.0.0.1:8080"


@contextlib.contextmanager
def _client(url: str, key: str) -> Iterator[httpx.Client]:
    """A client whose failures are said in one line."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S) as client:
            yield client
    except httpx.HTTPError as failure:
        err.print(f"[bold red]genba:[/] {url} does not answer: {failure}", highlight=False, soft_wrap=True)
        raise typer.Exit(SERVER_SAID_NO) from failure
    except OSError as failure:
        err.print(f"[bold red]genba:[/] {failure.strerror}: {failure.filename}", highlight=False, soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from failure


def _checked(answer: httpx.Response) -> httpx.Response:
    if not answer.is_error:
        return answer
    try:
        problem: dict[str, Any] = answer.json()
    except ValueError:
        problem = {"detail": answer.text[:500]}
    said = problem.get("detail", answer.reason_phrase)
    err.print(f"[bold red]genba:[/] {answer.status_code}: {said}", highlight=False, soft_wrap=True)
    for each in problem.get("errors", []):
        err.print(f"  {each.get('field')}: {each.get('message')}", highlight=False, soft_wrap=True)
    raise typer.Exit(SERVER_SAID_NO)


def _print(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


@procedures.command("list")
def list_procedures(url: Url = LOCAL, key: Key = "") -> None:
    """List the procedures that you may see."""
    table = Table(Column("id", no_wrap=True, overflow="fold"), "version", "title", "steps", "golds")
    with _client(url, key) as client:
        for row in _all(client, "/v1/sop/procedures"):
            title = row["title"]["en"] or row["title"]["ja"]
            table.add_row(row["id"], str(row["version"]), title, str(row["step_count"]), str(row["gold_count"]))
    out.print(table)


@procedures.command("show")
def show_procedure(procedure_id: str, url: Url = LOCAL, key: Key = "") -> None:
    """Print a procedure as JSON."""
    with _client(url, key) as client:
        _print(_checked(client.get(f"/v1/sop/procedures/{procedure_id}")).json())


@procedures.command("create")
def create_procedure(
    steps: Annotated[Path, typer.Argument(help="steps.yaml; the golds that it names are uploaded and attached.")],
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Register a procedure from its file, with its golds."""
    with _client(url, key) as client:
        try:
            document = yaml.safe_load(steps.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as failure:
            err.print(f"[bold red]genba:[/] {steps.name} is not readable as YAML: {failure}", highlight=False)
            raise typer.Exit(BAD_INPUT) from failure
        if not isinstance(document, dict):
            err.print(f"[bold red]genba:[/] {steps.name} must be a mapping with title and steps.", highlight=False)
            raise typer.Exit(BAD_INPUT)
        golds = document.pop("golds", None) or []
        headers = {"idempotency-key": str(uuid.uuid4())}
        made = _checked(client.post("/v1/sop/procedures", json=document, headers=headers)).json()
        for gold in golds:
            video = _upload(client, steps.parent / str(gold["video"]))
            body = {"video_id": video["id"], "steps": gold.get("steps")}
            _checked(client.post(f"/v1/sop/procedures/{made['id']}/golds", json=body))
        typer.echo(made["id"])


@videos.command("list")
def list_videos(url: Url = LOCAL, key: Key = "") -> None:
    """List the videos that you may see."""
    table = Table(Column("id", no_wrap=True, overflow="fold"), "title", "seconds", "encoder", "clearance")
    with _client(url, key) as client:
        for row in _all(client, "/v1/sop/videos"):
            table.add_row(row["id"], row["title"], f"{row['info']['duration_s']:.1f}", row["encoder"], row["clearance"])
    out.print(table)


@videos.command("upload")
def upload_video(path: Path, url: Url = LOCAL, key: Key = "") -> None:
    """Upload a video; prints its id, or the job's when it is a large one."""
    with _client(url, key) as client:
        typer.echo(_upload(client, path)["id"])


@videos.command("delete")
def delete_video(video_id: str, url: Url = LOCAL, key: Key = "") -> None:
    """Erase a video with all that was made of it."""
    with _client(url, key) as client:
        _print(_checked(client.delete(f"/v1/sop/videos/{video_id}")).json())


def _upload(client: httpx.Client, path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        answer: dict[str, Any] = _checked(client.post("/v1/sop/videos", files={"file": (path.name, file)})).json()
    return answer


def _all(client: httpx.Client, path: str) -> Iterator[dict[str, Any]]:
    cursor: str | None = None
    while True:
        page = _checked(client.get(path, params={"cursor": cursor} if cursor else {})).json()
        yield from page["items"]
        if not (cursor := page["next_cursor"]):
            return


def evaluate(
    procedure: Annotated[str, typer.Option(help="Id of the procedure.")],
    video: Annotated[str, typer.Option(help="Id of the video, or a file to upload.")],
    operator: Annotated[str | None, typer.Option(help="Who was filmed; a code is better than a name.")] = None,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Score a video against a procedure of a running Genba. Exit 0 only if it passes."""
    from genba_sop.cli import NOT_PASSED, show
    from genba_sop.schemas import EvaluationOut

    with _client(url, key) as client:
        video_id = _upload(client, Path(video))["id"] if Path(video).is_file() else video
        body = {"procedure_id": procedure, "video_id": video_id, "operator": operator}
        headers = {"idempotency-key": str(uuid.uuid4())}
        found = EvaluationOut.model_validate(
            _checked(client.post("/v1/sop/evaluations", json=body, headers=headers)).json()
        )
        show(found)
        typer.echo(found.id)
    raise typer.Exit(0 if found.verdict == "pass" else NOT_PASSED)


def report(
    evaluation: Annotated[str, typer.Argument(help="Id of the evaluation.")],
    path: Annotated[Path, typer.Option("--out", help="File to write; its ending chooses html, json, csv or pdf.")],
    lang: Annotated[Literal["en", "ja"], typer.Option(help="Language shown first.")] = "en",
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Fetch the report of an evaluation."""
    form = path.suffix.removeprefix(".")
    if form not in {"html", "json", "csv", "pdf"}:
        err.print(f"[bold red]genba:[/] {path.name} must end in .html, .json, .csv or .pdf.", highlight=False)
        raise typer.Exit(BAD_INPUT)
    with _client(url, key) as client:
        answer = _checked(client.get(f"/v1/sop/evaluations/{evaluation}/report.{form}", params={"lang": lang}))
        path.write_bytes(answer.content)
