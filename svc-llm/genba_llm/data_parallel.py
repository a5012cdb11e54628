"""Several processes train one model, a GPU each or all on the CPU: every one takes its share of a step's micro-batches.

    this process ──► torchrun ──► rank 0 … rank N − 1 ──► a checkpoint after the last step
         ▲──── metrics, progress and notes, as JSON lines ───┘                └──► this process takes it up and finishes

Taking up that checkpoint is resuming: what follows the last step has one path, however many trained. The ranks end when
their input does, so they never outlive whoever started them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed

from genba_llm.base_model import compute_dtype, load_base
from genba_llm.finetune import Data, Finetuning, train_steps
from genba_llm.finetune_config import FinetuneConfig
from genba_llm.gpu_guard import take_share
from genba_llm.packing import Sample
from genba_llm.refused import Refused
from genba_llm.state_files import load_tensors, save_tensors
from genba_shared.recipe import Checkpoint

if TYPE_CHECKING:
    from genba_shared.recipe import Level, Run

_RUN, _ROWS = "run.json", "rows.safetensors"


class TooFewGpus(Refused):
    """More processes are wanted than there are GPUs."""


class RankFailed(RuntimeError):
    """One of the processes ended before the last step, and why."""


def check_devices(processes: int, device: str) -> None:
    """Raises: TooFewGpus."""
    if device.startswith("cuda") and processes > (found := torch.cuda.device_count()):
        raise TooFewGpus(f"GENBA_LLM_LINE_PROCESSES is {processes} and this worker has {found} GPUs.")


def train_together(base: Path, config: FinetuneConfig, data: Data, run: Run, *, device: str, processes: int) -> None:
    """Train to the last step in ``processes`` processes; the checkpoint after it lies where ``run.checkpoint`` finds it.

    Raises: RankFailed; what ``run.progress`` raises to stop the attempt.
    """
    folder = run.workdir / "ranks"
    folder.mkdir()
    save_tensors(folder / _ROWS, _flat(data.train))
    document = {
        "base": str(base.resolve()),
        "config": config.model_dump(mode="json"),
        "device": device,
        "length": data.length,
        "pad_id": data.pad_id,
        "seed": run.seed,
        "checkpoints": str(run.checkpoint.folder.resolve()),
        "attempt": run.attempt,
    }
    (folder / _RUN).write_text(json.dumps(document), "utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    command += [f"--nproc-per-node={processes}", "--module", "genba_llm.data_parallel", str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as started:
        if started.stdin is None or started.stdout is None:
            raise AssertionError("Both were asked for.")
        try:
            failed = _relay(started.stdout, run)
        finally:
            started.stdin.close()
    if started.returncode:
        raise RankFailed(failed or f"A training process ended with status {started.returncode}.")


def _relay(lines: IO[str], run: Run) -> str:
    """Pass on what the ranks say until they have ended; the first failure, if one said it."""
    failed = ""
    for line in lines:
        kind, said = json.loads(line)
        if kind == "metrics":
            run.log(said[0], **said[1])
        elif kind == "progress":
            run.progress(*said)
        elif kind == "note":
            run.note(said[0], level=said[1])
        else:
            failed = failed or said
    return failed


def _flat(rows: Sequence[Sequence[Sample]]) -> dict[str, Tensor]:
    """Packed rows as three arrays: all ids, and of each sample its length, its prompt's and its row."""
    samples = [(len(sample.ids), sample.n_prompt, at) for at, row in enumerate(rows) for sample in row]
    ids = [token for row in rows for sample in row for token in sample.ids]
    return {"ids": torch.tensor(ids, dtype=torch.int32), "samples": torch.tensor(samples, dtype=torch.int64)}


def _rows(tensors: dict[str, Tensor]) -> list[list[Sample]]:
    """What ``_flat`` was given."""
    ids, samples = tensors["ids"].tolist(), tensors["samples"].tolist()
    rows: list[list[Sample]] = [[] for _ in range(samples[-1][2] + 1)]
    start = 0
    for length, n_prompt, at in samples:
        rows[at].append(Sample(tuple(ids[start : start + length]), n_prompt))
        start += length
    return rows


@dataclass(frozen=True)
class _Rank:
    """The run as a rank sees it. Of what all say alike only the first is heard."""

    seed: int
    checkpoint: Checkpoint
    out: IO[str]

    def log(self, step: int, **metrics: float) -> None:
        self._say("metrics", [step, metrics])

    def progress(self, fraction: float, message: str = "") -> None:
        self._say("progress", [fraction, message])

    def note(self, message: str, *, level: Level = "info") -> None:
        self._say("note", [message, level])

    def raise_if_cancelled(self) -> None:
        """Nothing: who started this ends it."""

    def failed(self, why: str) -> None:
        self._write("failed", why)

    def _say(self, kind: str, said: Any) -> None:
        if distributed.get_rank() == 0:
            self._write(kind, said)

    def _write(self, kind: str, said: Any) -> None:
        self.out.write(json.dumps([kind, said]) + "\n")
        self.out.flush()


def _end_with_input() -> None:
    os.read(0, 1)  # not sys.stdin: its lock must be free when this process ends by itself
    os._exit(1)


def main(folder: Path) -> None:
    """Be one of the ranks that torchrun starts."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    told = json.loads((folder / _RUN).read_text("utf-8"))
    config = FinetuneConfig.model_validate(told["config"])
    on_gpu = told["device"].startswith("cuda")
    device = f"cuda:{os.environ['LOCAL_RANK']}" if on_gpu else "cpu"
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # libraries that print must not garble what is said
        run = _Rank(told["seed"], Checkpoint(Path(told["checkpoints"]), attempt=told["attempt"]), out)
        try:
            if on_gpu:
                torch.cuda.set_device(device)
            distributed.init_process_group("nccl" if on_gpu else "gloo")
            take_share(device, config.gpu_memory_share)
            model = load_base(
                Path(told["base"]), quantise=config.quantise, dtype=compute_dtype(device, config), device=device
            )
            data = Data(_rows(load_tensors(folder / _ROWS)), [], told["length"], told["pad_id"])
            train_steps(Finetuning(model, config, seed=run.seed), data, run)
        except Exception as failure:
            run.failed(f"{type(failure).__name__}: {str(failure)[:300]}")
            raise
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
