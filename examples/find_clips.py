"""Search clips by words: step names, tools and titles, in English or Japanese."""

from __future__ import annotations

import sys

from genba_gateway.client import Client


def main(words: str) -> int:
    """Exit code 1 when nothing is found."""
    with Client() as genba:
        found = genba.request("POST", "/v1/sop/search", json={"text": words, "k": 5})
    for hit in found["hits"]:
        name = hit["step_name"]["en"] if hit["step_name"] else hit["video_title"]
        print(f"{hit['score']:.2f}  {hit['video_id']}  {hit['start_s']:6.1f}–{hit['end_s']:.1f} s  {name}")
    return 0 if found["hits"] else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
