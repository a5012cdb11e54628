"""Training in several processes through torchrun, here two on the CPU with gloo: what one alone learns, and no process left."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
import pytest
import torch
from tests.llm.phi3_world import tiny_phi3
from tests.llm.run_world import StopsAt, local_run
from tests.llm.test_finetune import TINY, tiny_data

from genba_llm.data_parallel import RankFailed, TooFewGpus, check_devices, train_together
from genba_llm.finetune import Finetuning, finetune
from genba_llm.finetune_config import config_of
from genba_shared.recipe import Cancelled

CONFIG = config_of({**TINY, "train": "all", "max_steps": 4, "checkpoint_every_s": 1e-6})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tiny_phi3().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def at_work() -> list[int]:
    """Processes of this one that train; other tests may have left other children."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "genba_llm.data_parallel" in child.cmdline():
                found.append(child.pid)
    return found


@pytest.mark.long
def test_two_processes_train_what_one_does_though_they_were_stopped_on_the_way(base: Path, tmp_path: Path) -> None:
    alone, before, after, at_the_end = StopsAt(), StopsAt(after=2), StopsAt(), StopsAt()
    training = Finetuning(tiny_phi3(), CONFIG, seed=7)
    expected = finetune(training, tiny_data(), local_run(tmp_path / "alone", alone))
    training.close()
    cut = tmp_path / "cut"
    with pytest.raises(Cancelled):
        train_together(base, CONFIG, tiny_data(), local_run(cut, before), device="cpu", processes=2)
    assert not at_work(), "nobody trains on"
    train_together(base, CONFIG, tiny_data(), local_run(cut, after, attempt=2), device="cpu", processes=2)
    assert after.notes == ["Resumed at step 2."]
    logged = before.logged | after.logged
    assert list(logged) == [1, 2, 3, 4]
    for step, told in alone.logged.items():
        assert logged[step]["loss"] == pytest.approx(told["loss"], rel=1e-4)
    finishing = Finetuning(tiny_phi3(), CONFIG, seed=7)
    outcome = finetune(finishing, tiny_data(), local_run(cut, at_the_end, attempt=2))
    finishing.close()
    assert at_the_end.notes == ["Resumed at step 4."]
    assert not at_the_end.logged, "no step is taken twice"
    assert outcome.metrics == pytest.approx(expected.metrics, rel=1e-3)
    for one, other in zip(training.parameters(), finishing.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.long
def test_a_process_that_fails_ends_the_others_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(RankFailed, match=r"UnusableModel: .*config\.json is missing"):
        train_together(tmp_path / "nowhere", CONFIG, tiny_data(), local_run(tmp_path), device="cpu", processes=2)
    assert not at_work()


@pytest.mark.skipif(torch.cuda.device_count() > 15, reason="a machine of many GPUs")
def test_more_processes_than_gpus_are_refused() -> None:
    with pytest.raises(TooFewGpus, match=r"PROCESSES is 16 and this worker has \d+ GPUs"):
        check_devices(16, "cuda")
    check_devices(16, "cpu")
