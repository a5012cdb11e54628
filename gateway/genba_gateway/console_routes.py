"""The console's files: one page for a person at a browser, over the same public API that any program uses.

Static and from this package, because a closed network has no other place to load one from. Knows no data: the page asks for
an API key and calls the API with it.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Response

from genba_shared.problems import NotFound

# A report that the page opens in a tab of its own has this policy too, and brings its styles with it.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src data: blob:; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_SCRIPTS = tuple(
    f"{name}.js"
    for name in (
        "assistant",
        "audit",
        "classify",
        "console",
        "details",
        "documents",
        "jobs",
        "labels",
        "models",
        "particles",
        "pictures",
        "problems",
        "recipes",
        "recommend",
        "sop",
        "texts",
    )
)
_TYPES = {"console.css": "text/css", **dict.fromkeys(_SCRIPTS, "text/javascript")}

router = APIRouter(include_in_schema=False)


@router.get("/console")
def console() -> Response:
    """The page."""
    return _file("index.html", "text/html")


@router.get("/console/{name}")
def asset(name: str) -> Response:
    """What the page loads."""
    if name not in _TYPES:
        raise NotFound(f"There is no {name} here.")
    return _file(name, _TYPES[name])


def _file(name: str, media_type: str) -> Response:
    text = (files("genba_gateway") / "console" / name).read_bytes()
    return Response(text, media_type=f"{media_type}; charset=utf-8", headers=_HEADERS)
