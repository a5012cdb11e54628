"""``genba recommend pictures``: send thumbnails of items, see what became of them, have them embedded anew."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import httpx
import typer
from rich.progress import Progress

from genba_shared.commands import BAD_INPUT, LOCAL, Key, Url, checked, complain, connect, err

pictures = typer.Typer(help="Thumbnails and previews of items.", no_args_is_help=True)

KINDS: Final = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
TRIES: Final = 60  # of one while too much is being written
NEGATIVE: Final = 1


@pictures.command()
def send(
    path: Annotated[Path, typer.Argument(help="A picture, or a folder of pictures named after their items: v1.jpg.")],
    item: Annotated[
        str | None, typer.Option(help="Id of the item; the file's name without its ending when absent.")
    ] = None,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Send pictures. One is embedded at once, those of a folder soon after. A refused one is named and the others are taken."""
    files = sorted(each for each in path.iterdir() if each.suffix.lower() in KINDS) if path.is_dir() else [path]
    if not files or not all(each.is_file() and each.suffix.lower() in KINDS for each in files):
        complain(f"{path} is no {', '.join(KINDS)} and holds none.")
        raise typer.Exit(BAD_INPUT)
    if item is not None and path.is_dir():
        complain("A folder's pictures are named after their items: leave --item out.")
        raise typer.Exit(BAD_INPUT)
    query = "?embed=later" if len(files) > 1 else ""
    taken, refused = 0, 0
    with connect(url, key) as client, Progress(console=err, transient=True) as progress:
        task = progress.add_task("Sending pictures", total=len(files))
        for each in files:
            answer = _sent(client, item or each.stem, each, query)
            if answer.status_code == httpx.codes.OK:
                taken += 1
                if len(files) == 1:
                    typer.echo(json.dumps(answer.json(), indent=2))
            elif answer.status_code in {401, 403, 409} or len(files) == 1:
                checked(answer)
            else:
                refused += 1
                err.print(f"{each.name}: {answer.json()['detail']}", highlight=False, markup=False, soft_wrap=True)
            progress.update(task, advance=1)
    err.print(f"{taken} pictures taken, {refused} refused", highlight=False)
    if refused:
        raise typer.Exit(NEGATIVE)


def _sent(client: httpx.Client, item: str, path: Path, query: str) -> httpx.Response:
    headers = {"content-type": KINDS[path.suffix.lower()]}
    for _ in range(TRIES):
        answer = client.put(
            f"/v1/recommend/items/{quote(item, safe='')}/picture{query}", content=path.read_bytes(), headers=headers
        )
        if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
            break
        time.sleep(float(answer.headers.get("retry-after", 1)))
    return answer


@pictures.command()
def status(url: Url = LOCAL, key: Key = "") -> None:
    """How many are embedded, by which encoder, and why others wait."""
    with connect(url, key) as client:
        typer.echo(json.dumps(checked(client.get("/v1/recommend/pictures")).json(), indent=2, ensure_ascii=False))


@pictures.command()
def remove(item: Annotated[str, typer.Argument(help="Id of the item.")], url: Url = LOCAL, key: Key = "") -> None:
    """Erase an item's picture and its embedding."""
    with connect(url, key) as client:
        checked(client.delete(f"/v1/recommend/items/{quote(item, safe='')}/picture"))


@pictures.command()
def embed(
    what: Annotated[
        Literal["waiting", "all"], typer.Option(help="all: anew, after svc-sop's encoder has changed.")
    ] = "waiting",
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Submit a job that has pictures embedded which are not; prints its id."""
    body: dict[str, Any] = {"recipe": "recommend.pictures", "params": {"what": what}}
    with connect(url, key) as client:
        answer = client.post("/v1/jobs", json=body, headers={"idempotency-key": str(uuid.uuid4())})
        typer.echo(checked(answer).json()["id"])
