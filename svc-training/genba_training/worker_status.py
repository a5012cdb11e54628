"""What a worker tells of itself while it works: health, readiness and metrics on a port of its own, for probes and Prometheus.

What happens to jobs is in the job table and counted there; this is about the process: does it take work, how many of its
slots are busy, what do it and its children use. Knows no job.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from genba_shared.telemetry import Metrics

_PREFIX = "genba_worker"
_MIB = 1024**2
_GPU_QUERY = (
    "nvidia-smi",
    "--query-gpu=index,utilization.gpu,memory.used,memory.total",
    "--format=csv,noheader,nounits",
)
_GPU_ANSWER_S = 5.0
_SILENT_S = 10.0  # a caller that says nothing holds a thread
_GAUGES = {
    "taking": "1 while the worker takes jobs from the queue.",
    "slots": "Jobs that the worker can run at a time.",
    "busy_slots": "Jobs that the worker has in hand.",
    "children": "Processes below the worker.",
    "children_resident_memory_bytes": "Resident memory of the children.",
    "gpu_busy_ratio": "Share of the last moments in which the GPU worked.",
    "gpu_memory_used_bytes": "GPU memory in use, by whomever.",
    "gpu_memory_bytes": "GPU memory that there is.",
}


@dataclass(frozen=True)
class Gpu:
    """One GPU as its driver sees it, whoever uses it."""

    index: str
    busy_ratio: float
    used_bytes: float
    total_bytes: float


@dataclass(eq=False)  # a registry tells collectors apart by identity
class WorkerStatus(Collector):
    """A worker's answer to whoever asks. ``busy`` says how many of its ``slots`` hold a job."""

    queues: Sequence[str]
    slots: int
    busy: Callable[[], int]
    taking: bool = False  # from the moment it is up until it is told to stop
    metrics: Metrics = field(default_factory=lambda: Metrics("worker"))
    _spent_s: float = field(default=0.0, init=False)  # CPU of the children, the most that was told

    def __post_init__(self) -> None:
        self.metrics.registry.register(self)

    @property
    def registry(self) -> CollectorRegistry:
        return self.metrics.registry

    def collect(self) -> Iterable[Metric]:
        """The figures as they stand at this scrape."""
        yield _by("queue", "taking", dict.fromkeys(self.queues, float(self.taking)))
        yield _one("slots", self.slots)
        yield _one("busy_slots", self.busy())
        yield from self._children()
        yield from _gpus(read_gpus())

    def _children(self) -> Iterable[Metric]:
        """Jobs run in children, so the process's own figures leave out what matters."""
        this = psutil.Process()
        spent = this.cpu_times()
        cpu_s, resident_bytes, processes = spent.children_user + spent.children_system, 0, 0
        for child in this.children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it ended in the meantime; its CPU time is its parent's now
                times = child.cpu_times()
                cpu_s += times.user + times.system
                resident_bytes += child.memory_info().rss
                processes += 1
        # A sum that falls, if only by a rounding or for one that ended just now, reads as a counter that began anew.
        self._spent_s = max(self._spent_s, cpu_s)
        yield _one("children", processes)
        yield _one("children_resident_memory_bytes", resident_bytes)
        counter = CounterMetricFamily(
            f"{_PREFIX}_children_cpu_seconds", "CPU time of the children, ended ones included."
        )
        counter.add_metric([], self._spent_s)
        yield counter


def _gpus(gpus: Sequence[Gpu]) -> Iterable[Metric]:
    yield _by("gpu", "gpu_busy_ratio", {each.index: each.busy_ratio for each in gpus})
    yield _by("gpu", "gpu_memory_used_bytes", {each.index: each.used_bytes for each in gpus})
    yield _by("gpu", "gpu_memory_bytes", {each.index: each.total_bytes for each in gpus})


def read_gpus() -> list[Gpu]:
    """What the driver says; empty where there is none."""
    if shutil.which(_GPU_QUERY[0]) is None:
        return []
    try:
        said = subprocess.run(_GPU_QUERY, capture_output=True, text=True, timeout=_GPU_ANSWER_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(said)


def parse_gpus(said: str) -> list[Gpu]:
    """``index, percent, MiB, MiB`` a line; a line with a figure that the driver does not know is left out."""
    found = []
    for line in said.splitlines():
        with contextlib.suppress(ValueError):
            index, percent, used_mib, total_mib = (part.strip() for part in line.split(","))
            found.append(Gpu(index, float(percent) / 100, float(used_mib) * _MIB, float(total_mib) * _MIB))
    return found


def _one(name: str, figure: float) -> Metric:
    family = GaugeMetricFamily(f"{_PREFIX}_{name}", _GAUGES[name])
    family.add_metric([], figure)
    return family


def _by(label: str, name: str, figures: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"{_PREFIX}_{name}", _GAUGES[name], labels=[label])
    for value, figure in figures.items():
        family.add_metric([value], figure)
    return family


@contextlib.contextmanager
def serving(status: WorkerStatus, *, host: str, port: int | None) -> Iterator[int | None]:
    """Answer ``/health``, ``/ready`` and ``/metrics`` while the block runs; the port. Without a port nothing listens."""
    if port is None:
        yield None
        return
    server = (_ThreadingHTTPServerV6 if ":" in host else ThreadingHTTPServer)((host, port), _probes_of(status))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="worker-status", daemon=True).start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


class _ThreadingHTTPServerV6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


def _probes_of(status: WorkerStatus) -> type[BaseHTTPRequestHandler]:
    class Probes(BaseHTTPRequestHandler):
        server_version, sys_version = "genba", ""
        timeout = _SILENT_S

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                encode, content_type = choose_encoder(self.headers.get("accept", ""))
                self._answer(HTTPStatus.OK, encode(status.registry), content_type)
            elif path == "/health":
                self._answer(HTTPStatus.OK, b'{"status":"ok","service":"worker"}')
            elif path == "/ready":
                well = status.taking
                self._answer(
                    HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE,
                    b'{"status":"ready"}' if well else b'{"status":"takes no jobs"}',
                )
            else:
                self._answer(HTTPStatus.NOT_FOUND, b'{"status":"no such address"}')

        def _answer(self, code: HTTPStatus, body: bytes, content_type: str = "application/json") -> None:
            self.send_response(code)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature
            """Probes come every few seconds and are no news."""

    return Probes
