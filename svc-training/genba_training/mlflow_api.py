"""The few calls of MLflow's REST API (2.0) that a run needs, over httpx: its own client pins a web framework that is not ours.

Tried against the server of MLflow 3.17. Knows no job.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal
from urllib.parse import quote, urlsplit

import httpx

RunStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
MAX_METRICS, MAX_PARAMS = 1000, 100  # of one log-batch
_MAX_VALUE_CHARS, _MAX_KEY_CHARS = 6000, 250
_CHUNK_BYTES = 1 << 18
_NOT_IN_A_KEY = re.compile(r"[^A-Za-z0-9_\-. :/]")


@dataclass(frozen=True)
class Metric:
    """A value at a step. ``at_ms`` is milliseconds of the epoch."""

    key: str
    value: float
    step: int
    at_ms: int


@dataclass(frozen=True)
class OpenRun:
    """A run in MLflow; ``resumed`` if an earlier attempt had made it. ``artifacts`` is its proxied path, if it has one."""

    run_id: str
    resumed: bool
    artifacts: str | None


class Mlflow:
    """A tracking server. Every call raises ``httpx.HTTPError`` when it is not there or says no."""

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 5.0) -> None:
        self._http = httpx.Client(
            base_url=f"{url.rstrip('/')}/api/2.0/",
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=timeout_s,
            trust_env=False,
        )

    def close(self) -> None:
        self._http.close()

    def open_run(self, experiment: str, name: str, tag: tuple[str, str], tags: Mapping[str, str]) -> OpenRun:
        """The experiment's run with ``tag``, or a new one with it."""
        experiment_id = self._experiment(experiment)
        key, value = tag
        wanted = f"tags.`{key}` = '{value}'"
        found = self._post("mlflow/runs/search", experiment_ids=[experiment_id], filter=wanted, max_results=1)
        if runs := found.get("runs"):
            return _opened(runs[0], resumed=True)
        made = self._post(
            "mlflow/runs/create",
            experiment_id=experiment_id,
            run_name=name,
            start_time=now_ms(),
            tags=[{"key": each, "value": said[:_MAX_VALUE_CHARS]} for each, said in {key: value, **tags}.items()],
        )
        return _opened(made["run"], resumed=False)

    def log(
        self,
        run_id: str,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """At most ``MAX_METRICS`` and ``MAX_PARAMS``; a param that is there already must have the same value."""
        self._post(
            "mlflow/runs/log-batch",
            run_id=run_id,
            metrics=[
                {"key": key_of(each.key), "value": _number(each.value), "timestamp": each.at_ms, "step": each.step}
                for each in metrics
            ],
            params=[{"key": key_of(key), "value": value[:_MAX_VALUE_CHARS]} for key, value in (params or {}).items()],
            tags=[{"key": key, "value": value[:_MAX_VALUE_CHARS]} for key, value in (tags or {}).items()],
        )

    def end(self, run_id: str, status: RunStatus) -> None:
        self._post("mlflow/runs/update", run_id=run_id, status=status, end_time=now_ms())

    def put_artifact(self, run: OpenRun, name: str, content: BinaryIO) -> None:
        """Through the server's artifact proxy. Raises also: ValueError when it has none for this run."""
        if run.artifacts is None:
            raise ValueError("This tracking server does not proxy artifacts (mlflow server --serve-artifacts).")
        path = quote(f"{run.artifacts}/{name}")
        self._http.put(f"mlflow-artifacts/artifacts/{path}", content=_chunks(content)).raise_for_status()

    def _experiment(self, name: str) -> str:
        found = self._http.get("mlflow/experiments/get-by-name", params={"experiment_name": name})
        if found.status_code == 404:
            made = self._http.post("mlflow/experiments/create", json={"name": name})
            if made.is_success:
                return str(made.json()["experiment_id"])
            found = self._http.get(
                "mlflow/experiments/get-by-name", params={"experiment_name": name}
            )  # somebody was first
        found.raise_for_status()
        return str(found.json()["experiment"]["experiment_id"])

    def _post(self, path: str, **body: Any) -> Any:
        answer = self._http.post(path, json=body)
        if answer.is_error:
            said = f"MLflow answered {answer.status_code} to {path}: {answer.text[:300]}"
            raise httpx.HTTPStatusError(said, request=answer.request, response=answer)
        return answer.json()


def key_of(name: str) -> str:
    """A name as MLflow takes it: ``ndcg@10`` is ``ndcg_10``."""
    return _NOT_IN_A_KEY.sub("_", name)[:_MAX_KEY_CHARS]


def now_ms() -> int:
    return int(time.time() * 1000)


def _opened(run: Mapping[str, Any], *, resumed: bool) -> OpenRun:
    info = run["info"]
    parsed = urlsplit(str(info.get("artifact_uri", "")))
    return OpenRun(info["run_id"], resumed, parsed.path.strip("/") if parsed.scheme == "mlflow-artifacts" else None)


def _number(value: float) -> float | str:
    """As protobuf's JSON writes numbers: what is no number is a word."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _chunks(content: BinaryIO) -> Iterator[bytes]:
    while chunk := content.read(_CHUNK_BYTES):
        yield chunk
