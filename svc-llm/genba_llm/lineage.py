"""Where a bundle is from, as a chain that can be checked: data → base → adapter → burnt weights → GGUF → calibration.

Every link names what it is by the SHA-256 of its bytes, and holds the hash of the link before: whoever has the bundle can
see that nothing in between was exchanged. Lies in ``lineage.json`` beside ``bundle.json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

LINEAGE = "lineage.json"


@dataclass(frozen=True)
class Link:
    """One step. ``sha256`` is of what it made, ``before`` of the step before (empty for the first)."""

    step: str
    sha256: str
    before: str
    files: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """SHA-256 over the link itself, by which the next one names it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def sha256_of_files(folder: Path, names: Iterable[str]) -> str:
    """SHA-256 over names and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\n".encode())
        with (folder / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def read(folder: Path) -> list[Link]:
    """The chain of a bundle. Raises: ValueError for a bundle that has none."""
    try:
        found = json.loads((folder / LINEAGE).read_text("utf-8"))
        return [Link(each["step"], each["sha256"], each["before"], tuple(each["files"])) for each in found]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"The bundle has no lineage that can be read: {error}") from error


def begin(folder: Path, *, data: str, base: str) -> None:
    """The chain's first two links, for hashes of what is not in the bundle."""
    first = Link("data", data, "")
    _write(folder, [first, Link("base", base, first.hash)])


def extend(folder: Path, step: str, names: Iterable[str]) -> None:
    """Add a link over files of the bundle, if there are any; a link of the same step is replaced with all that follow it."""
    files = tuple(sorted(names))
    if not files:
        return
    chain = read(folder)
    known = [link.step for link in chain]
    if step in known:
        chain = chain[: known.index(step)]
    _write(folder, [*chain, Link(step, sha256_of_files(folder, files), chain[-1].hash, files)])


def broken(folder: Path) -> str | None:
    """The first step whose bytes or predecessor are not what the chain says; None when it holds. Raises: ValueError."""
    before = ""
    for link in read(folder):
        missing = [name for name in link.files if not (folder / name).is_file()]
        if link.before != before or missing or (link.files and sha256_of_files(folder, link.files) != link.sha256):
            return link.step
        before = link.hash
    return None


def _write(folder: Path, chain: Iterable[Link]) -> None:
    (folder / LINEAGE).write_text(json.dumps([asdict(link) for link in chain], indent=1), "utf-8")
