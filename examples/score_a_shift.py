"""Score a shift's videos as one job and follow it: progress arrives as server-sent events and goes on after a lost connection."""

from __future__ import annotations

import json
import os
import sys
import uuid

import httpx

OVER = {"succeeded", "failed", "cancelled", "dead"}


def main(procedure_id: str, *video_ids: str) -> int:
    """Exit code 0 when the job succeeded."""
    headers = {"authorization": f"Bearer {os.environ['GENBA_API_KEY']}"}
    with httpx.Client(base_url=os.environ["GENBA_URL"], headers=headers, timeout=60, trust_env=False) as genba:
        asked = {"procedure_id": procedure_id, "videos": [{"video_id": video_id} for video_id in video_ids]}
        key = {"idempotency-key": str(uuid.uuid4())}
        job = genba.post("/v1/sop/evaluations/batch", json=asked, headers=key).raise_for_status().json()
        status = follow(genba, job["id"])
        page = genba.get("/v1/sop/evaluations", params={"procedure_id": procedure_id}).raise_for_status().json()
    for evaluation in page["items"]:
        print(f"{evaluation['video_id']}  {evaluation['score']:5.1f}  {evaluation['verdict']}")
    return 0 if status == "succeeded" else 1


def follow(genba: httpx.Client, job_id: str) -> str:
    """Print a job's events until it is over; its last status."""
    last_event_id, status = "", "queued"
    while status not in OVER:
        headers = {"last-event-id": last_event_id} if last_event_id else {}
        try:
            with genba.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as events:
                for line in events.raise_for_status().iter_lines():
                    if line.startswith("id:"):
                        last_event_id = line[3:].strip()
                    elif line.startswith("data:"):
                        print(line[5:].strip())
        except httpx.TransportError as error:
            print(f"connection lost ({error}); going on after event {last_event_id or 'none'}", file=sys.stderr)
        status = genba.get(f"/v1/jobs/{job_id}").raise_for_status().json()["status"]
    print(json.dumps({"status": status}))
    return str(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
