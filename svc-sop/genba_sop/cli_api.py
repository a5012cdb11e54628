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
from rich.markup import escape
from rich.table import Column

from genba_shared.commands import BAD_INPUT, LOCAL, Key, Url, checked, complain, connect, folding_table, out
from genba_shared.problems import Problem

procedures = typer.Typer(help="Procedures of a running Genba.", no_args_is_help=True)
videos = typer.Typer(help="Videos of a running Genba.", no_args_is_help=True)

transcript = typer.Typer(help="What is said in a video.", no_args_is_help=True)
videos.add_typer(transcript, name="transcript")


def _print(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


@procedures.command("list")
def list_procedures(url: Url = LOCAL, key: Key = "") -> None:
    """List the procedures that you may see."""
    table = folding_table(Column("id", no_wrap=True, overflow="fold"), "version", "title", "steps", "golds")
    with connect(url, key) as client:
        for row in _all(client, "/v1/sop/procedures"):
            title = row["title"]["en"] or row["title"]["ja"]
            table.add_row(row["id"], str(row["version"]), escape(title), str(row["step_count"]), str(row["gold_count"]))
    out.print(table)


@procedures.command("show")
def show_procedure(procedure_id: str, url: Url = LOCAL, key: Key = "") -> None:
    """Print a procedure as JSON."""
    with connect(url, key) as client:
        _print(checked(client.get(f"/v1/sop/procedures/{procedure_id}")).json())


@procedures.command("create")
def create_procedure(
    steps: Annotated[Path, typer.Argument(help="steps.yaml; the golds that it names are uploaded and attached.")],
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Register a procedure from its file, with its golds."""
    from genba_sop.authoring import parse, read_steps_file

    with connect(url, key) as client:
        with _bad_input():  # said before a film is sent for nothing
            authored = read_steps_file(steps)
            parse(authored, procedure_id=steps.stem)
        files = [_gold_file(steps, gold.video) for gold in authored.golds]
        document = authored.model_dump(mode="json", exclude_unset=True)
        for gold, path in zip(document.get("golds", []), files, strict=True):
            gold["video"] = _video(client, path)
        headers = {"idempotency-key": str(uuid.uuid4())}
        made = checked(client.post("/v1/sop/procedures", json=document, headers=headers)).json()
        typer.echo(made["id"])


@procedures.command("correct-gold")
def correct_gold(
    procedure_id: str,
    gold_id: Annotated[str, typer.Argument(help="As `genba sop procedures show` lists it.")],
    spans: Annotated[Path, typer.Argument(help="YAML or JSON: a list of {id, start_s, end_s}.")],
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Say where the steps of a gold run really lie."""
    from genba_sop.authoring import read_spans_file

    with connect(url, key) as client:
        with _bad_input():
            steps = [span.model_dump(mode="json") for span in read_spans_file(spans)]
        path = f"/v1/sop/procedures/{procedure_id}/golds/{gold_id}"
        _print(checked(client.put(path, json={"steps": steps})).json())


@videos.command("list")
def list_videos(url: Url = LOCAL, key: Key = "") -> None:
    """List the videos that you may see."""
    table = folding_table(Column("id", no_wrap=True, overflow="fold"), "title", "seconds", "encoder", "clearance")
    with connect(url, key) as client:
        for row in _all(client, "/v1/sop/videos"):
            table.add_row(
                row["id"], escape(row["title"]), f"{row['info']['duration_s']:.1f}", row["encoder"], row["clearance"]
            )
    out.print(table)


@videos.command("upload")
def upload_video(
    path: Path,
    spoken: Annotated[
        Path | None,
        typer.Option("--transcript", help="WebVTT or SubRip: what is said in it.", exists=True, dir_okay=False),
    ] = None,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Upload a video; prints its id, or the job's when it is a large one."""
    with connect(url, key) as client:
        typer.echo(_upload(client, path, spoken=spoken)["id"])


@videos.command("download")
def download_video(
    video_id: str,
    path: Annotated[Path, typer.Option("--out", help="File to write.")],
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Fetch a video's bytes as they were uploaded."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with connect(url, key) as client, client.stream("GET", f"/v1/sop/videos/{video_id}/content") as answer:
            if answer.is_error:
                answer.read()
            checked(answer)
            with aside.open("wb") as file:
                for piece in answer.iter_bytes():
                    file.write(piece)
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@videos.command("delete")
def delete_video(video_id: str, url: Url = LOCAL, key: Key = "") -> None:
    """Erase a video with all that was made of it."""
    with connect(url, key) as client:
        _print(checked(client.delete(f"/v1/sop/videos/{video_id}")).json())


@transcript.command("set")
def set_transcript(
    video_id: str,
    path: Annotated[Path, typer.Argument(help="WebVTT or SubRip file, in UTF-8 or Shift_JIS.")],
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Set a video's transcript, in place of the one it may have; prints how many cues it has."""
    if not path.is_file():
        complain(f"There is no file {path}.")
        raise typer.Exit(BAD_INPUT)
    with connect(url, key) as client:
        body, headers = path.read_bytes(), {"content-type": "text/plain"}  # which of the two it is, its content says
        answer = checked(client.put(f"/v1/sop/videos/{video_id}/transcript", content=body, headers=headers))
        typer.echo(len(answer.json()["cues"]))


@transcript.command("show")
def show_transcript(video_id: str, url: Url = LOCAL, key: Key = "") -> None:
    """Print what is said, a line per cue with its seconds."""
    with connect(url, key) as client:
        for cue in checked(client.get(f"/v1/sop/videos/{video_id}/transcript")).json()["cues"]:
            typer.echo(f"{cue['start_s']:9.2f} {cue['end_s']:9.2f}  {cue['words']}")


@transcript.command("remove")
def remove_transcript(video_id: str, url: Url = LOCAL, key: Key = "") -> None:
    """Erase a video's transcript; the video stays."""
    with connect(url, key) as client:
        checked(client.delete(f"/v1/sop/videos/{video_id}/transcript"))


@contextlib.contextmanager
def _bad_input() -> Iterator[None]:
    """What is wrong with a file, a line per fault."""
    try:
        yield
    except Problem as problem:
        complain_of(problem)
        raise typer.Exit(BAD_INPUT) from problem


def complain_of(problem: Problem) -> None:
    """A line for the problem, whose detail names the first fault, and one for each further fault."""
    errors = problem.members.get("errors")
    complain(
        problem.detail, [each for each in errors[1:] if isinstance(each, dict)] if isinstance(errors, list) else []
    )


def _gold_file(steps: Path, video: str) -> Path:
    path = steps.parent / video
    if not path.is_file():
        complain(f"{steps.name}: each of golds names its file as video, and {path} is none.")
        raise typer.Exit(BAD_INPUT)
    return path


def _video(client: httpx.Client, path: Path) -> str:
    """A video's id; one that a job ingests has none yet."""
    sent = _upload(client, path)
    if "result_id" in sent:
        complain(f"{path.name} is large: job {sent['id']} ingests it. Run this again when it has succeeded.")
        raise typer.Exit(BAD_INPUT)
    return str(sent["id"])


def _upload(client: httpx.Client, path: Path, *, spoken: Path | None = None) -> dict[str, Any]:
    said = {} if spoken is None else {"transcript": (spoken.name, spoken.read_bytes())}
    with path.open("rb") as file:
        answer: dict[str, Any] = checked(
            client.post("/v1/sop/videos", files={**said, "file": (path.name, file)})
        ).json()
    return answer


def _all(client: httpx.Client, path: str) -> Iterator[dict[str, Any]]:
    cursor: str | None = None
    while True:
        page = checked(client.get(path, params={"cursor": cursor} if cursor else {})).json()
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

    with connect(url, key) as client:
        checked(client.get(f"/v1/sop/procedures/{procedure}"))  # before a film is sent for nothing
        if not Path(video).is_file() and not video.startswith("vid_"):
            complain(f"There is no file {video}, and it is no video's id, such as vid_01….")
            raise typer.Exit(BAD_INPUT)
        video_id = _video(client, Path(video)) if Path(video).is_file() else video
        body = {"procedure_id": procedure, "video_id": video_id, "operator": operator}
        headers = {"idempotency-key": str(uuid.uuid4())}
        found = EvaluationOut.model_validate(
            checked(client.post("/v1/sop/evaluations", json=body, headers=headers)).json()
        )
        show(found)
        typer.echo(found.id)
    raise typer.Exit(0 if found.verdict == "pass" else NOT_PASSED)


def review(
    evaluation: Annotated[str, typer.Argument(help="Id of the evaluation.")],
    verdict: Annotated[Literal["pass", "fail"], typer.Option(help="Yours; the machine's stays on record.")],
    reason: Annotated[str, typer.Option(help="Why; stays on record.")],
    score: Annotated[float | None, typer.Option(min=0, max=100, help="Your score; calibrates the machine's.")] = None,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Override the verdict of an evaluation, with a reason."""
    body = {"verdict": verdict, "reason": reason, **({} if score is None else {"score": score})}
    with connect(url, key) as client:
        _print(checked(client.post(f"/v1/sop/evaluations/{evaluation}/review", json=body)).json())


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
        complain(f"{path.name} must end in .html, .json, .csv or .pdf.")
        raise typer.Exit(BAD_INPUT)
    with connect(url, key) as client:
        answer = checked(client.get(f"/v1/sop/evaluations/{evaluation}/report.{form}", params={"lang": lang}))
        path.write_bytes(answer.content)


def ask(
    question: Annotated[str, typer.Argument(help="In English or Japanese.")],
    procedure: Annotated[str | None, typer.Option(help="Only the videos of this procedure.")] = None,
    k: Annotated[int, typer.Option(min=1, max=20, help="How many passages an answer may rest on.")] = 5,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Ask what is done or said in videos; prints the answer and the places that it rests on. Exit 1 if nothing was found."""
    from genba_sop.cli import NOT_FOUND

    body = {"question": question, "k": k, **({"procedure_id": procedure} if procedure else {})}
    with connect(url, key) as client:
        found = checked(client.post("/v1/sop/ask", json=body)).json()
    typer.echo(found["answer"])
    for each in found["citations"]:
        place = f"{each['video_id']} {each['start_s']:.1f}–{each['end_s']:.1f} s"
        typer.echo(f"  [{each['n']}] {place}  {each['video_title']}")
    if found["note"]:
        complain(
            f"The language model did not answer ({found['note'].replace('_', ' ')}): these are the passages themselves."
        )
    if not found["found"]:
        raise typer.Exit(NOT_FOUND)
