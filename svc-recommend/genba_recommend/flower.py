"""The sites' simulation run by Flower's engine, in a process of its own: Flower's dependencies do not go beside the project's.

    worker ── towers, the sites' data ──► .venv/flower's Python: Flower's server and clients (flower_simulation.py)
       ▲──────── rounds, the tower ───────────┘

That process leads a group of its own, with a site's processes in it, and ends the group when its pipe to the worker ends: a worker
that is killed leaves nothing running. Knows no queue, no database and no HTTP, and does not import Flower.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from safetensors.torch import load, save
from torch import Tensor

from genba_recommend.dataset import Dataset
from genba_recommend.federated import Federated, Outset, Round, SiteGone

NOT_THERE: Final = 69
SERVE: Final = f"""
import sys
try:
    from genba_recommend.flower_simulation import serve
except ImportError as err:
    print(err, file=sys.stderr)
    sys.exit({NOT_THERE})
serve(int(sys.argv[1]))
"""
LOOK_S: Final = 0.2  # how often the worker asks whether to go on
TAIL: Final = 2_000  # characters of what the process said, in an error


class FlowerMissing(RuntimeError):
    """There is no environment with Flower here."""


class FlowerFailed(RuntimeError):
    """The simulation ended without a result."""


@dataclass(frozen=True)
class Simulation:
    """What the process gets once. processes: each site in one of its own."""

    tower: bytes
    parts: tuple[Dataset, ...]
    outset: Outset
    processes: bool


def python_of(setting: Path | None) -> Path:
    """Args: setting: a Python that has Flower and Genba; None for the one that ``deploy/setup.sh flower`` makes.

    Raises: FlowerMissing.
    """
    found = setting or Path(sys.prefix) / "flower" / "bin" / "python"
    if not found.is_file():
        raise FlowerMissing(f"This worker has no Flower: {found} is missing. Install it by deploy/setup.sh flower.")
    return found


def federate_with_flower(
    tower: Mapping[str, Tensor],
    parts: Sequence[Dataset],
    outset: Outset,
    python: Path,
    folder: Path,
    *,
    processes: bool = False,
    on_round: Callable[[Round], None] = lambda _round: None,
    look: Callable[[], None] = lambda: None,
) -> Federated:
    """Run all rounds of ``outset.federated`` over sites with ``parts`` of the data.

    Args: folder: for what the process writes.
          on_round, look: told after each round and a few times a second; may raise to stop, which ends every process.
    Raises: ValueError without sites; SiteGone when none is left; FlowerMissing when it cannot be imported; FlowerFailed.
    """
    if not parts:
        raise ValueError("There is no site with enough events to learn from.")
    rounds: list[Round] = []
    with _started(python, folder) as process:
        process.tell(Simulation(save(dict(tower)), tuple(parts), outset, processes))
        while True:
            look()
            match process.heard(LOOK_S):
                case None:
                    continue
                case ("round", Round() as each):
                    rounds.append(each)
                    on_round(each)
                case ("done", bytes() as said):
                    return Federated(load(said), tuple(rounds))
                case ("gone", str() as why):
                    raise SiteGone(why)
                case ("failed", str() as why):
                    raise FlowerFailed(why)
                case other:
                    raise FlowerFailed(f"The simulation said {type(other).__name__}.")


class _Process:
    """The other end of the pipe."""

    def __init__(self, pipe: Connection, process: subprocess.Popen[bytes], errors: Path) -> None:
        self._pipe, self._process, self._errors = pipe, process, errors

    def tell(self, what: Simulation) -> None:
        try:
            self._pipe.send(what)
        except OSError as err:
            raise self._ended() from err

    def heard(self, wait_s: float) -> object | None:
        try:
            return self._pipe.recv() if self._pipe.poll(wait_s) else None
        except (EOFError, OSError) as err:
            raise self._ended() from err

    def _ended(self) -> RuntimeError:
        status = self._process.wait()
        said = self._errors.read_text("utf-8", errors="replace")[-TAIL:].strip()
        if status == NOT_THERE:
            return FlowerMissing(
                f"This worker's Flower does not load ({said}). Install it anew by deploy/setup.sh flower."
            )
        return FlowerFailed(f"The simulation ended with status {status}. {said}".strip())


@contextlib.contextmanager
def _started(python: Path, folder: Path) -> Iterator[_Process]:
    folder.mkdir(parents=True, exist_ok=True)
    errors = folder / "errors.txt"
    ours, theirs = multiprocessing.Pipe()
    with ours, errors.open("wb") as said:
        process = subprocess.Popen(
            [python, "-c", SERVE, str(theirs.fileno())],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, pass_fds=[theirs.fileno()],
            env=_environment(folder), start_new_session=True,
        )  # fmt: skip
        theirs.close()
        try:
            yield _Process(ours, process, errors)
        finally:
            with contextlib.suppress(ProcessLookupError):  # nobody of the group is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment(folder: Path) -> dict[str, str]:
    """Without what is the platform's alone (database, keys), with Flower's telemetry off and its files in the folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GENBA_")}
    return {**kept, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_HOME": str(folder), "PYTHONUNBUFFERED": "1"}
