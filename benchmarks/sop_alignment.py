"""DTW, soft-DTW and skip alignment against tslearn, aeon, dtw-python and pysdtw: same inputs, one run, one thread.

    make bench-alignment            # or: python benchmarks/sop_alignment.py --frames 200 1000

Every answer is compared to ours to 1e-9 (relative) and the run fails when one differs. *Core* is a library's compiled
loop on a ready cost matrix, with its mask and its output allocated beforehand where it takes them; *call* is its public
function. Ours is always the public function: checks, allocation and path included. What counts is the thread's CPU
time, and contenders take turns, so that a busy machine hurts all alike; each runs twice in its turn and the second is
timed, so that nobody reads what another drove out of the cache. Squared Euclidean distance between unit rows is twice
the cosine cost, which makes the
libraries that only take series (aeon; tslearn from features) comparable: total / 2, and γ doubled.
"""

# ruff: noqa: E402 -- the number of threads must stand before NumPy is imported
from __future__ import annotations

import os

for threads in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[threads] = "1"

import argparse
import contextlib
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from genba_sop import _alignment_numpy, alignment

Floats = npt.NDArray[np.float64]

GAMMA = 0.125  # exact in single precision too: pysdtw rounds its gamma to float32
TOLERANCE = 1e-9
AIMS = {"dtw": 17.0, "soft": 6.0}  # times tslearn on the same matrix at 1000²


@dataclass
class Contender:
    """One way to the number; ``run`` returns it as the total in cosine cost."""

    name: str
    run: Callable[[], float]
    tolerance: float = TOLERANCE
    seconds: list[float] = field(default_factory=list)
    total: float = math.nan


@dataclass
class Round:
    """Contenders for one task; the first is ours."""

    title: str
    contenders: list[Contender]

    def add(self, name: str, run: Callable[[], float], *, tolerance: float = TOLERANCE) -> None:
        self.contenders.append(Contender(name, run, tolerance))

    def ratio(self, name: str) -> float:
        ours = self.contenders[0]
        theirs = next(one for one in self.contenders if one.name == name)
        return min(theirs.seconds) / min(ours.seconds)


