"""A batch of particles as one job, its worker killed -9 twice: none lost, none doubled, memory flat, and what the rest costs.

    python benchmarks/sem_job.py [--particles 300] [--views 6] [--side-px 128]

Masters and the batch are drawn by the generator: 64 solids photographed from many sides, every file of the batch with bytes of its own
(a text beside the pixels). The batch is read from a folder, stored and decided by the runner in a process of its own over embedded storage,
as ``genba up`` runs it; -9 comes at a third and at two thirds. Then the tables are counted: every particle must be there once, with
one decision. Speed is images a second while the last worker is in its stride, beside the encoder alone on the same files in the same
process count just before and after: ``describe`` alone (pixels and outline are there), and all that is seen of a picture (decode, outline,
quality, descriptors). CPU seconds an image are the figure to trust on a busy machine. Exit 1 if a particle is lost or doubled.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
from sqlalchemy import func, select
from starlette.testclient import TestClient

from genba_sem import generator
from genba_sem.app import create_app
from genba_sem.encoders import HlgShape
from genba_sem.lane import see
from genba_sem.micrograph import Limits, read_view
from genba_sem.segment import find_particle
from genba_sem.settings import Settings
from genba_sem.tables import DecisionRow, ParticleRow, ViewRow
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.jobs import Jobs
from genba_shared.principal import PRINCIPAL_HEADER, Clearance, Principal, scopes_of, sign
from genba_shared.settings import Platform
from genba_training.recipes import load
from genba_training.runner import Runner
from genba_training.settings import Settings as TrainingSettings

SOURCES = ("genba_sem.training:RECIPES",)
BATCH = "bench"
KINDS = ("sphere", "needle", "cube", "plate")
SOLIDS, SIDES = 64, 12
LEASE_S, LOOK_S = 5.0, 0.5
KILL_AT = (1 / 3, 2 / 3)
WARM_UP = 16  # particles
ENCODER_SAMPLE = 120
ENGINEER = Principal("benchmark", ("engineer",), scopes_of(("engineer",)), Clearance.INTERNAL)


def pictures(kind: str, rng: np.random.Generator, *, sides: int, side_px: int) -> list[bytes]:
    """One solid from many sides, as PNG without a banner."""
    solid = generator.make_particle(kind, rng)
    plain = generator.Condition(banner=False)
    shots = [generator.photograph(solid, rng, side_px=side_px, condition=plain) for _ in range(sides)]
    return [bytes(cv2.imencode(".png", np.asarray(shot.pixels * 255, np.uint8))[1].tobytes()) for shot in shots]


def with_text(png: bytes, text: str) -> bytes:
    """The same picture in other bytes: a tEXt chunk before the end."""
    body = b"tEXt" + b"Comment\0" + text.encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:-12] + chunk + png[-12:]


def draw(
    folder: Path, *, particles: int, views: int, side_px: int
) -> tuple[list[tuple[str, list[bytes]]], list[bytes]]:
    """The batch as subfolders; masters by kind, and some of the batch's pictures."""
    rng = np.random.default_rng(11)
    solids = [
        (KINDS[k % len(KINDS)], pictures(KINDS[k % len(KINDS)], rng, sides=SIDES, side_px=side_px))
        for k in range(min(SOLIDS, particles))
    ]
    for number in range(particles):
        _, shots = solids[number % len(solids)]
        home = folder / f"p-{number:06d}"
        home.mkdir(parents=True)
        for view, at in enumerate(rng.permutation(SIDES)[:views]):
            (home / f"{view}.png").write_bytes(with_text(shots[at], f"{number} {view}"))
    masters = [(kind, pictures(kind, rng, sides=views, side_px=side_px)) for kind in KINDS for _ in range(5)]
    return masters, [shot for _, shots in solids for shot in shots][:ENCODER_SAMPLE]


def register(app_settings: Settings, masters: Sequence[tuple[str, list[bytes]]]) -> None:
    """Labels and masters over HTTP."""
    secret = app_settings.platform.load_principal_secret()
    with TestClient(create_app(app_settings)) as client:

        def post(path: str, **sent: Any) -> Any:
            answer = client.post(path, headers={PRINCIPAL_HEADER: sign(ENGINEER, secret)}, **sent)
            answer.raise_for_status()
            return answer.json()

        labels = {}
        for kind in KINDS:
            labels[kind] = post("/v1/sem/labels", json={"name": {"en": kind, "ja": kind}})["id"]
        for number, (kind, shots) in enumerate(masters):
            files = [("views", (f"{k}.png", shot, "image/png")) for k, shot in enumerate(shots)]
            said = {"name": f"master {number}", "master_of": labels[kind]}
            post("/v1/sem/particles", files=files, data=said)


