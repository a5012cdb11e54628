"""Metrics as TensorBoard reads them: all of them, once a step though the attempt was killed, and never at the cost of the run."""

from __future__ import annotations

import resource
import signal
import sys
import threading
from pathlib import Path

import pytest
from tests.llm.run_world import StopsAt, local_run

from genba_llm.event_files import with_event_files


def _read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_a_resumed_attempt_takes_back_what_it_says_again(tmp_path: Path) -> None:
    for first, last in ((1, 8), (5, 10)):  # killed at step 8, its checkpoint was of step 4
        run, files = with_event_files(local_run(tmp_path / "run"), tmp_path / "events")
        assert files is not None
        for step in range(first, last + 1):
            run.log(step, loss=1.0 / step, lr=0.5)
        files.close()
    found = _read(tmp_path / "events" / "job_test")
    assert set(found) == {"loss", "lr"}
    assert [step for step, _ in found["loss"]] == list(range(1, 11))
    assert [value for _, value in found["loss"]] == pytest.approx([1 / step for step in range(1, 11)])


def test_a_full_disk_costs_the_event_files_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # TensorBoard's own thread ends with the disk
    reporter = StopsAt()
    run, files = with_event_files(local_run(tmp_path, reporter), tmp_path / "events")
    assert files is not None
    run.log(1, loss=1.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        for step in range(2, 400):
            run.log(step, loss=1.0 / step)
        files.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(reporter.logged) == 399
    assert [note.split(":")[0] for note in reporter.notes] == ["No event files for TensorBoard"]


def test_without_the_package_the_run_goes_on_and_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    reporter = StopsAt()
    run, _ = with_event_files(local_run(tmp_path, reporter), tmp_path / "events")
    run.log(1, loss=1.0)
    run.log(2, loss=0.5)
    assert reporter.logged == {1: {"loss": 1.0}, 2: {"loss": 0.5}}
    assert len([note for note in reporter.notes if "TensorBoard" in note]) == 1
    plain = local_run(tmp_path)
    assert with_event_files(plain, None) == (plain, None)