def runs_of(frames: int, features: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Two runs through the same seven scenes, the second with other durations and noise; rows of unit length."""
    rng = np.random.default_rng(seed)
    looks = rng.normal(size=(7, features))

    def run(cuts: Floats) -> Floats:
        scene = np.searchsorted(cuts, np.arange(frames) / frames)
        drift = 0.05 * rng.normal(size=(frames, features)).cumsum(axis=0)
        rows = looks[scene] + drift + 0.3 * rng.normal(size=(frames, features))
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    return run(np.sort(rng.random(6))), run(np.sort(rng.random(6)))


def dtw_on_a_matrix(cost: Floats) -> Round:
    result = Round(
        "Hard DTW with path, on the cost matrix", [Contender("genba call", lambda: alignment.dtw(cost).total)]
    )
    with contextlib.suppress(ImportError):
        from tslearn.metrics import dtw_path_from_metric
        from tslearn.metrics._dtw import _njit_acc_matrix_from_dist_matrix, _njit_compute_path

        mask = np.ones(cost.shape, bool)

        def core() -> float:
            accumulated = _njit_acc_matrix_from_dist_matrix(cost, mask)
            _njit_compute_path(accumulated)
            return float(accumulated[-1, -1])

        result.add("tslearn core", core)
        result.add("tslearn call", lambda: float(dtw_path_from_metric(cost, metric="precomputed")[1]))
    with contextlib.suppress(ImportError):
        with quiet():
            from dtw import dtw as dtw_python
        result.add("dtw-python call", lambda: float(dtw_python(cost, step_pattern="symmetric1").distance))
    result.add("genba without numba", lambda: _alignment_numpy.dtw(cost)[1])
    return result


def dtw_from_features(x: Floats, y: Floats) -> Round:
    result = Round(
        f"Hard DTW with path, from {x.shape[1]} features a frame",
        [Contender("genba call", lambda: alignment.dtw(alignment.cosine_cost(x, y)).total)],
    )
    with contextlib.suppress(ImportError):
        from tslearn.metrics import dtw_path

        result.add("tslearn call", lambda: float(dtw_path(x, y)[1]) ** 2 / 2)
    with contextlib.suppress(ImportError):
        from aeon.distances import dtw_alignment_path

        x_series, y_series = np.ascontiguousarray(x.T), np.ascontiguousarray(y.T)
        result.add("aeon call", lambda: float(dtw_alignment_path(x_series, y_series)[1]) / 2)
    with contextlib.suppress(ImportError):
        with quiet():
            from dtw import dtw as dtw_python
        result.add(
            "dtw-python call",
            lambda: float(dtw_python(x, y, dist_method="sqeuclidean", step_pattern="symmetric1").distance) / 2,
        )
    return result


def soft_on_a_matrix(cost: Floats) -> Round:
    result = Round(
        f"Soft-DTW on the cost matrix, γ = {GAMMA}",
        [Contender("genba call", lambda: alignment.soft_dtw(cost, gamma=GAMMA))],
    )
    with contextlib.suppress(ImportError):
        from tslearn.metrics.soft_dtw_fast import _njit_soft_dtw
        from tslearn.metrics.softdtw_variants import SoftDTW

        out = np.zeros((cost.shape[0] + 2, cost.shape[1] + 2))

        def core() -> float:
            _njit_soft_dtw(cost, out, GAMMA)
            return float(out[-2, -2])

        result.add("tslearn core", core)
        result.add("tslearn call", lambda: float(SoftDTW(cost, gamma=GAMMA).compute()))
    with contextlib.suppress(ImportError):
        import pysdtw
        import torch
        from pysdtw.sdtw_cpu import compute_softdtw

        batch, lengths = cost[None], np.array([cost.shape])
        result.add("pysdtw core", lambda: float(compute_softdtw(batch, lengths, GAMMA, 0.0)[0, -2, -2]))
        tensor = torch.from_numpy(cost)[None]
        loss = pysdtw.SoftDTW(gamma=GAMMA, dist_func=lambda *_: tensor, use_cuda=False)
        rows, columns = torch.zeros(1, cost.shape[0], 1), torch.zeros(1, cost.shape[1], 1)
        result.add("pysdtw call (float32 result)", lambda: float(loss(rows, columns)[0]), tolerance=1e-5)
    with contextlib.suppress(ImportError):
        from genba_sop._soft_dtw_numba import soft_log

        result.add("genba log domain", lambda: soft_log(cost, GAMMA))
    result.add("genba without numba", lambda: _alignment_numpy.soft(cost, GAMMA))
    return result


def soft_from_features(x: Floats, y: Floats) -> Round:
    result = Round(
        f"Soft-DTW from {x.shape[1]} features a frame, γ = {GAMMA}",
        [Contender("genba call", lambda: alignment.soft_dtw(alignment.cosine_cost(x, y), gamma=GAMMA))],
    )
    with contextlib.suppress(ImportError):
        from tslearn.metrics import soft_dtw

        result.add("tslearn call", lambda: float(soft_dtw(x, y, gamma=2 * GAMMA)) / 2)
    with contextlib.suppress(ImportError):
        from aeon.distances import soft_dtw_distance

        x_series, y_series = np.ascontiguousarray(x.T), np.ascontiguousarray(y.T)
        result.add("aeon call", lambda: float(soft_dtw_distance(x_series, y_series, gamma=2 * GAMMA)) / 2)
    return result


def skip_on_a_matrix(cost: Floats) -> Round:
    gap = alignment.gap_penalty(cost)
    options = {"gap": gap, "gap_open": 0.3, "stretch": 0.1}
    result = Round(
        "Skip alignment (no library offers one: against NumPy and plain Python)",
        [Contender("genba call", lambda: alignment.skip_align(cost, **options).total)],
    )
    result.add("genba without numba", lambda: _alignment_numpy.skip(cost, gap, 0.3, 0.1)[1])
    if cost.size <= 300**2:
        result.add("Gotoh in plain Python", lambda: gotoh(cost.tolist(), **options))
    return result


def skip_without_skips(cost: Floats) -> Round:
    """With a gap that never pays, skip alignment is hard DTW: the libraries can be asked after all."""
    dear = {"gap": 1e3, "gap_open": 0.0}
    result = dtw_on_a_matrix(cost)
    result.title = "Skip alignment where no skip pays, against hard DTW with path"
    result.contenders[0] = Contender("genba call", lambda: alignment.skip_align(cost, **dear).total)
    return result


def gotoh(cost: list[list[float]], *, gap: float, gap_open: float, stretch: float) -> float:
    """Total by the definition, state by state, written without a look at the kernels."""
    n, m = len(cost), len(cost[0])
    inf = math.inf
    match = [[inf] * (m + 1) for _ in range(n + 1)]
    gold, trainee = [row[:] for row in match], [row[:] for row in match]
    match[0][0] = 0.0
    for i in range(n + 1):
        for j in range(m + 1):
            if i and j:
                diagonal = min(match[i - 1][j - 1], gold[i - 1][j - 1], trainee[i - 1][j - 1])
                beside = min(match[i - 1][j], match[i][j - 1]) if i + j > 2 else inf
                match[i][j] = cost[i - 1][j - 1] + min(diagonal, beside + stretch)
            if i:
                opened = min(match[i - 1][j], trainee[i - 1][j]) + gap_open
                gold[i][j] = gap + min(gold[i - 1][j], opened)
            if j:
                opened = min(match[i][j - 1], gold[i][j - 1]) + gap_open
                trainee[i][j] = gap + min(trainee[i][j - 1], opened)
    return min(match[n][m], gold[n][m], trainee[n][m])


def measure(task: Round, *, budget_s: float) -> None:
    """Let the contenders take turns: 31 times if they are quick, fewer (but three times) past the budget."""
    for one in task.contenders:
        one.total = one.run()  # compiles, allocates, fills the caches
    start_s = time.perf_counter()
    for turn in range(31):
        if turn >= 3 and time.perf_counter() - start_s > budget_s:
            break
        for one in task.contenders:
            one.run()  # the costs lie in the cache, as they do for who has just computed them
            began_s = time.thread_time()
            one.run()
            one.seconds.append(time.thread_time() - began_s)


def table_of(task: Round, frames: int) -> tuple[Table, bool]:
    ours = task.contenders[0]
    table = Table(title=f"{task.title}, {frames}²", title_justify="left")
    table.add_column("")
    for heading in ("min ms", "median ms", "× ours (min)", "× ours (median)", "differs by"):
        table.add_column(heading, justify="right")
    agree = True
    for one in task.contenders:
        difference = abs(one.total - ours.total) / max(1.0, abs(ours.total))
        agree &= difference <= one.tolerance
        table.add_row(
            one.name,
            f"{1e3 * min(one.seconds):.3f}",
            f"{1e3 * statistics.median(one.seconds):.3f}",
            f"{min(one.seconds) / min(ours.seconds):.1f}",
            f"{statistics.median(one.seconds) / statistics.median(ours.seconds):.1f}",
            f"{difference:.0e}" if difference <= one.tolerance else f"[red]{difference:.0e}",
        )
    return table, agree


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """dtw-python greets on import."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def verdict(kind: str, task: Round, frames: int) -> str:
    lines = []
    for rival in ("tslearn core", "tslearn call"):
        with contextlib.suppress(StopIteration):
            ratio = task.ratio(rival)
            met = "reached" if ratio >= AIMS[kind] else "missed"
            aim = f" (aim ≥ {AIMS[kind]:.0f}×: {met})" if frames >= 1000 else ""
            lines.append(f"{kind} at {frames}²: {ratio:.1f}× {rival}{aim}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[200, 1000], help="frames of each sequence")
    parser.add_argument("--features", type=int, default=64, help="features a frame")
    parser.add_argument("--budget-s", type=float, default=8.0, help="seconds to spend on one table")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    console = Console(width=120)
    alignment.warm_up()
    agree, verdicts = True, []
    for frames in args.frames:
        x, y = runs_of(frames, args.features)
        cost = alignment.cosine_cost(x, y)
        tasks = {
            "dtw": dtw_on_a_matrix(cost),
            "soft": soft_on_a_matrix(cost),
            "skip": skip_on_a_matrix(cost),
            "no skips": skip_without_skips(cost),
            "dtw from features": dtw_from_features(x, y),
            "soft from features": soft_from_features(x, y),
        }
        for kind, task in tasks.items():
            measure(task, budget_s=args.budget_s)
            table, same = table_of(task, frames)
            console.print(table, "")
            agree &= same
            if kind in AIMS:
                verdicts.append(verdict(kind, task, frames))
    console.print("\n".join(verdicts))
    console.print(f"All answers agree to {TOLERANCE:g}." if agree else "[red]Answers differ.")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
