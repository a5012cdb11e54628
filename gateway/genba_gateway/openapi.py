"""One OpenAPI document for all services, as a client of the gateway sees them.

Each service describes itself at ``/openapi.json``, mounted or proxied alike. Here the documents become one: schemas that are
the same are shared, schemas that only have the same name are told apart by their service, and what the gateway itself may
answer is added to every operation. Knows nothing of what the services do.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from genba_gateway.headers import BODY_BYTES
from genba_gateway.routes import Route, RouteTable
from genba_shared.problems import MEDIA_TYPE, Problem
from genba_shared.service import PROBLEM_SCHEMA, problem_responses
from genba_shared.telemetry import get_logger

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

log = get_logger(__name__)

Document = dict[str, Any]

_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch"})
_GATEWAY_STATUSES = (400, 401, 403, 404, 405, 408, 413, 429, 431, 500, 502, 503, 504)
_OPEN_STATUSES = (400, 404, 405, 431, 500, 503)
_CACHE_S = 60.0
_FETCH_S = 5.0
_MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
_SECURITY = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (`gnb_…`) or a JWT of the configured issuer.",
    }
}


class OpenApi:
    """The merged document, made when first asked for and again when it is old."""

    def __init__(
        self,
        services: Mapping[str, ASGIApp],
        table: RouteTable,
        *,
        version: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services = services
        self._table = table
        self._version = version
        self._clock = clock
        self._document: bytes | None = None
        self._made_s = 0.0
        self._making = asyncio.Lock()

    async def json(self) -> bytes:
        """The document as JSON. A service that does not answer is left out, and the document is not kept for long."""
        async with self._making:
            if self._document is None or self._clock() - self._made_s > _CACHE_S:
                documents = await self._fetch_all()
                self._document = await asyncio.to_thread(self._merged, documents)
                is_whole = len(documents) == len(self._services)
                self._made_s = self._clock() - (0 if is_whole else _CACHE_S - 2)
            return self._document

    def _merged(self, documents: Mapping[str, Document]) -> bytes:
        return orjson.dumps(merge(documents, self._table, version=self._version))

    async def _fetch_all(self) -> dict[str, Document]:
        names = list(self._services)
        found = await asyncio.gather(*(self._fetch(name) for name in names))
        return {name: document for name, document in zip(names, found, strict=True) if document is not None}

    async def _fetch(self, service: str) -> Document | None:
        try:
            async with asyncio.timeout(_FETCH_S):
                status, body = await get(self._services[service], "/openapi.json")
            document = orjson.loads(body) if status == 200 else None
        except (Problem, ValueError, TimeoutError, OSError) as error:
            log.warning("openapi_unavailable", service=service, reason=f"{type(error).__name__}: {error}")
            return None
        if not isinstance(document, dict):
            log.warning("openapi_unavailable", service=service, reason=f"status {status}")
            return None
        return document


async def get(app: ASGIApp, path: str) -> tuple[int, bytes]:
    """GET ``path`` from a service as the gateway itself, mounted or proxied. Raises: Problem, ValueError if it is too large."""
    status, pieces, size = 0, [], 0

    messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]  # never: we do not leave

    async def send(message: Message) -> None:
        nonlocal status, size
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            body = message.get("body", b"")
            size += len(body)
            if size > _MAX_DOCUMENT_BYTES:
                raise ValueError("the answer is too large")
            pieces.append(body)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"gateway"), (b"accept", b"application/json")],
        "client": None,
        "server": None,
        BODY_BYTES: 0,
    }
    await app(scope, receive, send)
    return status, b"".join(pieces)


def merge(documents: Mapping[str, Document], table: RouteTable, *, version: str) -> Document:
    """One document out of many. Paths that the gateway does not forward to their service are left out."""
    paths: Document = {}
    components: dict[str, Document] = {"schemas": {"Problem": dict(PROBLEM_SCHEMA)}, "securitySchemes": dict(_SECURITY)}
    operation_ids: set[str] = set()
    tags: dict[str, str] = {}
    for service, original in documents.items():
        document = copy.deepcopy(original)
        renames = _take_components(service, document.get("components", {}), components)
        document = _rename(document, renames)
        for path, item in document.get("paths", {}).items():
            route = table.find(path)
            if route is None or route.service != service:
                continue
            paths[path] = item
            for method in _METHODS & item.keys():
                _complete(item[method], service, route, method, path, operation_ids)
        tags[service] = document.get("info", {}).get("title", service)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Genba",
            "version": version,
            "description": "Every service of this installation, through its gateway.",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": title} for name, title in tags.items()],
        "paths": dict(sorted(paths.items())),
        "components": components,
    }


def _take_components(service: str, found: Document, merged: dict[str, Document]) -> dict[str, str]:
    """Add a service's components to ``merged``; returns the references that changed."""
    renames: dict[str, str] = {}
    kinds = {kind: entries for kind, entries in found.items() if kind != "securitySchemes"}
    is_settled = False
    while not is_settled:  # a schema that is the same word for word differs once what it refers to is renamed
        is_settled = True
        for kind, entries in kinds.items():
            taken = merged.setdefault(kind, {})
            for name, entry in entries.items():
                reference = f"#/components/{kind}/{name}"
                if (
                    name == "Problem"
                    or reference in renames
                    or name not in taken
                    or taken[name] == _rename(entry, renames)
                ):
                    continue
                fresh = f"{service.capitalize()}{name}"
                while fresh in taken or fresh in entries:
                    fresh += "_"
                renames[reference] = f"#/components/{kind}/{fresh}"
                is_settled = False
    for kind, entries in kinds.items():
        for name, entry in entries.items():
            reference = f"#/components/{kind}/{name}"
            if name != "Problem":
                merged[kind][renames.get(reference, reference).rsplit("/", 1)[1]] = _rename(entry, renames)
    return renames


