"""``genba llm``: ask the gate and the assistant of a running Genba, take in documents, look after policies and the queue.

Exit codes: 0 allowed or done, 1 not allowed, 2 bad input, 3 the server said no, 130 interrupted.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml
from rich.markup import escape
from rich.table import Column

from genba_llm.line_cli import train
from genba_shared import yaml_files
from genba_shared.commands import BAD_INPUT, LOCAL, NEGATIVE, Key, Url, checked, complain, connect, folding_table, out

app = typer.Typer(help="Ask, decide, prove.", no_args_is_help=True, pretty_exceptions_enable=False)
documents = typer.Typer(help="The company's documents.", no_args_is_help=True)
escalations = typer.Typer(help="Questions that wait for a person.", no_args_is_help=True)
policies = typer.Typer(help="The policy and the identity in force.", no_args_is_help=True)
app.add_typer(documents, name="documents")
app.add_typer(escalations, name="escalations")
app.add_typer(policies, name="policies")
app.command()(train)

Json = dict[str, Any]
_COLOURS = {"ALLOW": "green", "ESCALATE": "yellow", "DENY": "red", "REFUSE": "bold red"}
Domain = Annotated[str | None, typer.Option(help="The domain, where you know it.")]


@app.command()
def triage(
    text: str,
    domain: Domain = None,
    action: Annotated[str, typer.Option(help="ask, search, summarize, draft_mail, disclose or export.")] = "ask",
    classification: Annotated[
        str | None, typer.Option(help="Of what is asked for: public … secret; without it, what the policy says.")
    ] = None,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Decide whether a text may be answered. Exit 0 only for ALLOW."""
    with connect(url, key) as client:
        body = {
            "text": text,
            "action": action,
            **({"classification": classification} if classification else {}),
            **({"domain": domain} if domain else {}),
        }
        found: Json = checked(client.post("/v1/llm/triage", json=body)).json()
    _show(found)
    raise typer.Exit(0 if found["decision"] == "ALLOW" else NEGATIVE)


@app.command()
def think(text: str, domain: Domain = None, url: Url = LOCAL, key: Key = "") -> None:
    """Answer with hidden thinking. Exit 0 only if there is an answer."""
    with connect(url, key) as client:
        body = {"text": text, **({"domain": domain} if domain else {})}
        found: Json = checked(client.post("/v1/llm/think", json=body)).json()
    if found["answer"] is None:
        _show(found["decision"])
        raise typer.Exit(NEGATIVE)
    out.print(escape(found["answer"]), highlight=False)
    for each in found["citations"]:
        out.print(f"[dim]\\[{each['number']}] {escape(each['title'])} ({each['document_id']})[/]", highlight=False)


@app.command()
def search(query: str, limit: int = 5, url: Url = LOCAL, key: Key = "") -> None:
    """Find passages of the documents that you may see."""
    with connect(url, key) as client:
        found: Json = checked(client.post("/v1/llm/office/search", json={"query": query, "limit": limit})).json()
    if found["decision"]["decision"] != "ALLOW":
        _show(found["decision"])
        raise typer.Exit(NEGATIVE)
    table = folding_table("score", "document", "passage")
    for each in found["hits"]:
        table.add_row(f"{each['score']:.2f}", escape(each["title"]), escape(each["text"][:200]))
    out.print(table)


