"""Writes the dashboards that Grafana loads: ``python -m deploy.grafana.build`` from the root, or ``make dashboards``.

``--check`` exits 1 and names the files that differ from the code; tests/deploy does the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.grafana import board_assistant, board_jobs, board_particles, board_platform, board_recommender
from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

FOLDER = Path(__file__).parent / "dashboards"
BOARDS: Mapping[str, Callable[[], Dashboard]] = {
    "platform": board_platform.build,
    "jobs": board_jobs.build,
    "recommender": board_recommender.build,
    "assistant": board_assistant.build,
    "particles": board_particles.build,
}


def documents() -> dict[Path, str]:
    """Each file and its text."""
    return {
        FOLDER / f"{name}.json": json.dumps(
            build().build(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False
        )
        + "\n"
        for name, build in BOARDS.items()
    }


def main(argv: list[str]) -> int:
    """Write, or compare."""
    made = documents()
    if "--check" in argv:
        stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
        print("\n".join(f"{path} is not what the code says; run `make dashboards`" for path in stale))  # noqa: T201
        return bool(stale)
    FOLDER.mkdir(exist_ok=True)
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
