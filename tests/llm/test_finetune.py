"""Packing, the training loop, and what a kill costs: nothing."""

from __future__ import annotations

import gc
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.llm.phi3_world import tiny_phi3
from tests.llm.run_world import StopsAt, local_run

from genba_llm.finetune import Data, Finetuning, Outcome, finetune
from genba_llm.finetune_config import FinetuneConfig, config_of
from genba_llm.packing import Order, Sample, collate, pack
from genba_llm.sft_rows import BadRows, Row, TooManyBadRows, messages, read_rows
from genba_llm.state_files import join, split
from genba_shared.recipe import Cancelled

# peft asks transformers by a name that transformers is about to rename.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]
TINY: dict[str, Any] = {
    "quantise": "none",
    "lora": {"rank": 4, "alpha": 8.0, "dropout": 0.1},
    "max_tokens": 32,
    "batch_size": 2,
    "accumulation": 2,
    "max_steps": 6,
    "learning_rate": 5e-3,
    "noise_eta": 0.05,
    "swa_from": 0.5,
    "swa_lr": 1e-3,
    "gradient_checkpointing": False,
    "checkpoint_every_s": 1.0,
}


def _samples(n: int = 24, seed: int = 0) -> list[Sample]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(n):
        length = int(torch.randint(6, 15, (1,), generator=generator))
        start = int(torch.randint(3, 100, (1,), generator=generator))
        made.append(Sample(tuple((start + i) % 125 + 3 for i in range(length)), 3))
    return made


def tiny_data(n: int = 24) -> Data:
    samples = _samples(n)
    rows = [[samples[index] for index in group] for group in pack([len(each.ids) for each in samples], 32)]
    return Data(rows[2:], rows[:2], 32, 0)


def train_tiny(
    folder: Path, *, reporter: StopsAt | None = None, attempt: int = 1, device: str = "cpu", **changed: Any
) -> tuple[Finetuning, Outcome]:
    config = config_of({**TINY, **changed})
    training = Finetuning(tiny_phi3(device=device), config, seed=7)
    try:
        ticks = itertools.count()
        outcome = finetune(
            training, tiny_data(), local_run(folder, reporter, attempt=attempt), clock=lambda: 2.0 * next(ticks)
        )
    finally:
        training.close()
    return training, outcome


def test_packing_keeps_every_sample_once_and_within_its_row() -> None:
    lengths = [5, 9, 3, 3, 12, 1, 7]
    rows = pack(lengths, 12)
    assert sorted(itertools.chain.from_iterable(rows)) == list(range(7))
    assert all(sum(lengths[index] for index in row) <= 12 for row in rows)
    assert len(rows) == 4


@given(st.lists(st.integers(1, 20), max_size=60))
@settings(max_examples=50, deadline=None)
def test_packing_never_needs_twice_the_rows_that_the_tokens_fill(lengths: list[int]) -> None:
    rows = pack(lengths, 20)
    assert sorted(itertools.chain.from_iterable(rows)) == list(range(len(lengths)))
    assert len(rows) <= 2 * (sum(lengths) // 20) + 1


def test_a_sample_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="Sample 1 has 13 tokens"):
        pack([3, 13], 12)


def test_a_packed_row_gives_each_sample_the_logits_that_it_has_alone() -> None:
    model, samples = tiny_phi3().eval(), _samples(3)
    packed = collate([samples], length=48, pad_id=0)
    with torch.no_grad():
        together = model(
            input_ids=packed.input_ids, attention_mask=packed.attention(), position_ids=packed.positions
        ).logits[0]
        start = 0
        for sample in samples:
            alone = model(input_ids=torch.tensor([sample.ids])).logits[0]
            assert torch.allclose(together[start : start + len(sample.ids)], alone, atol=1e-5)
            start += len(sample.ids)


def test_only_the_answer_is_learnt() -> None:
    batch = collate([[Sample((5, 6, 7, 8), 2), Sample((9, 10), 0)]], length=8, pad_id=0)
    assert batch.labels.tolist() == [[-100, -100, 7, 8, -100, 10, -100, -100]]
    assert batch.segments.tolist() == [[1, 1, 1, 1, 2, 2, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 0, 1, 0, 0]]


