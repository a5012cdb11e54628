"""Score a shift's videos as one job and follow it: progress arrives as it happens and goes on after a lost connection."""

from __future__ import annotations

import sys

from genba_gateway.client import Client, fresh_key


def main(procedure_id: str, *video_ids: str) -> int:
    """Exit code 0 when the job succeeded."""
    with Client() as genba:
        asked = {"procedure_id": procedure_id, "videos": [{"video_id": video_id} for video_id in video_ids]}
        # Sent again after a lost answer, the same key gives the same job, never a second one.
        job = genba.request("POST", "/v1/sop/evaluations/batch", json=asked, idempotency_key=fresh_key())
        done = genba.jobs.wait(job["id"], on_event=lambda event: print(event.kind, event.data))
        page = genba.request("GET", "/v1/sop/evaluations", params={"procedure_id": procedure_id})
    for evaluation in page["items"]:
        print(f"{evaluation['video_id']}  {evaluation['score']:5.1f}  {evaluation['verdict']}")
    print(f"{done.id} {done.status}")
    return 0 if done.succeeded else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
