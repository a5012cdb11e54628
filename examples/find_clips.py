"""Search clips by words: step names, tools and titles, in English or Japanese."""

from __future__ import annotations

import os
import sys

import httpx


def main(words: str) -> int:
    """Exit code 1 when nothing is found."""
    headers = {"authorization": f"Bearer {os.environ['GENBA_API_KEY']}"}
    with httpx.Client(base_url=os.environ["GENBA_URL"], headers=headers, timeout=60, trust_env=False) as genba:
        found = genba.post("/v1/sop/search", json={"text": words, "k": 5}).raise_for_status().json()
    for hit in found["hits"]:
        name = hit["step_name"]["en"] if hit["step_name"] else hit["video_title"]
        print(f"{hit['score']:.2f}  {hit['video_id']}  {hit['start_s']:6.1f}–{hit['end_s']:.1f} s  {name}")
    return 0 if found["hits"] else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