def test_an_epoch_sees_every_row_once_in_an_order_of_its_own() -> None:
    order = Order(10, rows_per_step=5, seed=3)
    epochs = [order.rows(0) + order.rows(1), order.rows(2) + order.rows(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]
    assert Order(10, rows_per_step=5, seed=3).rows(3) == order.rows(3)


@pytest.mark.parametrize(("train", "at_most"), [("adapter", 0.96), ("all", 0.75)])
def test_training_lowers_the_loss_and_reports_what_it_does(tmp_path: Path, train: str, at_most: float) -> None:
    reporter = StopsAt()
    _, outcome = train_tiny(
        tmp_path, reporter=reporter, train=train, max_steps=25, swa_from=1.0, noise_eta=0.0, learning_rate=3e-2
    )
    first, last = reporter.logged[1], reporter.logged[25]
    assert last["loss"] < at_most * first["loss"]
    assert outcome.n_steps == 25
    assert {"validation_loss", "perplexity", "so8t_angle_mean_rad"} <= set(outcome.metrics)
    assert {"pet", "pet_weight", "grad_norm", "lr", "so8t_orthogonality_error"} <= set(first)
    assert outcome.metrics["so8t_angle_max_rad"] > 0.0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("after", [4, 6])
def test_a_killed_run_ends_with_the_same_bits_as_one_that_was_not(tmp_path: Path, device: str, after: int) -> None:
    whole, expected = train_tiny(tmp_path / "whole", device=device)
    with pytest.raises(Cancelled):
        train_tiny(tmp_path / "cut", reporter=StopsAt(after=after), device=device)
    resumed, outcome = train_tiny(tmp_path / "cut", attempt=2, device=device)
    assert outcome == expected
    for (name, one), (_, other) in zip(whole.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_every_loss_after_a_kill_is_that_of_the_whole_run(tmp_path: Path) -> None:
    whole, before, after = StopsAt(), StopsAt(after=3), StopsAt()
    train_tiny(tmp_path / "whole", reporter=whole)
    with pytest.raises(Cancelled):
        train_tiny(tmp_path / "cut", reporter=before)
    train_tiny(tmp_path / "cut", reporter=after, attempt=2)
    assert before.logged | after.logged == whole.logged


def test_a_torn_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    whole, expected = train_tiny(tmp_path / "whole")
    with pytest.raises(Cancelled):
        train_tiny(tmp_path / "cut", reporter=StopsAt(after=4))
    newest = max((tmp_path / "cut" / "checkpoints").iterdir()) / "state.safetensors"
    data = bytearray(newest.read_bytes())
    data[-3] ^= 0xFF
    newest.write_bytes(data)
    reporter = StopsAt()
    resumed, outcome = train_tiny(tmp_path / "cut", reporter=reporter, attempt=2)
    assert reporter.notes == ["Resumed at step 3."]
    assert outcome == expected
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_five_checkpoints_are_kept(tmp_path: Path) -> None:
    train_tiny(tmp_path, max_steps=8)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 5


_ON_A_SMALL_DISK = """
import json, sys
from pathlib import Path
from tests.llm.run_world import StopsAt
from tests.llm.test_finetune import train_tiny
reporter = StopsAt()
_, outcome = train_tiny(Path(sys.argv[1]), reporter=reporter, checkpoints_kept=50, max_steps=12)
kept = sorted(path.name for path in Path(sys.argv[1], "checkpoints").iterdir())
print(json.dumps({"n_steps": outcome.n_steps, "kept": kept, "notes": reporter.notes}))
again = StopsAt()
train_tiny(Path(sys.argv[1]), reporter=again, attempt=2, max_steps=12)
print(json.dumps(again.notes[0]))
"""


@pytest.mark.long
def test_a_full_disk_keeps_the_last_good_checkpoint_and_the_run_goes_on(tmp_path: Path) -> None:
    (disk := tmp_path / "disk").mkdir()
    mounted = f"mount -t tmpfs -o size=1m none {disk} && exec {sys.executable} -c '{_ON_A_SMALL_DISK}' {disk}"
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*alone, "mount", "-t", "tmpfs", "none", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a disk of their own")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*alone, "sh", "-c", mounted],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    first, resumed = map(json.loads, done.stdout.splitlines()[-2:])
    assert first["n_steps"] == 12
    full = [note for note in first["notes"] if note.startswith("The disk is full: the checkpoint at step")]
    assert full
    assert 1 <= len(first["kept"]) == 12 - len(full), "every step's, and no half of one"
    assert resumed == f"Resumed at step {len(first['kept'])}."


def test_gradient_checkpointing_changes_no_loss(tmp_path: Path) -> None:
    one, other = StopsAt(), StopsAt()
    train_tiny(tmp_path / "without", reporter=one, lora={"rank": 4, "dropout": 0.0}, max_steps=3)
    train_tiny(
        tmp_path / "with", reporter=other, lora={"rank": 4, "dropout": 0.0}, max_steps=3, gradient_checkpointing=True
    )
    for step, logged in one.logged.items():
        assert other.logged[step]["loss"] == pytest.approx(logged["loss"], rel=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("quantise", ["int8", "nf4"])
def test_a_quantised_base_trains(tmp_path: Path, quantise: str, device: str) -> None:
    from genba_llm.base_model import load_base

    tiny_phi3().save_pretrained(tmp_path / "base")
    base = load_base(tmp_path / "base", quantise=quantise, device=device)  # type: ignore[arg-type]
    training = Finetuning(base, config_of({**TINY, "quantise": quantise, "max_steps": 2}), seed=7)
    outcome = finetune(training, tiny_data(8), local_run(tmp_path))
    assert outcome.n_steps == 2
    assert outcome.metrics["validation_loss"] > 0


@pytest.mark.parametrize("quantise", ["none", "int8", "nf4"])
def test_a_checkpointed_layer_keeps_nothing_between_its_passes(tmp_path: Path, quantise: str) -> None:
    from genba_llm.base_model import load_base

    tiny_phi3().save_pretrained(tmp_path / "base")
    base = load_base(tmp_path / "base", quantise=quantise)  # type: ignore[arg-type]
    config = config_of({**TINY, "quantise": quantise, "batch_size": 3, "gradient_checkpointing": True})
    training = Finetuning(base, config, seed=7)
    kept: list[int] = []

    def count(_module: object, _inputs: object) -> None:
        gc.collect()
        of_the_mlp = {(3, 32, 128), (96, 128)}  # what down_proj reads: batch, tokens, intermediate
        kept.append(sum(type(each) is torch.Tensor and tuple(each.shape) in of_the_mlp for each in gc.get_objects()))

    base.model.norm.register_forward_pre_hook(count)  # all layers are behind it, none has gone back yet
    training.step(tiny_data().train[:3], tiny_data(), step=0, n_steps=2)
    assert kept == [0]


def _row(**changed: object) -> dict[str, object]:
    good = {
        "instruction": "整備記録を要約して。",
        "output": "<final>要約です。</final>",
        "decision": "ALLOW",
        "domain": "aerospace",
        "source": "test",
        "licence": "Apache-2.0",
    }
    return {**good, **changed}


def test_a_bad_row_is_named_by_its_line_and_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [
        json.dumps(_row()),
        "{",
        json.dumps(_row(decision="MAYBE")),
        "",
        json.dumps(_row(output="")),
        json.dumps(_row(input="x")),
    ]
    path.write_text("\n".join(lines), "utf-8")
    bad = BadRows(limit=3)
    rows = list(read_rows([path], bad))
    assert [row.input for row in rows] == ["", "x"]
    assert [reason.split(": ")[0] for reason in bad.reasons] == ["rows.jsonl:2", "rows.jsonl:3", "rows.jsonl:5"]
    assert "decision" in bad.reasons[1]


def test_more_bad_rows_than_may_be_skipped_end_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("no\nno\n", "utf-8")
    with pytest.raises(TooManyBadRows, match=r"2 rows do not match.*rows\.jsonl:1"):
        list(read_rows([path], BadRows(limit=1)))


def test_a_row_reads_as_a_conversation_with_its_identity_and_policy() -> None:
    row = Row.model_validate(_row(identity_contract="役割", policy_state="方針", input="本文"))
    assert messages(row) == [
        {"role": "system", "content": "役割\n方針"},
        {"role": "user", "content": "整備記録を要約して。\n本文"},
        {"role": "assistant", "content": "<final>要約です。</final>"},
    ]


def test_nested_state_comes_back_as_it_was() -> None:
    state = {"a": [1, (2.5, None)], 3: {"t": torch.arange(4), "s": "x"}, "b": True}
    document, tensors = split(state)
    back = join(json.loads(json.dumps(document)), tensors)
    assert back[3]["t"].tolist() == [0, 1, 2, 3]
    assert (back["a"], back[3]["s"], back["b"]) == ([1, (2.5, None)], "x", True)
    with pytest.raises(TypeError, match="object"):
        split({"x": object()})


def test_presets_change_field_by_field() -> None:
    config = config_of({"preset": "phi-4-mini", "lora": {"rank": 8}, "epochs": 1})
    assert (config.lora.rank, config.lora.alpha, config.quantise) == (8, 128.0, "int8")
    with pytest.raises(ValueError, match="no preset 'phi-9'"):
        config_of({"preset": "phi-9"})


def test_training_every_weight_of_a_quantised_base_is_refused() -> None:
    with pytest.raises(ValueError, match="quantise must be none"):
        FinetuneConfig(train="all", quantise="int8")
