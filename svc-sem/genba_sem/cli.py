"""``genba sem``: draw demonstration particles, send views, classify batches, work through the queue, search. Speaks to people: every
failure is one line.

Exit codes: 0 done, 2 bad input, 3 the server said no, 130 interrupted.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import typer
from rich.markup import escape
from rich.table import Column

from genba_shared.commands import BAD_INPUT, LOCAL, Key, Url, checked, complain, connect, folding_table, out

app = typer.Typer(
    help="Say what kind of particle SEM images show.", no_args_is_help=True, pretty_exceptions_enable=False
)
labels = typer.Typer(help="Labels of a running Genba.", no_args_is_help=True)
app.add_typer(labels, name="labels")

Version = Annotated[str, typer.Option("--version", help="The version that you read; * for any.")]
Precision = Literal["fp32", "int8"]
Views = Annotated[
    list[Path], typer.Argument(help="The particle's images, and texts that the instrument wrote beside them.")
]


@app.command("demo-particles")
def demo_particles(
    folder: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same files.")] = 0,
    masters: Annotated[int, typer.Option(min=1, max=100, help="Masters of each kind.")] = 5,
    samples: Annotated[int, typer.Option(min=1, max=100_000, help="Particles of the batch.")] = 40,
    views: Annotated[int, typer.Option(min=1, max=12, help="Views of each particle.")] = 6,
) -> None:
    """Draw micrographs of known kinds: masters, and a batch with a manifest and its truth."""
    from genba_sem.demo_pictures import draw_set

    try:
        made, batch = draw_set(
            folder, seed=seed, masters=masters, samples=samples, views=views, strange=min(2, samples - 1)
        )
    except OSError as failure:
        complain(f"{failure.strerror}: {failure.filename}")
        raise typer.Exit(BAD_INPUT) from failure
    out.print(
        f"{len(made)} masters and {len(batch)} samples of {views} views in {folder}; truth.json says what each is."
    )


@labels.command("list")
def list_labels(url: Url = LOCAL, key: Key = "") -> None:
    """List the labels that you may see, with what they hold."""
    table = folding_table(
        Column("id", no_wrap=True, overflow="fold"), "name", "名前", "status", "version", "masters", "particles"
    )
    with connect(url, key) as client:
        for row in _all(client, "/v1/sem/labels"):
            name, counts = row["name"], (str(row[each]) for each in ("version", "masters", "particles"))
            table.add_row(row["id"], escape(name["en"]), escape(name["ja"]), row["status"], *counts)
    out.print(table)


@labels.command("create")
def create_label(
    en: Annotated[str, typer.Option(help="Name in English.")] = "",
    ja: Annotated[str, typer.Option(help="Name in Japanese.")] = "",
    definition: Annotated[str, typer.Option(help="How a person tells it from the others.")] = "",
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Make a label; prints its id."""
    body = {"name": {"en": en, "ja": ja}, "definition": {"en": definition}}
    with connect(url, key) as client:
        typer.echo(checked(client.post("/v1/sem/labels", json=body)).json()["id"])


