"""JSON lines on their way through a long job: written in shards that are safe once they are named, read back one by one.

A shard goes to the artifact store as soon as it is full, and the checkpoint names it: a job that is killed loses the
shard it was writing and nothing else. The bytes depend on the rows alone, so that two runs give the same keys.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genba_llm.refused import Refused
from genba_shared.artifacts import Artifacts

ROWS_PER_SHARD = 20_000


class UnreadableShard(Refused):
    """A shard is not what its name says."""


@dataclass
class ShardWriter:
    """Collects rows and stores every ``rows_per_shard`` of them. ``keys`` are the shards stored so far."""

    artifacts: Artifacts
    folder: Path
    keys: list[str] = field(default_factory=list)
    rows_per_shard: int = ROWS_PER_SHARD
    _rows: list[bytes] = field(default_factory=list)

    def add(self, row: Mapping[str, Any]) -> bool:
        """Take a row; True when it filled a shard, which is stored now."""
        line = json.dumps(row, ensure_ascii=False, sort_keys=True)
        self._rows.append(line.encode("utf-8", "replace"))  # crawled JSON holds halves of surrogate pairs
        if len(self._rows) < self.rows_per_shard:
            return False
        self.flush()
        return True

    def flush(self) -> None:
        """Store what is left."""
        if not self._rows:
            return
        path = self.folder / f"shard-{len(self.keys):06d}.jsonl.gz"
        path.write_bytes(gzip.compress(b"\n".join(self._rows) + b"\n", compresslevel=6, mtime=0))
        self.keys.append(self.artifacts.put(path, suffix=".jsonl.gz"))
        path.unlink()
        self._rows.clear()


def read_shards(artifacts: Artifacts, keys: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row with the place it stands at, ``<first digits of the key>:<line>``.

    Raises: NotFound; UnreadableShard for what is no JSON lines, or a line that is no object.
    """
    for key in keys:
        path, short = artifacts.local_path(key), Path(key).name[:12]
        try:
            with gzip.open(path, "rb") if key.endswith(".gz") else path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield f"{short}:{number}", _object(line, f"{short}:{number}")
        except (EOFError, gzip.BadGzipFile, zlib.error) as err:
            message = f"{short} is no readable shard: {err}"
            raise UnreadableShard(message) from err


def _object(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as err:
        message = f"{place}: no JSON: {err}"
        raise UnreadableShard(message) from err
    if not isinstance(row, dict):
        message = f"{place}: an object is wanted."
        raise UnreadableShard(message)
    return row


def batches(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """``rows`` in lists of ``size``."""
    batch: list[Any] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
