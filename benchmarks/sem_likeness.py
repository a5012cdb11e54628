"""Search by likeness: the vector store beside reading every record, over embedded storage.

    python benchmarks/sem_likeness.py [--particles 100000] [--dim 40]

Particles are drawn around 200 centres, with decisions as long as real ones. Both answer the same 20 queries, with and without a filter.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import insert

from genba_sem import search
from genba_sem.likeness import Likeness
from genba_sem.tables import ParticleRow
from genba_shared.db import Database, utc_now
from genba_shared.principal import Clearance, Principal
from genba_shared.settings import Platform
from genba_shared.vectors import open_vectors

READER = Principal("benchmark", (), frozenset(), Clearance.INTERNAL)
CENTRES, QUERIES, K, BATCH, LABELS = 200, 20, 20, 2000, 10


def populate(database: Database, particles: int, dim: int) -> npt.NDArray[np.float32]:
    """Fill the table; queries (QUERIES, dim)."""
    rng, moment = np.random.default_rng(0), utc_now()
    centres = rng.normal(size=(CENTRES, dim))
    rows = (centres[rng.integers(CENTRES, size=particles)] + 0.7 * rng.normal(size=(particles, dim))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    shared: dict[str, Any] = {
        "tenant": "default", "clearance": 1, "created_at": moment, "created_by": "benchmark", "version": 1, "role": "sample",
        "batch": "b", "note": "", "tags": [], "dropped": [], "scaling": {}, "view_count": 6, "encoder": "e", "shape": {},
        "covered": False, "status": "confirmed", "decided_by": "model", "confidence": 0.9, "reasons": [], "in_queue": False,
        "priority": 0.0, "decision": {"as long as": "a real one " * 200}, "decided_in": None, "updated_at": moment - timedelta(hours=1),
    }  # fmt: skip
    for start in range(0, particles, BATCH):
        page = [
            {
                "id": f"par_{at:08d}",
                "name": f"{at}",
                "label_id": f"lab_{at % LABELS}",
                "vector": rows[at].tobytes(),
                **shared,
            }
            for at in range(start, min(start + BATCH, particles))
        ]
        with database.transaction() as session:
            session.execute(insert(ParticleRow), page)
    return rows[rng.integers(particles, size=QUERIES)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--particles", type=int, default=100_000)
    options.add_argument("--dim", type=int, default=40)
    said = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="genba-sem-likeness-") as folder:
        platform = Platform(home=Path(folder))
        database = Database(platform.database_url)
        database.upgrade()
        queries = populate(database, said.particles, said.dim)
        likeness = Likeness(lambda: open_vectors(platform), database)
        started_s = time.process_time()
        likeness.follow("default", "e")
        print(f"{said.particles:,} vectors of {said.dim} copied in {time.process_time() - started_s:.1f} CPU-seconds\n")
        print("| | records, CPU ms | vector store, CPU ms | of the records' nearest found |\n|---|---|---|---|")
        for words, where, kept in (
            ("all", [], {}),
            ("one label of ten", [ParticleRow.label_id == "lab_3"], {"label_id": "lab_3"}),
        ):
            spent, met = np.zeros(2), 0
            with database.read() as session:
                for query in queries:
                    at_s = time.process_time()
                    truth = search.by_vector(session, READER, query, encoder="e", where=where)[:K]
                    then_s = time.process_time()
                    found = likeness.nearest(session, READER, query, space="e", k=K, where=where, kept=kept)
                    spent += (then_s - at_s, time.process_time() - then_s)
                    met += len({each.particle_id for each in truth} & {each.particle_id for each in found or []})
            records_ms, store_ms = 1000 * spent / QUERIES
            print(f"| {words} | {records_ms:.1f} | {store_ms:.1f} | {met / QUERIES / K:.1%} |")
        likeness.close()
        database.close()


if __name__ == "__main__":
    main()