def _rename(node: Any, renames: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {
            key: renames.get(value, value)
            if key == "$ref" and isinstance(value, str)
            else _rename_mapping(value, renames)
            if key == "discriminator"
            else _rename(value, renames)
            for key, value in node.items()
        }
    return [_rename(item, renames) for item in node] if isinstance(node, list) else node


def _rename_mapping(discriminator: Any, renames: Mapping[str, str]) -> Any:
    """A discriminator maps values to references that stand without ``$ref``."""
    if not isinstance(discriminator, dict) or not isinstance(discriminator.get("mapping"), dict):
        return discriminator
    mapping = {value: renames.get(reference, reference) for value, reference in discriminator["mapping"].items()}
    return {**discriminator, "mapping": mapping}


def _complete(operation: Document, service: str, route: Route, method: str, path: str, taken_ids: set[str]) -> None:
    """Add what the gateway does to an operation: who may call it, and what it may answer."""
    is_open = route.read is None
    responses = operation.setdefault("responses", {})
    for status, response in problem_responses(*(_OPEN_STATUSES if is_open else _GATEWAY_STATUSES)).items():
        known = responses.setdefault(str(status), response)
        content = known.setdefault("content", {})
        content.setdefault(MEDIA_TYPE, response["content"][MEDIA_TYPE])
    if is_open:
        operation.pop("security", None)
    else:
        scope = route.scope_for(method.upper(), path)
        operation["security"] = [{"bearer": []}]
        operation["x-genba-scope"] = scope or None
        operation["x-genba-clearance"] = route.clearance.label
    operation.setdefault("tags", [service])
    operation_id = operation.get("operationId") or f"{service}_{method}_{path.strip('/').replace('/', '_')}"
    while operation_id in taken_ids:
        operation_id = f"{operation_id}_{method}"
    taken_ids.add(operation_id)
    operation["operationId"] = operation_id
