"""Read one document in a process of its own, which may take so much time and memory and no more.

Bytes on standard input, one JSON object on standard output. Started by ``document_aside``; the readers are Python's and cannot be
made to run what a file brings, so what is kept from the service is the time of a file that was made to take hours.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict

from pydantic import JsonValue

from genba_llm.documents import extract
from genba_shared.problems import Problem


def main() -> None:
    seconds, memory_bytes, content_type, name = sys.argv[1:]
    _limit(int(seconds), int(memory_bytes))
    try:
        said: dict[str, JsonValue] = asdict(extract(sys.stdin.buffer.read(), content_type=content_type, name=name))
    except Problem as problem:
        said = {"problem": type(problem).__name__, "detail": problem.detail, "members": problem.members}
    except MemoryError:
        said = {"problem": "MemoryError"}
    sys.stdout.write(json.dumps(said))


def _limit(seconds: int, memory_bytes: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has none, and a host may allow less already
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


if __name__ == "__main__":
    main()
