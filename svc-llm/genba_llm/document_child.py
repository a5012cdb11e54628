"""Reads PDF files in a process of their own, because a small one may ask for hours of work: three thousand pages of one long drawing.

``extract`` is what services call; run as ``python -m genba_llm.document_child`` this module is the child. It has so much processor
time and memory, is in nobody's way meanwhile, and costs nothing but itself when it ends. What Word files and pages of HTML may ask
for is bounded where they are read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import Any, Final

from genba_llm import documents
from genba_llm.documents import Extracted
from genba_shared.problems import Invalid, PayloadTooLarge, Problem, UnsupportedMedia
from genba_shared.sandbox import limit

CPU_S: Final = 120
MEMORY_BYTES: Final = 2 * 1024**3
_AT_ONCE: Final = threading.BoundedSemaphore(2)
_PROBLEMS: Final[dict[str, type[Problem]]] = {
    problem.__name__: problem for problem in (Invalid, PayloadTooLarge, UnsupportedMedia)
}


def extract(data: bytes, *, content_type: str | None = None, name: str | None = None, cpu_s: int = CPU_S) -> Extracted:
    """As ``documents.extract``. Raises: also PayloadTooLarge for a PDF that takes more than it may."""
    if documents.kind_of(data, content_type or "", name or "") != "pdf":
        return documents.extract(data, content_type=content_type, name=name)
    command = [sys.executable, "-m", "genba_llm.document_child", str(cpu_s)]
    with _AT_ONCE:
        # No clock: on a busy machine it would measure the others. A child without processor time waits for nothing.
        child = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    if child.returncode != 0 or not child.stdout:
        raise PayloadTooLarge(
            "Reading the PDF takes more time or memory than a document may: print it to a new PDF, or send its parts.",
            limit=cpu_s,
        )
    said: dict[str, Any] = json.loads(child.stdout)
    if (problem := said.get("problem")) is not None:
        raise _PROBLEMS[problem](said["detail"], **said["members"])
    return Extracted("pdf", said["text"], said["title"])


def _answer(data: bytes) -> dict[str, Any]:
    try:
        found = documents.extract(data)
    except (Invalid, PayloadTooLarge, UnsupportedMedia) as problem:
        return {"problem": type(problem).__name__, "detail": problem.detail, "members": dict(problem.members)}
    return {"text": found.text, "title": found.title}


def main() -> int:
    limit(memory_bytes=MEMORY_BYTES, cpu_s=int(sys.argv[1]), file_bytes=0, open_files=None)
    os.nice(5)
    said = json.dumps(_answer(sys.stdin.buffer.read()))
    sys.stdout.write(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
