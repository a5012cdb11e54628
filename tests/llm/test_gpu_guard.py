"""What watches over a card, as far as a machine without one can show it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from tests.llm.run_world import StopsAt, local_run

from genba_llm.finetune_config import FinetuneConfig
from genba_llm.gpu_guard import take_share, watch


def test_what_reads_a_cards_temperature_is_installed_where_models_are_trained() -> None:
    assert importlib.util.find_spec("pynvml") is not None


def test_a_temperature_that_cannot_be_read_is_said_and_training_goes_on(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("This machine has a card, whose temperature can be read.")
    reporter = StopsAt()
    run = local_run(tmp_path, reporter)
    assert not watch(torch.device("cpu"), run)
    assert reporter.notes == []
    assert not watch(torch.device("cuda"), run)
    assert [note.split(":")[0] for note in reporter.notes] == [
        "The GPU's temperature cannot be read and is not watched"
    ]


def test_a_run_leaves_a_share_of_the_card_to_others() -> None:
    assert FinetuneConfig().gpu_memory_share < 1.0
    take_share("cpu", 0.5)  # nothing to take there
