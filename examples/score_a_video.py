"""Register a procedure with its gold videos, score a trainee's video, save the report."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
import yaml


def main(steps_file: str, trainee: str) -> int:
    """Exit code 0 when the trainee passes."""
    headers = {"authorization": f"Bearer {os.environ['GENBA_API_KEY']}"}
    with httpx.Client(base_url=os.environ["GENBA_URL"], headers=headers, timeout=300, trust_env=False) as genba:
        procedure = yaml.safe_load(Path(steps_file).read_text(encoding="utf-8"))
        for gold in procedure["golds"]:
            gold["video"] = upload(genba, Path(steps_file).parent / gold["video"])
        made = checked(genba.post("/v1/sop/procedures", json=procedure))
        asked = {"procedure_id": made["id"], "video_id": upload(genba, Path(trainee))}
        # Sent again after a lost answer, the same key gives the same evaluation, never a second one.
        key = {"idempotency-key": str(uuid.uuid4())}
        evaluation = checked(genba.post("/v1/sop/evaluations", json=asked, headers=key))
        print(f"procedure {made['id']}: {evaluation['verdict']} with {evaluation['score']:.1f}")
        for deviation in evaluation["deviations"]:
            print(f"  {deviation['start_s']:6.1f} s  {deviation['kind']:<10} {deviation['step_id'] or ''}")
        report = genba.get(f"/v1/sop/evaluations/{evaluation['id']}/report")
        Path("report.html").write_bytes(report.raise_for_status().content)
    return 0 if evaluation["verdict"] == "pass" else 1


def upload(genba: httpx.Client, video: Path) -> str:
    """The id of an ingested video; the same file again gives the same id."""
    with video.open("rb") as file:
        return str(checked(genba.post("/v1/sop/videos", files={"file": (video.name, file, "video/mp4")}))["id"])


def checked(answer: httpx.Response) -> Any:
    """The answer, or the problem document's own words."""
    if answer.is_error:
        problem = answer.json()
        sys.exit(f"{problem['title']} {problem['detail']} (request {problem['request_id']})")
    return answer.json()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
