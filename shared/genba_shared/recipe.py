"""The contract between a domain that knows how to do long work and the runner that makes it durable.

A domain writes ``def run(params, run) -> Result`` and lists it in ``RECIPES``; it gets a folder, a seed, a way to say
how far it is and a way to be stopped. It knows nothing of queues, leases, workers or the job table, and this module
does not either: whoever runs the recipe (a worker, or a shell through ``LocalReporter``) stands behind ``Reporter``.

A recipe that raises a ``Problem`` below 500 says that the work cannot succeed as asked ("needs 200 likes, found 12"):
the job fails with that document and is not tried again. Anything else that it raises is tried again, with back-off.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TextIO, TypeVar

from pydantic import BaseModel, ConfigDict

from genba_shared.patterns import pattern

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from genba_shared.artifacts import Artifacts
    from genba_shared.db import Database
    from genba_shared.principal import Principal
    from genba_shared.settings import Platform

QueueName = Literal["cpu", "gpu"]
Level = Literal["info", "warning", "error"]
MODEL_NAME = pattern(
    r"^[a-z][a-z0-9_]{0,59}\.[a-z][a-z0-9_]{0,59}$", "must be two names joined by a dot, such as recommend.two_tower"
)
_NAME = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*\Z")
_CHECKPOINT = re.compile(r"(\d{6})-(\d{8})\Z")


class Params(BaseModel):
    """What a submitter may set. Unknown fields are refused at submission, not ignored at three in the morning."""

    model_config = ConfigDict(extra="forbid", frozen=True)


P = TypeVar("P", bound=BaseModel)


class Stopped(BaseException):
    """The attempt has to end now; what it staged is thrown away. Recipes let it pass (``finally`` is fine).

    Like ``asyncio.CancelledError`` no ``Exception``, so that a recipe's ``except Exception`` does not swallow it.
    """


class Cancelled(Stopped):
    """Somebody cancelled the job."""


class LeaseLost(Stopped):
    """Another attempt owns the job now, or may soon: this one has no say any more."""


class TimedOut(Stopped):
    """The attempt ran longer than its recipe allows."""


class Drained(Stopped):
    """The worker is shutting down; the job goes back to the queue and resumes from its checkpoint."""


@dataclass(frozen=True)
class Gate:
    """What a version's ``metric`` must reach before it may become champion; every bound that is given must hold.

    ``not_below_champion_by`` compares with the champion on the same data: at 0.01 a version may be worse by a hundredth.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    not_below_champion_by: float | None = None

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None and self.not_below_champion_by is None:
            raise ValueError(f"The gate on {self.metric!r} has no bound.")


@dataclass(frozen=True)
class Champion:
    """The version that serves now, its bundle in a folder of this attempt: to be evaluated on the same data."""

    number: int
    folder: Path


@dataclass(frozen=True)
class Registration:
    """A trained model as a recipe hands it over, to become a version of ``model``.

    ``bundle`` is a folder below ``run.workdir`` with ``bundle.json`` (config, preprocessing, metrics, data hash, code
    commit) and weights as safetensors or ONNX, never pickles. ``champion_metrics`` are the champion's on the same data;
    None if ``run.champion(model)`` gave none.
    """

    model: str
    bundle: Path
    metrics: Mapping[str, float]
    data_hash: str
    gates: tuple[Gate, ...] = ()
    champion_metrics: Mapping[str, float] | None = None
    promote: Literal["when_gates_pass", "never"] = "when_gates_pass"

    def __post_init__(self) -> None:
        if not re.fullmatch(MODEL_NAME, self.model):
            raise ValueError(f"Model name {self.model!r} must look like 'recommend.two_tower'.")


@dataclass(frozen=True)
class Result:
    """What an attempt hands over when it is done.

    ``artifacts`` are files below ``run.workdir``: the runner stores them by content and records their keys.
    ``register`` becomes a version of a model, and its champion if the gates pass, in the one transaction that also marks
    the job succeeded. ``publish`` runs inside it too, and only if this attempt still owns the job: the place for the row
    or pointer that makes the work visible. Keep it to a few statements.
    """

    value: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    publish: Callable[[Session], None] | None = None
    register: Registration | None = None


