"""A batch of particles as one job, its worker killed -9 in the middle: none lost, none doubled, memory flat, and what the rest costs.

    python benchmarks/sem_job.py [--particles 300] [--views 6] [--side-px 128]

Masters and the batch are drawn by the generator: 64 solids photographed from many sides, every file of the batch with bytes of its own
(a text beside the pixels). The batch is read from a folder, stored and decided by the runner in a process of its own over embedded storage,
as ``genba up`` runs it. A lab without a promoted lane has three phases (files brought in, all looked at, all decided) and -9 comes in the
middle of the second and of the third. Then the tables are counted: every particle must be there once, with one decision.
Speed is that of all attempts in their stride, phase by phase, beside the encoder alone on the same files by as many threads just before
and after: ``describe`` alone (pixels and outline are there), and all that is seen of a picture (decode, outline, quality, descriptors).
CPU seconds an image are the figure to trust on a busy machine. Exit 1 if a particle is lost or doubled.

The full size is ``--particles 100000``: 600,000 images, some 25 GB below TMPDIR, and hours (CPU ms an image say how many).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
from sqlalchemy import exists, func, select
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
LOOK_S_EACH = 1e-4  # a look counts all particles: so much longer for each of them
PHASES = ("brought in", "looked at", "decided")
KILL_AT = (1.5, 2.5)  # phases done, by all particles
MEMORY_LINES = 12
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
    every = [shot for _, shots in solids for shot in shots]
    return masters, every[:: max(1, len(every) // ENCODER_SAMPLE)][:ENCODER_SAMPLE]  # of all solids, as the batch is


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


@dataclass(frozen=True)
class Look:
    """What was seen of a worker at a moment. done: particles through each of ``PHASES``."""

    at_s: float
    done: tuple[int, int, int]
    resident_bytes: int
    cpu_s: float


@dataclass
class Attempt:
    """What was seen of one worker until the end, by -9 or by itself."""

    looks: list[Look] = field(default_factory=list)
    killed: bool = False


@dataclass
class Stride:
    """What a phase took, without start-ups."""

    particles: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0


def strides(attempts: Sequence[Attempt]) -> list[Stride]:
    """One for each phase. Time in which nothing advances counts to the phase that advances next, but for a worker's start."""
    found = [Stride() for _ in PHASES]
    for looks in (each.looks for each in attempts):
        start = None
        for before, after in itertools.pairwise(looks):
            advanced = [now - then for then, now in zip(before.done, after.done, strict=True)]
            if not any(advanced):
                continue
            if start is not None:
                phase = advanced.index(max(advanced))
                found[phase].particles += advanced[phase]
                found[phase].seconds += after.at_s - start.at_s
                found[phase].cpu_s += after.cpu_s - start.cpu_s
            start = after
    return found


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


def done(database: Database) -> tuple[int, int, int]:
    """Particles of the batch through each phase."""
    batch = select(func.count()).select_from(ParticleRow).where(ParticleRow.batch == BATCH)
    looked = exists().where(
        ViewRow.particle_id == ParticleRow.id, ViewRow.position == 0, ViewRow.described_by.is_not(None)
    )
    with database.read() as session:
        counts = [
            session.scalar(each) or 0
            for each in (batch, batch.where(looked), batch.where(ParticleRow.status != "waiting"))
        ]
    return counts[0], counts[1], counts[2]


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


def attempt(home: Path, job_id: str, database: Database, *, kill_at: float | None, look_s: float) -> Attempt:
    """Start a worker, watch it, and kill it once so many particles have gone through a phase, all phases together."""
    seen = Attempt()
    argv = [sys.executable, __file__, "--worker", str(home), job_id]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            look = Look(time.perf_counter(), done(database), *spent(watched))
            if look.resident_bytes:
                seen.looks.append(look)
            if kill_at is not None and sum(look.done) >= kill_at:
                process.kill()
                seen.killed = True
                break
            time.sleep(look_s)
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


def memory_lines(attempts: Sequence[Attempt]) -> Iterator[str]:
    """Resident memory as the batch grows, and its slope in each phase of the attempts that had time for it."""
    looks = [look for each in attempts for look in each.looks]
    yield "| particles brought in, looked at, decided | MiB of worker and decoders |\n|---|---|"
    for at in sorted({round(k) for k in np.linspace(0, len(looks) - 1, MEMORY_LINES)}):
        yield f"| {' / '.join(f'{count:,}' for count in looks[at].done)} | {looks[at].resident_bytes / 2**20:.0f} |"
    for number, each in enumerate(attempts, start=1):
        for phase, words in enumerate(PHASES):
            moved = [
                after for before, after in itertools.pairwise(each.looks) if after.done[phase] > before.done[phase]
            ]
            if len(moved) > MEMORY_LINES:
                at, mib = [look.done[phase] for look in moved], [look.resident_bytes / 2**20 for look in moved]
                yield f"Attempt {number}, {words}: {1000 * np.polyfit(at, mib, 1)[0]:+.1f} MiB per 1,000 particles."


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
    for phases in (*KILL_AT, None):
        kill_at = None if phases is None else phases * particles
        attempts.append(attempt(home, job.id, database, kill_at=kill_at, look_s=max(LOOK_S, LOOK_S_EACH * particles)))
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
    print("\n".join(memory_lines(attempts)))
    good = found.status == "succeeded" and (on_record, lost, doubled) == (particles, 0, 0)
    return 0 if good else 1


def _free(jobs: Jobs, job_id: str) -> bool:
    job = jobs.peek(job_id)
    return job is None or job.lease_expires_at is None or job.lease_expires_at.timestamp() < time.time() - 0.2


def _print(
    job: Any, attempts: Sequence[Attempt], before: dict[str, Alone], after: dict[str, Alone], views: int
) -> None:
    found = strides(attempts)
    killed = "; ".join(" / ".join(f"{count:,}" for count in each.looks[-1].done) for each in attempts if each.killed)
    result = job.result["value"]["by_status"] if job.result else job.error
    print(f"job {job.status} at attempt {job.attempt}; killed -9 with {killed} {', '.join(PHASES)}; {result}\n")
    print("| | images/s | CPU ms an image | end to end against it, by clock | by CPU |\n|---|---|---|---|---|")
    second, cpu_s = 0.0, 0.0
    for phase, stride in zip(PHASES, found, strict=True):
        images = max(1, stride.particles * views)
        second, cpu_s = second + stride.seconds / images, cpu_s + stride.cpu_s / images
        rate = images / stride.seconds if stride.seconds else float("nan")
        print(f"| job, {phase} ({images:,} images) | {rate:.1f} | {1000 * stride.cpu_s / images:.1f} | | |")
    per_s = 1 / second
    print(f"| job, end to end | {per_s:.1f} | {1000 * cpu_s:.1f} | | |")
    for what, words in (("see", "decode, outline, quality, descriptors"), ("describe", "descriptors alone")):
        rate = statistics.mean(each[what].per_s for each in (before, after))
        cost = statistics.mean(each[what].cpu_s for each in (before, after))
        print(f"| {words} | {rate:.1f} | {1000 * cost:.1f} | {per_s / rate:.0%} | {cost / cpu_s:.0%} |")
    print()


if __name__ == "__main__":
    main()
