"""Register masters, classify particles, print what each is held for and why a person should look.

Both folders hold a folder of views for each particle; a master's is named after its label, as in ``needle-3``.
``genba sem demo-particles --out FOLDER`` draws such a set.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from genba_gateway.client import Client, Refused, fresh_key


def main(masters: str, batch: str) -> int:
    """Exit code 1 when a person should look at some."""
    with Client(timeout_s=300) as genba:
        known = {label["name"]["en"]: label["id"] for label in genba.request("GET", "/v1/sem/labels")["items"]}
        for folder in folders(masters):
            name = folder.name.rpartition("-")[0]
            if name not in known:
                known[name] = genba.request("POST", "/v1/sem/labels", json={"name": {"en": name, "ja": name}})["id"]
            send(genba, folder, master_of=known[name])
        particles = [send(genba, folder) for folder in folders(batch)]
    for particle in particles:
        label = particle["label"]["name"]["en"] if particle["label"] else "–"
        why = "; ".join(reason["en"] for reason in particle["reasons"])
        print(f"{particle['name']:<10} {label:<10} {particle['status']:<14} {why}")
    return int(any(particle["status"] != "confirmed" for particle in particles))


def folders(path: str) -> list[Path]:
    """One for each particle."""
    return sorted(each for each in Path(path).iterdir() if each.is_dir())


def send(genba: Client, folder: Path, **fields: object) -> Any:
    """A particle's views in one form. Sent again after a lost answer, the same key gives the same particle."""
    views = [("views", file) for file in sorted(folder.iterdir())]
    return genba.form("/v1/sem/particles", files=views, name=folder.name, idempotency_key=fresh_key(), **fields)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except Refused as refused:
        sys.exit(str(refused))