class Reporter(Protocol):
    """Where a run's words go, and where the order to stop comes from."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None: ...
    def progress(self, fraction: float, message: str) -> None: ...
    def line(self, level: Level, message: str) -> None: ...
    def stop_reason(self) -> Stopped | None: ...


@dataclass(frozen=True)
class Saved:
    """A checkpoint as found: the state and the folder with whatever files were saved beside it."""

    state: dict[str, Any]
    folder: Path


class Checkpoint:
    """The newest durable state of a job; outlives attempts.

    Every save is a new folder that appears by one rename, named attempt-sequence: a worker that dies while saving
    leaves the one before, and a fenced attempt that writes late can never hide what its successor saved.
    """

    def __init__(self, folder: Path, *, attempt: int = 1, keep: int = 2) -> None:
        self.folder = folder
        self._attempt = attempt
        self._keep = keep

    def load(self, is_whole: Callable[[Saved], bool] | None = None) -> Saved | None:
        """The newest state that can be read and that ``is_whole`` accepts, or None for a fresh start."""
        for _, folder in reversed(self._complete()):
            try:
                saved = Saved(json.loads((folder / "state.json").read_text("utf-8")), folder)
                if is_whole is None or is_whole(saved):
                    return saved
            except (OSError, ValueError):
                continue  # pruned by its owner, or torn by a power cut: the one before will do
        return None

    def save(
        self, state: Mapping[str, Any], fill: Callable[[Path], None] | None = None, *, keep: int | None = None
    ) -> None:
        """Make ``state`` (JSON) and the files that ``fill(folder)`` writes the newest checkpoint, or change nothing.

        ``keep`` is how many of this attempt's and earlier ones' stay. Raises: OSError, when the disk is full for one.
        """
        mine = [sequence for (attempt, sequence), _ in self._complete() if attempt == self._attempt]
        name = f"{self._attempt:06d}-{max(mine, default=0) + 1:08d}"
        staging = self.folder / f".{name}.{os.getpid()}.tmp"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            if fill is not None:
                fill(staging)
            with (staging / "state.json").open("w", encoding="utf-8") as file:
                json.dump(dict(state), file)
                file.flush()
                os.fsync(file.fileno())
            staging.rename(self.folder / name)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        self._prune(keep or self._keep)

    def _complete(self) -> list[tuple[tuple[int, int], Path]]:
        if not self.folder.is_dir():
            return []
        found = ((_CHECKPOINT.match(path.name), path) for path in self.folder.iterdir())
        return sorted(((int(match[1]), int(match[2])), path) for match, path in found if match)

    def _prune(self, keep: int) -> None:
        older = [path for (attempt, _), path in self._complete() if attempt <= self._attempt]
        for path in older[:-keep]:
            shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True)
class Run:
    """What a recipe works with. ``workdir`` belongs to this attempt alone and is deleted when the attempt ends."""

    job_id: str
    attempt: int
    seed: int
    workdir: Path
    checkpoint: Checkpoint
    principal: Principal
    platform: Platform
    database: Database
    artifacts: Artifacts
    reporter: Reporter
    compared: dict[str, Champion | None] = field(default_factory=dict)  # what champion() answered, by model

    def champion(self, model: str) -> Champion | None:
        """The version of ``model`` that serves now, fetched into ``workdir``; None if there is none.

        The first answer stands for the whole attempt, and a version that was compared with it is promoted only if it is
        still the champion when the job finishes.
        """
        from genba_shared.registry import Registry  # it stands on this module

        if model not in self.compared:
            registry = Registry(self.database, self.artifacts)
            version, folder = registry.current(model), self.workdir / "champions"
            self.compared[model] = Champion(version.number, registry.fetch(version, folder)) if version else None
        return self.compared[model]

    def log(self, step: int, **metrics: float) -> None:
        """Metrics at a step; they appear in the job's events."""
        self.reporter.metrics(step, {name: float(value) for name, value in metrics.items()})

    def progress(self, fraction: float, message: str = "") -> None:
        """How far the work is, 0 to 1. Also a point at which the attempt can be stopped."""
        self.reporter.progress(min(max(float(fraction), 0.0), 1.0), message)
        self.raise_if_cancelled()

    def note(self, message: str, *, level: Level = "info") -> None:
        """A line for whoever watches the job. No user content, no personal data."""
        self.reporter.line(level, message)

    def raise_if_cancelled(self) -> None:
        """Raise why the attempt has to stop, if it has to. Call it at least every few seconds."""
        if reason := self.reporter.stop_reason():
            raise reason


@dataclass(frozen=True)
class Recipe(Generic[P]):
    """Named long work with validated parameters.

    ``scope`` is what a submitter needs besides ``jobs:write``. ``time_limit_s`` bounds one attempt, ``max_attempts``
    the attempts that fail or lose their worker before the job is a dead letter, ``max_running`` how many of its jobs
    run at the same time, over all workers; the others wait. ``submitted_by`` names the route whose service alone submits
    the recipe, because its parameters say what that service found out: nobody writes them by hand.
    """

    name: str
    params: type[P]
    run: Callable[[P, Run], Result]
    summary: str = ""
    queue: QueueName = "cpu"
    scope: str | None = None
    time_limit_s: float = 6 * 3600.0
    max_attempts: int = 4
    max_running: int | None = None
    submitted_by: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            msg = f"Recipe name {self.name!r} must look like 'service.verb_noun'."
            raise ValueError(msg)
        if self.params.model_config.get("extra") != "forbid":
            msg = f"Params of {self.name!r} must refuse unknown fields: derive from genba_shared.recipe.Params."
            raise ValueError(msg)
        if self.max_running is not None and self.max_running < 1:
            msg = f"max_running of {self.name!r} is {self.max_running}: none of its jobs would ever run."
            raise ValueError(msg)


def seed_of(job_id: str) -> int:
    """A seed that every attempt of a job shares, so that a resumed job ends where an undisturbed one does."""
    return int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:4], "big")


class PassingReporter:
    """Passes everything on to another; a base for what listens in."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._reporter.metrics(step, values)

    def progress(self, fraction: float, message: str) -> None:
        self._reporter.progress(fraction, message)

    def line(self, level: Level, message: str) -> None:
        self._reporter.line(level, message)

    def stop_reason(self) -> Stopped | None:
        return self._reporter.stop_reason()


class LocalReporter:
    """Reports to a terminal, for recipes run from a shell without a queue; Ctrl-C is the way to stop."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._started_s = time.monotonic()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._write(f"step {step}  " + "  ".join(f"{name}={value:.6g}" for name, value in values.items()))

    def progress(self, fraction: float, message: str) -> None:
        self._write(f"{fraction:6.1%}  {message}")

    def line(self, level: Level, message: str) -> None:
        self._write(message if level == "info" else f"{level}: {message}")

    def stop_reason(self) -> Stopped | None:
        return None

    def _write(self, text: str) -> None:
        self._stream.write(f"[{time.monotonic() - self._started_s:8.1f} s] {text}\n")
        self._stream.flush()
