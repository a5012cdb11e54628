"""A job's params, metrics and artifacts in MLflow too, when a tracking server is set; never at the cost of the job.

One run in MLflow for a job, whatever the number of its attempts: it is found again by its tag ``genba.job_id``, and its
id stands in the job's result. A run is made with a job's first metric, so work that measures nothing leaves none. What
MLflow does not take is said once in the job's events and then let go. Knows MLflow's wire only through mlflow_api.py.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

import httpx

from genba_shared.artifacts import Artifacts
from genba_shared.jobs import Job
from genba_shared.principal import Clearance
from genba_shared.recipe import PassingReporter, Reporter
from genba_shared.settings import Platform
from genba_shared.telemetry import get_logger
from genba_training.mlflow_api import MAX_METRICS, MAX_PARAMS, Metric, Mlflow, OpenRun, RunStatus, now_ms

JOB_TAG = "genba.job_id"
_FLUSH_S = 2.0
_MAX_WAITING = 20_000
_LONGEST_PAUSE_S = 30.0
_CLOSE_WITHIN_S = 20.0
_STATUS: Mapping[str, RunStatus] = {
    "succeeded": "FINISHED",
    "failed": "FAILED",
    "dead": "FAILED",
    "cancelled": "KILLED",
}
T = TypeVar("T")
Look = Callable[[], Mapping[str, Any] | None]  # the job's result, once it is settled

log = get_logger(__name__)


class Tracker(Reporter, Protocol):
    """A reporter that also knows where else the run is kept."""

    def run_id(self) -> str | None: ...
    def close(self, outcome: str, result: Look, artifacts: Artifacts) -> None: ...


def tracker(platform: Platform, job: Job, reporter: Reporter) -> Tracker:
    """The tracker of one attempt: MLflow if a server is set and the job's label may go there, else nothing."""
    url = platform.mlflow_tracking_url
    if url is None or job.clearance > Clearance.parse(platform.mlflow_clearance) or job.principal.compartments:
        return NoTracker(reporter)
    try:
        mlflow = Mlflow(url, token=platform.load_mlflow_token())
    except (OSError, ValueError, httpx.InvalidURL) as error:
        log.warning("mlflow_misconfigured", error=type(error).__name__, detail=str(error)[:300])
        return NoTracker(reporter)
    return MlflowTracker(mlflow, job, reporter)


class NoTracker(PassingReporter):
    """Passes everything on, and tells nobody else."""

    def run_id(self) -> str | None:
        return None

    def close(self, outcome: str, result: Look, artifacts: Artifacts) -> None:
        pass


class MlflowTracker(NoTracker):
    """Keeps metrics in memory and lets a thread of its own carry them, so that a slow MLflow never slows the work."""

    def __init__(self, mlflow: Mlflow, job: Job, reporter: Reporter) -> None:
        super().__init__(reporter)
        self._mlflow, self._job = mlflow, job
        self._waiting: deque[Metric] = deque(maxlen=_MAX_WAITING)
        self._one_at_a_time = threading.Lock()
        self._run: OpenRun | None = None
        self._complained = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        super().metrics(step, values)
        at_ms = now_ms()
        self._waiting.extend(Metric(name, value, step, at_ms) for name, value in values.items())
        if self._thread is None:
            self._thread = threading.Thread(target=self._carry, name=f"mlflow-{self._job.id}", daemon=True)
            self._thread.start()

    def run_id(self) -> str | None:
        """The run's id, for the job's result; None when nothing was measured or MLflow does not answer."""
        if self._thread is None:
            return None
        run = self._try(self._open)
        return None if run is None else run.run_id

    def close(self, outcome: str, result: Look, artifacts: Artifacts) -> None:
        """After the row is settled: what is left, the final metrics and files, and how it ended, within 20 s or never.

        An attempt that lost its job has no say in its run either.
        """
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            if outcome != "lost":
                self._close(outcome, result() or {}, artifacts)
        self._mlflow.close()

    def _close(self, outcome: str, result: Mapping[str, Any], artifacts: Artifacts) -> None:
        ends_s = time.monotonic() + _CLOSE_WITHIN_S
        files = (result.get("artifacts") or {}) if outcome == "succeeded" else {}
        steps: list[Callable[[], object]] = [self._flush, partial(self._finish, outcome, result)]
        steps += [partial(self._store, name, key, artifacts) for name, key in files.items()]
        steps.append(partial(self._end, outcome))
        for step in steps:
            if time.monotonic() > ends_s:
                log.warning("mlflow_gave_up", job=self._job.id)
                return
            self._try(step)

    # ---- what may fail ----

    def _open(self) -> OpenRun:
        with self._one_at_a_time:
            if self._run is None:
                job = self._job
                tags = {"genba.recipe": job.recipe, "genba.clearance": job.clearance.label}
                run = self._mlflow.open_run(f"genba/{job.recipe}", f"{job.recipe} {job.id}", (JOB_TAG, job.id), tags)
                if not run.resumed:
                    params = iter(_flat(job.params))
                    while some := dict(islice(params, MAX_PARAMS)):
                        self._mlflow.log(run.run_id, params=some)
                self._run = run
            return self._run

    def _flush(self) -> bool:
        run = self._open()
        while some := [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_METRICS))]:
            try:
                self._mlflow.log(run.run_id, metrics=some)
            except Exception:
                self._waiting.extendleft(reversed(some))
                raise
        return True

    def _finish(self, outcome: str, result: Mapping[str, Any]) -> None:
        at_ms, measured = now_ms(), result.get("metrics") or {}
        final = [Metric(f"final/{name}", value, 0, at_ms) for name, value in measured.items() if value is not None]
        tags = {"genba.outcome": outcome, "genba.attempt": f"{self._job.attempt}"}
        if registered := result.get("registered"):
            tags["genba.version"] = f"{registered['model']} {registered['number']} {registered['outcome']}"
        self._mlflow.log(self._open().run_id, metrics=final, tags=tags)

    def _store(self, name: str, key: str, artifacts: Artifacts) -> None:
        with artifacts.open(key) as content:
            ending = "".join(key.rpartition("/")[2].partition(".")[1:])
            self._mlflow.put_artifact(self._open(), f"{name}{ending}", content)

    def _end(self, outcome: str) -> None:
        if outcome in _STATUS:  # one that is queued again goes on in the same run
            self._mlflow.end(self._open().run_id, _STATUS[outcome])

    # ---- never at the cost of the job ----

    def _carry(self) -> None:
        failures = 0
        while not self._over.wait(min(_FLUSH_S * 2.0**failures, _LONGEST_PAUSE_S)):
            failures = 0 if self._try(self._flush) else failures + 1

    def _try(self, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except Exception as error:  # noqa: BLE001 - whatever a server that is not ours does, the job goes on
            log.warning("mlflow_failed", job=self._job.id, error=type(error).__name__, detail=str(error)[:300])
            if not self._complained and not self._over.is_set():
                super().line("warning", f"MLflow does not take this run: {type(error).__name__}.")
            self._complained = True
            return None


def _flat(params: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """``{"a": {"b": 1}}`` as ``a.b = 1``, since MLflow's params are texts."""
    found: list[tuple[str, str]] = []
    for name, value in params.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", f"{value}"))
    return found