def work(home: str, job_id: str) -> None:
    """What the killed process does: one attempt at the job."""
    platform = Platform(home=Path(home))
    settings = TrainingSettings(platform=platform, recipes=SOURCES, lease_s=LEASE_S, heartbeat_s=1.0)
    jobs = Jobs(Database(platform.database_url))
    recipes = load(settings.recipes)
    artifacts = Artifacts(platform.artifacts_url)
    Runner(jobs=jobs, recipes=recipes, artifacts=artifacts, settings=settings, owner="worker").run(job_id)


@dataclass
class Attempt:
    """What was seen of one worker: (moment s, decided, resident bytes, CPU s), the end by -9 or by itself."""

    looks: list[tuple[float, int, int, float]] = field(default_factory=list)
    killed: bool = False

    def stride(self) -> list[tuple[float, int, int, float]]:
        """Without start-up, and without the last looks, in which nothing is left to decide."""
        first, last = self.looks[0][1], self.looks[-1][1]
        return [look for look in self.looks if first + WARM_UP <= look[1] < last] or self.looks[-2:]


@dataclass(frozen=True)
class Alone:
    """Images a second by so many threads, and CPU seconds an image."""

    per_s: float
    cpu_s: float


def alone(shots: Sequence[bytes], threads: int, *, what: str) -> Alone:
    """The encoder by itself: ``describe`` on pictures that are decoded and outlined, or all that is seen of a picture."""
    encoder, limits = HlgShape({}), Limits()
    decoded = [read_view(shot, limits=limits) for shot in shots]
    outlined = [(view.pixels, find_particle(view.pixels).mask) for view in decoded]

    def describe(at: int) -> None:
        encoder.describe(*outlined[at])

    def seen(at: int) -> None:
        see(read_view(shots[at], limits=limits), encoder)

    step: Callable[[int], None] = describe if what == "describe" else seen
    step(0)
    with ThreadPoolExecutor(threads) as pool:
        started_s, cpu_s = time.perf_counter(), time.process_time()
        list(pool.map(step, range(len(shots))))
        return Alone(len(shots) / (time.perf_counter() - started_s), (time.process_time() - cpu_s) / len(shots))


def decided(database: Database) -> int:
    with database.read() as session:
        done = (
            select(func.count())
            .select_from(ParticleRow)
            .where(ParticleRow.batch == BATCH, ParticleRow.status != "waiting")
        )
        return session.scalar(done) or 0


