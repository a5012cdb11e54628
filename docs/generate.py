"""Writes docs/reference from the code: settings, problems, roles, routes, metrics, recipes. ``make docs``; tests/test_docs.py compares.

``python docs/generate.py --check`` exits 1 and names the pages that differ.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from genba_gateway import settings as gateway_settings
from genba_gateway.app import Gateway
from genba_gateway.embedded import SERVICES, create_app
from genba_gateway.home import migrate
from genba_gateway.routes import ROUTES
from genba_llm.line_settings import LineSettings
from genba_recommend import settings as recommend_settings
from genba_sem import settings as sem_settings
from genba_shared.principal import ROLES
from genba_shared.problems import Problem
from genba_shared.queue import QUEUES
from genba_shared.settings import Platform
from genba_sop import settings as sop_settings
from genba_training import settings as training_settings
from genba_training.worker_status import WorkerStatus

REFERENCE = Path(__file__).parent / "reference"
WRITTEN_BY = "<!-- Written by docs/generate.py (`make docs`); do not edit. -->\n\n"


def escape(cell: str) -> str:
    """A cell's text; a bar would end the cell."""
    return cell.replace("|", "\\|")


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(columns)
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(escape(cell) for cell in row)} |" for row in rows)]) + "\n"


def default(field: FieldInfo) -> str:
    """A setting's default as an operator would write it."""
    value = field.get_default(call_default_factory=False)
    if field.default_factory is not None:
        return "see the text" if value in {None, PydanticUndefined} else f"`{value}`"
    return "–" if value is None else "required" if value is PydanticUndefined else f"`{value}`"


def variables(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    """Each setting's environment variable, default and description; nested groups with two underscores."""
    for name, field in model.model_fields.items():
        nested = [
            part for part in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(part, type)
        ]
        group = next((part for part in nested if issubclass(part, BaseModel)), None)
        if group is Platform:
            continue
        if group is not None:
            yield from variables(group, f"{prefix}{name.upper()}__")
        else:
            yield f"`{prefix}{name.upper()}`", default(field), field.description or ""


def settings_page() -> str:
    """Every setting of every process."""
    parts = ["# Settings\n\nRead from the environment once, at the start. Embedded mode needs none of them.\n"]
    for title, model in (
        ("Platform: every process", Platform),
        ("Gateway", gateway_settings.Settings),
        ("svc-sop", sop_settings.Settings),
        ("svc-llm: the training line", LineSettings),
        ("svc-recommend", recommend_settings.Settings),
        ("svc-sem", sem_settings.Settings),
        ("svc-training", training_settings.Settings),
    ):
        rows = variables(model, str(model.model_config.get("env_prefix", "")))
        parts.append(f"\n## {title}\n\n{table(('variable', 'default', 'what it does'), rows)}")
    return "".join(parts)


def problems_page() -> str:
    """Every problem that an answer may carry."""

    def below(kind: type[Problem]) -> Iterator[type[Problem]]:
        for child in sorted(kind.__subclasses__(), key=lambda each: (each.status, each.code)):
            yield child
            yield from below(child)

    rows = (
        (str(kind.status), f"`urn:genba:problem:{kind.code}`", kind.title)
        for kind in sorted(below(Problem), key=lambda k: (k.status, k.code))
    )
    intro = (
        "# Problems\n\nEvery error is an RFC 9457 document (`application/problem+json`) with a `detail` and a `request_id`.\n"
        "A 422 also has `errors`, each with the `field` and a `message`; a 429 or 503 has `Retry-After`.\n\n"
    )
    return intro + table(("status", "type", "title"), rows)


def roles_page() -> str:
    """Who may do what."""
    roles = table(
        ("role", "scopes"),
        ((role, ", ".join(f"`{scope}`" for scope in sorted(scopes))) for role, scopes in ROLES.items()),
    )
    rows = (
        (
            f"`{route.prefix}`",
            route.service,
            f"`{route.read}`" if route.read else "–",
            f"`{route.write}`" if route.write else "–",
            route.clearance.label,
        )
        for route in ROUTES
    )
    routes = table(("path", "service", "to read", "to write", "least clearance"), rows)
    return (
        f"# Roles, scopes and routes\n\n`*:read` is every service's reading, but never the audit log or the keys.\n\n{roles}\n"
        f"## Routes\n\nThe gateway checks this table; the service checks each route again, more finely.\n\n{routes}"
    )


def api_page(apps: Mapping[str, Any]) -> str:
    """Every operation, from the same documents that /v1/openapi.json serves."""
    parts = ["# API\n\nThe whole document with schemas is at `/v1/openapi.json`, a page to try it at `/docs`.\n"]
    for name, app in apps.items():
        rows = [
            (
                f"`{method.upper()} {path}`",
                (operation.get("description") or operation.get("summary", "")).splitlines()[0],
            )
            for path, methods in sorted(app.openapi()["paths"].items())
            for method, operation in methods.items()
            if path.startswith("/v1/")
        ]
        parts.append(f"\n## {name}\n\n{table(('operation', 'what'), rows)}")
    return "".join(parts)


async def metrics_page(gateway: Gateway) -> str:
    """Every metric that /metrics of embedded mode or of a worker may show; a service in a process of its own shows its own."""
    async with gateway.running():
        families = list(gateway.control.state.metrics.registry.collect())
    families += WorkerStatus(QUEUES, 1, busy=lambda: 0).registry.collect()
    rows = (
        (f"`{family.name}{'_total' if family.type == 'counter' else ''}`", family.type, family.documentation)
        for family in sorted(families, key=lambda family: family.name)
        if family.name.startswith("genba_")
    )
    intro = "# Metrics\n\nNames are `genba_<service>_<what>_<unit>`, in base units. Labels are route templates and kinds, never ids.\n\n"
    return intro + table(("metric", "type", "what it says"), rows)


def pages() -> dict[str, str]:
    """Each page's name and text."""
    with tempfile.TemporaryDirectory() as home:
        platform = Platform(home=Path(home), database_url=f"sqlite:///{home}/genba.db")
        migrate(platform).close()
        gateway = create_app(platform)
        apps = {"gateway": gateway.control, **{name: make(platform) for name, make in SERVICES.items()}}
        return {
            "settings.md": WRITTEN_BY + settings_page(),
            "problems.md": WRITTEN_BY + problems_page(),
            "roles.md": WRITTEN_BY + roles_page(),
            "api.md": WRITTEN_BY + api_page(apps),
            "metrics.md": WRITTEN_BY + asyncio.run(metrics_page(gateway)),
        }


def main(argv: list[str]) -> int:
    """Write the pages, or with --check compare them."""
    made = pages()
    if "--check" in argv:
        stale = [
            name
            for name, text in made.items()
            if not (REFERENCE / name).exists() or (REFERENCE / name).read_text() != text
        ]
        print("\n".join(f"docs/reference/{name} is not what the code says; run `make docs`" for name in stale))  # noqa: T201
        return bool(stale)
    REFERENCE.mkdir(exist_ok=True)
    for name, text in made.items():
        (REFERENCE / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