@app.command()
def report(
    start: Annotated[str, typer.Option(help="From this day or moment on: 2026-11-01, 2026-11-01T00:00:00Z.")],
    end: Annotated[str, typer.Option(help="To this day, or before this moment.")],
    path: Annotated[Path, typer.Option("--out", help="File to write; its ending chooses html or csv.")],
    lang: Annotated[Literal["en", "ja"], typer.Option(help="Language of the page.")] = "en",
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Fetch the compliance report of a period."""
    form = path.suffix.removeprefix(".")
    if form not in {"html", "csv"}:
        complain(f"{path.name} must end in .html or .csv.")
        raise typer.Exit(BAD_INPUT)
    with connect(url, key) as client:
        params = {"start": moment(start), "end": moment(end, days_later=1), "format": form, "lang": lang}
        path.write_bytes(checked(client.get("/v1/llm/report", params=params)).content)


def moment(said: str, *, days_later: int = 0) -> str:
    """A date as its midnight on this machine's clock, ``days_later``; anything else as it is, for the server to judge."""
    try:
        day = date.fromisoformat(said)
    except ValueError:
        return said
    return datetime.combine(day + timedelta(days=days_later), time()).astimezone().isoformat()


@documents.command("add")
def add_document(
    path: Annotated[Path, typer.Argument(dir_okay=False, exists=True)],
    title: Annotated[str | None, typer.Option(help="Its title; found in the file when absent.")] = None,
    clearance: Annotated[str | None, typer.Option(help="public, internal, confidential or secret.")] = None,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Take in a document: text, Markdown, HTML, PDF or Word."""
    params = {
        "name": path.name,
        **({"title": title} if title else {}),
        **({"clearance": clearance} if clearance else {}),
    }
    with connect(url, key) as client:
        headers = {"content-type": "application/octet-stream"}
        found = checked(client.post("/v1/llm/documents", params=params, content=path.read_bytes(), headers=headers))
    out.print(found.json()["id"], highlight=False)


@documents.command("list")
def list_documents(url: Url = LOCAL, key: Key = "") -> None:
    """The newest documents that you may see."""
    with connect(url, key) as client:
        found: Json = checked(client.get("/v1/llm/documents", params={"limit": 200})).json()
    table = folding_table(_id(), "title", "kind", "clearance", "characters")
    for each in found["items"]:
        table.add_row(each["id"], escape(each["title"]), each["kind"], each["clearance"], f"{each['chars']:,}")
    out.print(table)


@escalations.command("list")
def list_escalations(
    status: Annotated[str, typer.Option(help="open, assigned or decided.")] = "open", url: Url = LOCAL, key: Key = ""
) -> None:
    """The newest questions in the queue."""
    with connect(url, key) as client:
        found: Json = checked(client.get("/v1/llm/escalations", params={"status": status, "limit": 200})).json()
    table = folding_table(_id(), "for", "asked by", "due", "overdue", "assignee")
    for each in found["items"]:
        late = "yes" if each["overdue"] else ""
        table.add_row(each["id"], each["target"], each["created_by"], each["due_at"], late, each["assignee"] or "")
    out.print(table)


@escalations.command("show")
def show_escalation(escalation: str, url: Url = LOCAL, key: Key = "") -> None:
    """One question with its text."""
    with connect(url, key) as client:
        found: Json = checked(client.get(f"/v1/llm/escalations/{escalation}")).json()
    out.print_json(data=found)


@escalations.command("decide")
def decide_escalation(
    escalation: str,
    outcome: Annotated[Literal["ALLOW", "DENY", "REFUSE"], typer.Argument()],
    reason: Annotated[str, typer.Option(help="Why; it stays on record.")],
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Decide a question, with a reason."""
    with connect(url, key) as client:
        body = {"outcome": outcome, "reason": reason}
        checked(client.post(f"/v1/llm/escalations/{escalation}/decision", json=body))


Kind = Annotated[Literal["policies", "identities"], typer.Argument(help="policies or identities.")]


@policies.command("show")
def show_policy(kind: Kind = "policies", url: Url = LOCAL, key: Key = "") -> None:
    """Print the document in force as YAML: change it and publish it."""
    with connect(url, key) as client:
        found: Json = checked(client.get(f"/v1/llm/{kind}")).json()
    typer.echo(yaml.safe_dump(found["document"], allow_unicode=True, sort_keys=False))


@policies.command("publish")
def publish_policy(
    path: Annotated[Path, typer.Argument(dir_okay=False, exists=True)],
    note: Annotated[str, typer.Option(help="What changes, and why.")],
    kind: Annotated[Literal["policies", "identities"], typer.Option(help="policies or identities.")] = "policies",
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Let a document take effect; one that does not validate is refused and changes nothing."""
    try:
        document = yaml_files.load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as failure:
        complain(f"{path.name} cannot be read: {yaml_files.fault(failure)}")
        raise typer.Exit(BAD_INPUT) from failure
    with connect(url, key) as client:
        found: Json = checked(client.post(f"/v1/llm/{kind}", json={"document": document, "note": note})).json()
    out.print(f"revision {found['revision']} is in force", highlight=False)


def _id() -> Column:
    """Whole even in a narrow terminal: it is there to be copied. A column holds its cells, so each table needs its own."""
    return Column("id", min_width=30, no_wrap=True)


def _show(found: Json) -> None:
    colour = _COLOURS[found["decision"]]
    target = f" → {found['escalation_target']}" if found["escalation_target"] else ""
    out.print(
        f"[{colour}]{found['decision']}[/]{target}  confidence {found['confidence']:.2f}  {found['domain']}"
        f"  {escape(found['policy_ref'])}",
        highlight=False,
    )
    for reason in found["reasons"]:
        out.print(f"  • {escape(reason)}", highlight=False)
    out.print(f"  {found['id']}, entry {found['audit_id']} of the audit log", highlight=False)