def spent(watched: psutil.Process) -> tuple[int, float]:
    """Resident bytes and CPU seconds of a process and of the children that decode for it."""
    memory, cpu_s = 0, 0.0
    try:
        family = [watched, *watched.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0, 0.0
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            memory, cpu_s = memory + member.memory_info().rss, cpu_s + times.user + times.system
    return memory, cpu_s


def attempt(home: Path, job_id: str, database: Database, *, kill_at: int | None) -> Attempt:
    """Start a worker, watch it, and kill it once so many are decided."""
    seen = Attempt()
    argv = [sys.executable, __file__, "--worker", str(home), job_id]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            count = decided(database)
            seen.looks.append((time.perf_counter(), count, *spent(watched)))
            if kill_at is not None and count >= kill_at:
                process.kill()
                seen.killed = True
                break
            time.sleep(LOOK_S)
    return seen


def counted(database: Database) -> tuple[int, int, int, int]:
    """Particles on record, with no decision, with more than one; views on record."""
    with database.read() as session:
        query = (
            select(ParticleRow.id, func.count(DecisionRow.id))
            .outerjoin(DecisionRow)
            .where(ParticleRow.batch == BATCH)
            .group_by(ParticleRow.id)
        )
        each = [count for _, count in session.execute(query)]
        views = select(func.count()).select_from(ViewRow).join(ParticleRow, ParticleRow.id == ViewRow.particle_id)
        return (
            len(each),
            each.count(0),
            sum(count > 1 for count in each),
            (session.scalar(views.where(ParticleRow.batch == BATCH)) or 0),
        )


def memory_line(attempts: Sequence[Attempt]) -> str:
    """Resident memory of the last worker, in thirds of its stride, and how it grew with particles."""
    stride = attempts[-1].stride()
    thirds = [stride[k * len(stride) // 3 : (k + 1) * len(stride) // 3] for k in range(3)]
    middle = [statistics.median(look[2] for look in third) / 2**20 if third else float("nan") for third in thirds]
    slope = (
        np.polyfit([look[1] for look in stride], [look[2] / 2**20 for look in stride], 1)[0]
        if len(stride) > 2
        else np.nan
    )
    return f"{middle[0]:.0f} / {middle[1]:.0f} / {middle[2]:.0f} MiB by thirds; {1000 * slope:+.1f} MiB per 1,000 particles"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--particles", type=int, default=300)
    options.add_argument("--views", type=int, default=6)
    options.add_argument("--side-px", type=int, default=128)
    options.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    said = options.parse_args()
    if said.worker:
        work(*said.worker)
        return
    with tempfile.TemporaryDirectory(prefix="genba-sem-job-") as folder:
        sys.exit(run(Path(folder), said.particles, said.views, said.side_px))


def run(folder: Path, particles: int, views: int, side_px: int) -> int:
    home, share = folder / "home", folder / "share"
    os.environ["GENBA_SEM_IMPORT_DIR"] = str(share)
    settings = Settings(platform=Platform(home=home, log_level="warning"), sweep_every_s=3600.0)
    started_s = time.perf_counter()
    masters, shots = draw(share / "run", particles=particles, views=views, side_px=side_px)
    register(settings, masters)
    threads = settings.classify_workers
    print(
        f"{particles:,} particles × {views} views of {side_px} px; {threads} threads; drawn in {time.perf_counter() - started_s:.0f} s"
    )
    before = {what: alone(shots, threads, what=what) for what in ("describe", "see")}
    database = Database(settings.platform.database_url)
    params: dict[str, Any] = {"batch": BATCH, "folder": "run"}
    jobs = Jobs(database)
    job = jobs.submit("sem.classify", params, principal=ENGINEER, idempotency_key=None)
    attempts = []
    for share_done in (*KILL_AT, None):
        attempts.append(
            attempt(home, job.id, database, kill_at=None if share_done is None else round(share_done * particles))
        )
        while attempts[-1].killed and not _free(jobs, job.id):
            time.sleep(0.2)
    after = {what: alone(shots, threads, what=what) for what in ("describe", "see")}
    found = jobs.peek(job.id)
    if found is None:
        raise SystemExit("The job is gone.")
    on_record, lost, doubled, stored = counted(database)
    _print(found, attempts, before, after, views)
    print("| on record | without a decision | with more than one | views on record |\n|---|---|---|---|")
    print(f"| {on_record:,} of {particles:,} | {lost} | {doubled} | {stored:,} of {particles * views:,} |\n")
    print(f"Memory of worker and decoders: {memory_line(attempts)}")
    good = found.status == "succeeded" and (on_record, lost, doubled) == (particles, 0, 0)
    return 0 if good else 1


def _free(jobs: Jobs, job_id: str) -> bool:
    job = jobs.peek(job_id)
    return job is None or job.lease_expires_at is None or job.lease_expires_at.timestamp() < time.time() - 0.2


def _print(
    job: Any, attempts: Sequence[Attempt], before: dict[str, Alone], after: dict[str, Alone], views: int
) -> None:
    stride = attempts[-1].stride()
    first, last = stride[0], stride[-1]
    images = (last[1] - first[1]) * views
    per_s, cpu_s = images / (last[0] - first[0]), (last[3] - first[3]) / images
    killed = ", ".join(f"{each.looks[-1][1]:,}" for each in attempts if each.killed)
    result = job.result["value"]["by_status"] if job.result else job.error
    print(f"job {job.status} at attempt {job.attempt}; killed -9 with {killed} decided; {result}\n")
    print("| | images/s | CPU ms an image | end to end against it, by clock | by CPU |\n|---|---|---|---|---|")
    print(f"| job, end to end ({images:,} images of the last attempt) | {per_s:.1f} | {1000 * cpu_s:.1f} | | |")
    for what, words in (("see", "decode, outline, quality, descriptors"), ("describe", "descriptors alone")):
        rate = statistics.mean(each[what].per_s for each in (before, after))
        cost = statistics.mean(each[what].cpu_s for each in (before, after))
        print(f"| {words} | {rate:.1f} | {1000 * cost:.1f} | {per_s / rate:.0%} | {cost / cpu_s:.0%} |")
    print()


if __name__ == "__main__":
    main()
