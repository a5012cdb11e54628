"""Submit a training job, follow it, and say what became of the version that it made."""

from __future__ import annotations

import json
import sys

from genba_gateway.client import Client, JobEvent, Refused


def main(recipe: str, *parameters: str) -> int:
    """``parameters`` as name=value, values in JSON. Exit code 1 when the job did not succeed."""
    params = {name: json.loads(value) for name, _, value in (each.partition("=") for each in parameters)}
    with Client() as genba:
        job = genba.jobs.submit(recipe, params)
        done = genba.jobs.wait(job.id, on_event=show)
        print(f"{done.id} {done.status}")
        if not done.succeeded:
            return 1
        made = (done.result or {}).get("registered")
        if made:
            version = genba.models.version(made["model"], made["number"])
            print(f"{made['model']} version {made['number']}: {made['outcome']}")
            for gate in version.gates:
                print(f"  {'passed' if gate.passed else 'missed'}  {gate.metric}: {gate.reason}")
    return 0


def show(event: JobEvent) -> None:
    """One line for each thing that happens."""
    print(event.kind, event.data)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except Refused as refused:
        sys.exit(str(refused))