@labels.command("rename")
def rename_label(
    label_id: str,
    en: Annotated[str, typer.Option(help="Name in English.")] = "",
    ja: Annotated[str, typer.Option(help="Name in Japanese.")] = "",
    reason: Annotated[str, typer.Option(help="Goes into the history.")] = "",
    version: Version = "*",
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Give a label another name. Nothing is classified again."""
    with connect(url, key) as client:
        was = checked(client.get(f"/v1/sem/labels/{label_id}")).json()
        body = {
            "name": {"en": en, "ja": ja},
            "definition": was["definition"],
            "synonyms": was["synonyms"],
            "reason": reason,
        }
        _print(checked(client.put(f"/v1/sem/labels/{label_id}", json=body, headers={"if-match": version})).json())


@labels.command("merge")
def merge_label(
    label_id: str,
    into: Annotated[str, typer.Option(help="Id of the label that it is to mean.")],
    reason: Annotated[str, typer.Option(help="Goes into the history.")],
    version: Version = "*",
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Let a label mean another from now on."""
    body = {"into": into, "reason": reason}
    with connect(url, key) as client:
        answer = client.post(f"/v1/sem/labels/{label_id}/merge", json=body, headers={"if-match": version})
        typer.echo(f"{checked(answer).json()['particles']} particles now mean {into}")


@app.command("export-encoder")
def export_encoder(
    model: Annotated[str, typer.Argument(help="A DINO model's folder, or its name in the local Hugging Face cache.")],
    into: Annotated[Path, typer.Argument(help="Folder to write, below GENBA_SEM_ENCODERS_DIR to be served.")],
    precision: Annotated[Precision, typer.Option(help="int8: about twice as fast, nearly the same rows.")] = "fp32",
) -> None:
    """Export a DINO model to ONNX, which is served without PyTorch."""
    from genba_sem.dino import export_onnx, open_onnx
    from genba_shared.encoders import EncoderUnavailable

    try:
        graph = export_onnx(model, into, precision=precision)
        encoder = open_onnx(into)
    except EncoderUnavailable as err:
        complain(str(err))
        raise typer.Exit(BAD_INPUT) from err
    out.print(f"{graph}: {encoder.id}, rows of {encoder.raw_dim}.")


@app.command()
def send(
    views: Views,
    name: Annotated[
        str,
        typer.Option(
            help="Of the particle; when absent its folder's, if nothing else is in there, or the first file's."
        ),
    ] = "",
    master_of: Annotated[str, typer.Option(help="Id of a label: register the particle as its master.")] = "",
    batch: Annotated[str, typer.Option(help="Batch that it belongs to.")] = "",
    lot: Annotated[str, typer.Option(help="Lot that it comes from.")] = "",
    pixel_size_nm: Annotated[float | None, typer.Option(min=1e-4, help="Where the files do not say it.")] = None,
    later: Annotated[bool, typer.Option("--later", help="Only store it; a job classifies the batch.")] = False,  # noqa: FBT002
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Send the views of one particle; prints what it is held for and why a person should look."""
    fields = {
        "name": name or name_of(views),
        "master_of": master_of,
        "batch": batch,
        "lot": lot,
        "decide": "later" if later else "now",
    }
    fields["pixel_size_nm"] = "" if pixel_size_nm is None else str(pixel_size_nm)
    with connect(url, key) as client:
        files = [("views", (path.name, path.read_bytes())) for path in views]
        answer = client.post("/v1/sem/particles", files=files, data={k: v for k, v in fields.items() if v})
        _show(checked(answer).json())


def name_of(views: Sequence[Path]) -> str:
    """The folder's name when the views are all that is in it, as the import of a folder has it; else "": the first file's.

    Instruments number the views of each particle alike, and a batch takes a name once.
    """
    folders = {path.resolve().parent for path in views}
    if len(views) > 1 and len(folders) == 1:
        folder = folders.pop()
        if {each.name for each in folder.iterdir() if not each.name.startswith(".")} == {path.name for path in views}:
            return folder.name
    return ""


def _show(particle: dict[str, Any]) -> None:
    label = particle["label"]
    said = "–" if label is None else label["name"]["en"] or label["name"]["ja"]
    confidence = "" if particle["confidence"] is None else f" ({particle['confidence']:.2f})"
    out.print(f"{particle['id']}  {particle['status']}  [bold]{said}[/]{confidence}", highlight=False)
    for reason in particle["reasons"]:
        out.print(f"  • {reason['en']}", highlight=False)
    for view in particle["dropped"]:
        out.print(f"  [yellow]dropped[/] {view['file_name']}: {view['detail']}", highlight=False)


@app.command()
def show(particle_id: str, url: Url = LOCAL, key: Key = "") -> None:
    """Print a particle as JSON."""
    with connect(url, key) as client:
        _print(checked(client.get(f"/v1/sem/particles/{particle_id}")).json())


@app.command()
def classify(
    batch: Annotated[str, typer.Argument(help="Name of the batch.")],
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Classify what waits in a batch, as a job; prints the job's id. Follow it with: genba jobs watch."""
    with connect(url, key) as client:
        headers = {"idempotency-key": str(uuid.uuid4())}
        typer.echo(checked(client.post(f"/v1/sem/batches/{batch}/classify", headers=headers)).json()["id"])


@app.command()
def queue(
    reason: Annotated[str, typer.Option(help="Only those that wait for this reason.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Show what waits for a reviewer, most urgent first, and why."""
    table = folding_table(Column("id", no_wrap=True, overflow="fold"), "name", "held for", "confidence", "why")
    with connect(url, key) as client:
        params: dict[str, str | int] = {"limit": limit, **({"reason": reason} if reason else {})}
        for row in checked(client.get("/v1/sem/reviews", params=params)).json()["items"]:
            label = row["label"]["name"]["en"] if row["label"] else "–"
            confidence = "–" if row["confidence"] is None else f"{row['confidence']:.2f}"
            why = "; ".join(each["en"] for each in row["reasons"])
            table.add_row(row["id"], escape(row["name"]), escape(label), confidence, escape(why))
        waiting = checked(client.get("/v1/sem/reviews/progress")).json()["waiting"]
    out.print(table)
    out.print(f"{waiting} wait in all", highlight=False)


@app.command()
def review(
    particle_id: str,
    label_id: Annotated[str, typer.Argument(help="Id of the label; 'none' when none fits.")],
    version: Version = "*",
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Say what a particle is."""
    body = {"particle_id": particle_id, "label_id": None if label_id == "none" else label_id}
    with connect(url, key) as client:
        answer = checked(client.post("/v1/sem/reviews", json=body, headers={"if-match": version})).json()
        typer.echo("settled" if answer["settled"] else "another reviewer is needed")


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="Words in English or Japanese.")],
    k: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 10,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Find particles by words."""
    table = folding_table(Column("id", no_wrap=True, overflow="fold"), "name", "label", "score", "matched")
    with connect(url, key) as client:
        found = checked(client.post("/v1/sem/search", json={"text": text, "k": k})).json()
    for hit in found["hits"]:
        row = hit["particle"]
        label = row["label"]["name"]["en"] if row["label"] else "–"
        matched = escape(", ".join(hit["matched"]))
        table.add_row(row["id"], escape(row["name"]), escape(label), f"{hit['score']:.2f}", matched)
    out.print(table)
    out.print(found["notice"], style="dim", highlight=False)


def _print(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _all(client: httpx.Client, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = checked(client.get(path, params={"cursor": cursor} if cursor else {})).json()
        found += page["items"]
        if not (cursor := page["next_cursor"]):
            return found
