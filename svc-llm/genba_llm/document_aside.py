"""Documents that could be made to take for ever are read in a child process that may be killed; plain text is read here.

A small PDF may ask for hours (three thousand pages that share one long stream), a small page as well: Python's reader of HTML is
quadratic in unclosed tags. Knows no route.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Final

from genba_llm.documents import Extracted, extract, kind_of
from genba_shared.problems import Invalid, Overloaded, PayloadTooLarge, Problem, UnsupportedMedia

_CPU_S: Final = 120
_MEMORY_BYTES: Final = 3 * 1024**3
_PROBLEMS: Final[dict[str, type[Problem]]] = {
    each.__name__: each for each in (Invalid, PayloadTooLarge, UnsupportedMedia)
}
_AT_ONCE, _WAIT_S = 4, 60.0
_places = threading.BoundedSemaphore(_AT_ONCE)


def extract_aside(data: bytes, *, content_type: str | None, name: str | None, cpu_s: int = _CPU_S) -> Extracted:
    """As ``documents.extract``. Raises: Invalid as well for what takes too long or too much memory; Overloaded."""
    if kind_of(data, content_type or "", name or "") in {"text", "markdown"}:
        return extract(data, content_type=content_type, name=name)
    if not _places.acquire(timeout=_WAIT_S):
        raise Overloaded("Too many documents are being read.", retry_after_s=10)
    try:
        return _from_child(data, content_type or "", name or "", cpu_s)
    finally:
        _places.release()


def _from_child(data: bytes, content_type: str, name: str, cpu_s: int) -> Extracted:
    command = [sys.executable, "-P", "-m", "genba_llm.document_child", str(cpu_s), str(_MEMORY_BYTES)]
    told = (each[:300].replace("\0", "").encode("utf-8", "replace").decode() for each in (content_type, name))
    try:
        ran = subprocess.run(
            [*command, *told], input=data, capture_output=True, timeout=4.0 * cpu_s + 30.0, check=False
        )
    except subprocess.TimeoutExpired:
        raise Invalid("The document takes too long to read.") from None
    try:
        said = json.loads(ran.stdout)
    except json.JSONDecodeError:
        raise Invalid("The document takes too long or too much memory to read.") from None
    if "problem" in said:
        problem = _PROBLEMS.get(said["problem"], Invalid)
        raise problem(said.get("detail", "The document takes too much memory to read."), **said.get("members", {}))
    return Extracted(**said)
