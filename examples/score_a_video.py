"""Register a procedure with its gold videos, score a trainee's video, save the report."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from genba_gateway.client import Client, Refused, fresh_key


def main(steps_file: str, trainee: str) -> int:
    """Exit code 0 when the trainee passes."""
    with Client(timeout_s=300) as genba:
        procedure = yaml.safe_load(Path(steps_file).read_text(encoding="utf-8"))
        for gold in procedure["golds"]:
            gold["video"] = upload(genba, Path(steps_file).parent / gold["video"])
        # Sent again after a lost answer, the same key gives the same procedure and evaluation, never a second one.
        made = genba.request("POST", "/v1/sop/procedures", json=procedure, idempotency_key=fresh_key())
        asked = {"procedure_id": made["id"], "video_id": upload(genba, Path(trainee))}
        evaluation = genba.request("POST", "/v1/sop/evaluations", json=asked, idempotency_key=fresh_key())
        print(f"procedure {made['id']}: {evaluation['verdict']} with {evaluation['score']:.1f}")
        for deviation in evaluation["deviations"]:
            print(f"  {deviation['start_s']:6.1f} s  {deviation['kind']:<10} {deviation['step_id'] or ''}")
        genba.download(f"/v1/sop/evaluations/{evaluation['id']}/report", Path("report.html"))
    return 0 if evaluation["verdict"] == "pass" else 1


def upload(genba: Client, video: Path) -> str:
    """The id of an ingested video; the same file again gives the same id."""
    return str(genba.upload("/v1/sop/videos", video, content_type="video/mp4", params={"title": video.name})["id"])


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except Refused as refused:
        sys.exit(str(refused))
