"""Send a catalogue and what people did, print a list for one of them and why, like its first item, print the next list.

The file holds ``items``, ``users`` and ``events``, each a list of rows as the routes take them; only ids are needed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from genba_gateway.client import Client, Refused, fresh_key

ROWS_AT_ONCE = 5000


def main(file: str, user_id: str) -> int:
    """Exit code 1 when rows were rejected; the others are kept."""
    rows: dict[str, list[Any]] = json.loads(Path(file).read_text(encoding="utf-8"))
    rejected = 0
    with Client() as genba:
        for kind in ("items", "users", "events"):
            for at in range(0, len(rows.get(kind, [])), ROWS_AT_ONCE):
                part = {kind: rows[kind][at : at + ROWS_AT_ONCE]}
                # An event's id is the sender's own: what is sent twice counts once.
                said = genba.request("POST" if kind == "events" else "PUT", f"/v1/recommend/{kind}", json=part)
                for row in said["rejected"]:
                    print(f"{kind} {at + row['index']}: {row['errors']}")
                rejected += len(said["rejected"])
        first = show(genba, user_id)
        if first:
            like = {"event_id": fresh_key(), "user_id": user_id, "item_id": first[0]["item_id"], "kind": "like"}
            genba.request("POST", "/v1/recommend/events", json={"events": [like]})
            print(f"after liking {like['item_id']}:")
            show(genba, user_id)
    return int(rejected > 0)


def show(genba: Client, user_id: str) -> list[Any]:
    """Print a list; its items."""
    made = genba.request("GET", f"/v1/recommend/users/{user_id}/items", params={"k": 5})
    for item in made["items"]:
        print(f"  {item['item_id']:<12} {item['reasons'][0]['en'] if item['reasons'] else ''}")
    return list(made["items"])


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except Refused as refused:
        sys.exit(str(refused))
