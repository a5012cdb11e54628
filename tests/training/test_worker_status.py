"""A worker that is asked how it is says so, on a port of its own and in Prometheus's words."""

from __future__ import annotations

import socket
import subprocess
import sys

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from genba_training import worker_status
from genba_training.worker_status import Gpu, WorkerStatus, parse_gpus, serving


def figures(port: int) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample of ``/metrics``, by name and label values."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def answer(port: int, path: str) -> int:
    return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False).status_code


def test_a_worker_is_ready_while_it_takes_jobs_and_alive_all_along() -> None:
    status = WorkerStatus(["cpu", "gpu"], 4, busy=lambda: 3)
    with serving(status, host="127.0.0.1", port=0) as port:
        assert port is not None
        assert (answer(port, "/health"), answer(port, "/ready"), answer(port, "/else")) == (200, 503, 404)
        assert figures(port)["genba_worker_taking", ("cpu",)] == 0
        status.taking = True
        assert answer(port, "/ready") == 200
        found = figures(port)
    assert found["genba_worker_taking", ("cpu",)] == found["genba_worker_taking", ("gpu",)] == 1
    assert (found["genba_worker_slots", ()], found["genba_worker_busy_slots", ()]) == (4, 3)
    assert found["genba_worker_process_resident_memory_bytes", ()] > 0


def test_a_caller_that_says_nothing_does_not_hold_a_thread_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_status, "_SILENT_S", 0.05)
    with (
        serving(WorkerStatus(["cpu"], 1, busy=lambda: 0), host="127.0.0.1", port=0) as port,
        socket.create_connection(("127.0.0.1", port or 0), timeout=60) as silent,
    ):
        assert silent.recv(1) == b""


def test_without_a_port_nothing_listens() -> None:
    with serving(WorkerStatus(["cpu"], 1, busy=lambda: 0), host="127.0.0.1", port=None) as port:
        assert port is None


def test_it_listens_on_an_address_of_version_six_too() -> None:
    with serving(WorkerStatus(["cpu"], 1, busy=lambda: 0), host="::1", port=0) as port:
        assert httpx.get(f"http://[::1]:{port}/health", trust_env=False).status_code == 200


def test_what_children_use_counts_and_goes_on_counting_when_they_have_ended() -> None:
    status = WorkerStatus(["cpu"], 1, busy=lambda: 0)
    burn = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\nsys.stdin.read()"
    with serving(status, host="127.0.0.1", port=0) as port:
        assert port is not None
        before = figures(port)
        child = subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        during = figures(port)
        child.communicate()
        after = figures(port)
    spent = "genba_worker_children_cpu_seconds_total", ()
    assert during["genba_worker_children", ()] == before["genba_worker_children", ()] + 1
    assert during["genba_worker_children_resident_memory_bytes", ()] > 2**20
    assert before[spent] + 0.25 < during[spent] <= after[spent]
    assert after["genba_worker_children", ()] == before["genba_worker_children", ()]


def test_the_cpu_time_of_children_never_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    status = WorkerStatus(["cpu"], 1, busy=lambda: 0)
    told: list[float] = []
    for spent_s in (1e6 + 0.5, 1e6 + 0.25, 1e6 + 2):  # far above what this process's own children used
        times = psutil.Process().cpu_times()._replace(children_user=spent_s, children_system=0.0)
        monkeypatch.setattr(psutil.Process, "cpu_times", lambda _, times=times: times)
        monkeypatch.setattr(psutil.Process, "children", lambda _, **__: [])
        [counter] = [metric for metric in status.collect() if metric.name == "genba_worker_children_cpu_seconds"]
        told.append(counter.samples[0].value)
    assert told == [1e6 + 0.5, 1e6 + 0.5, 1e6 + 2]


def test_the_drivers_words_become_ratios_and_bytes() -> None:
    said = "0, 37, 1024, 81920\n1, [N/A], 0, 81920\n"
    assert parse_gpus(said) == [Gpu("0", 0.37, 1024 * 2**20, 81920 * 2**20)]


def test_a_driver_that_fails_leaves_the_rest_of_the_scrape_standing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_status, "_GPU_QUERY", ("false",))
    with serving(WorkerStatus(["cpu"], 1, busy=lambda: 0), host="127.0.0.1", port=0) as port:
        assert port is not None
        found = figures(port)
    assert found["genba_worker_slots", ()] == 1
    assert not [name for name, _ in found if name.startswith("genba_worker_gpu")]
