"""The fine-tuning itself: from packed rows to trained adapters and rotations, in steps that can be stopped and resumed.

A step is a pure function of the state before it: its rows, its dropout and its noise follow from the seed and the step's
number, so that a run that was killed ends with the same bits as one that was not. The state lies in checkpoints by the
clock; a torn one is passed over for the one before. Knows no queue: it gets a ``Run`` and says through it how far it is.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, distributed

from genba_llm import gpu_guard
from genba_llm.annealing import WeightAverage, add_gradient_noise, learning_rate
from genba_llm.finetune_config import FinetuneConfig
from genba_llm.packing import IGNORED, Batch, Order, Sample, collate, micro_batches
from genba_llm.pet import HiddenTap, pet_loss, pet_weight
from genba_llm.so8t import So8tConfig, So8tGates, spectrum
from genba_llm.state_files import join, load_tensors, save_tensors, sha256_of, split
from genba_llm.target_modules import resolve_targets
from genba_llm.token_loss import summed_loss

if TYPE_CHECKING:
    from genba_shared.recipe import Checkpoint, Level, Saved

_TENSORS = "state.safetensors"
_SPECTRUM_EVERY = 50
GATES = "so8t."


@dataclass(frozen=True)
class Data:
    """Packed rows: ``train`` and ``validation`` as groups of samples, each of at most ``length`` tokens together."""

    train: Sequence[Sequence[Sample]]
    validation: Sequence[Sequence[Sample]]
    length: int
    pad_id: int


class Attempt(Protocol):
    """What training takes of a ``Run``."""

    @property
    def seed(self) -> int: ...
    @property
    def checkpoint(self) -> Checkpoint: ...
    def log(self, step: int, **metrics: float) -> None: ...
    def progress(self, fraction: float, message: str = "") -> None: ...
    def note(self, message: str, *, level: Level = "info") -> None: ...
    def raise_if_cancelled(self) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """What a run ended with."""

    n_steps: int
    metrics: dict[str, float]


class Finetuning:
    """A model under training: adapters and rotations put on, an optimiser over what is trainable."""

    def __init__(self, model: Any, config: FinetuneConfig, *, seed: int) -> None:
        """Raises: UnknownTargets, NoSuchLayer (both ValueErrors) before anything is trained."""
        self.config = config
        self.seed = seed
        torch.manual_seed(seed)  # the adapters' first values
        self.gates: So8tGates | None = None
        self.model = _adapted(model, config) if config.train == "adapter" else _unfrozen(model)
        if config.so8t is not None:
            self.gates = So8tGates.for_model(self.model, So8tConfig(**config.so8t.model_dump())).attach(self.model)
        self._causal = self.model.get_base_model() if config.train == "adapter" else self.model
        self.tap = HiddenTap(self.model) if config.pet else None
        if config.gradient_checkpointing:
            # LLM.int8 keeps its inputs outside autograd's reach; only where no graph is made the first time are they let go.
            self.model.activation_checkpointing_enable({"use_reentrant": config.quantise == "int8"})
        self.optimiser = make_optimiser(self.parameters(), config, device=self.device)
        self.average = WeightAverage()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Everything that is learnt."""
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                yield name, parameter
        if self.gates is not None:
            yield f"{GATES}theta", self.gates.theta

    def parameters(self) -> list[Tensor]:
        """The same without names."""
        return [parameter for _, parameter in self.named_parameters()]

    def step(self, rows: Sequence[Sequence[Sample]], data: Data, *, step: int, n_steps: int) -> dict[str, float]:
        """One optimiser step over ``rows`` (``step`` counts from 0); what it says of itself is over all processes."""
        config = self.config
        torch.manual_seed(_mixed(self.seed, step, _rank()))  # dropout
        self.model.train()
        if self.gates is not None:
            self.gates.build()
        told = self._accumulate(rows, data, pet_weight(step / n_steps))
        told |= self._update(step, n_steps)
        if config.swa_from < 1.0 and step >= config.swa_from * n_steps:
            self.average.add(self.named_parameters())
        if self.gates is not None:
            self.gates.build()
            if step % _SPECTRUM_EVERY == 0:
                told |= spectrum(self.gates).as_metrics()
        return told

    def _accumulate(self, rows: Sequence[Sequence[Sample]], data: Data, weight: float) -> dict[str, float]:
        """Gradients of all micro-batches; of this process's share of them where several train together."""
        n_learnt = max(1, sum(sample.n_learnt for row in rows for sample in row))
        n_micro = math.ceil(len(rows) / self.config.batch_size)
        ce, jerk = 0.0, 0.0
        for group in list(micro_batches(rows, self.config.batch_size))[_rank() :: _world()]:
            batch = collate(group, length=data.length, pad_id=data.pad_id).to(self.device)
            loss = self._loss(batch, smoothing=self.config.label_smoothing) / n_learnt
            ce += loss.item()
            if self.tap is not None:
                pet = pet_loss(self.tap.take(), batch.segments) / n_micro
                jerk += pet.item()
                loss = loss + weight * pet
            loss.backward()
        if self.gates is not None:
            self.gates.collect()
        told = {"loss": _total_over_processes(ce)}
        return told | {"pet": _total_over_processes(jerk), "pet_weight": weight} if self.tap is not None else told

    def _update(self, step: int, n_steps: int) -> dict[str, float]:
        """Noise, clip, learning rate, optimiser."""
        config, parameters = self.config, self.parameters()
        _sum_over_processes(parameters)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        generator = torch.Generator().manual_seed(_mixed(self.seed, step, -1))
        sigma = add_gradient_noise(gradients, step, eta=config.noise_eta, generator=generator)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm))
        rate = learning_rate(
            step,
            n_steps=n_steps,
            peak=config.learning_rate,
            warmup=config.warmup,
            swa_from=config.swa_from,
            swa_lr=config.swa_lr,
        )
        for part in self.optimiser.param_groups:
            part["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return {"grad_norm": norm, "lr": rate} | ({"noise_std": sigma} if config.noise_eta else {})

    @torch.no_grad()
    def validation_loss(self, data: Data) -> float:
        """Cross-entropy in nats for each token that is learnt, without smoothing and dropout; nan without validation rows."""
        self.model.eval()
        if self.gates is not None:
            self.gates.build()
        total, n = 0.0, 0
        for group in micro_batches(data.validation, self.config.batch_size):
            batch = collate(group, length=data.length, pad_id=data.pad_id).to(self.device)
            total += self._loss(batch).item()
            if self.tap is not None:
                self.tap.take()
            n += int((batch.labels[:, 1:] != IGNORED).sum())
        return total / n if n else math.nan

    def _loss(self, batch: Batch, *, smoothing: float = 0.0) -> Tensor:
        hidden = self._causal.get_decoder()(
            input_ids=batch.input_ids, attention_mask=batch.attention(), position_ids=batch.positions, use_cache=False
        ).last_hidden_state
        return summed_loss(self._causal.get_output_embeddings(), hidden, batch.labels, smoothing=smoothing)

    def state(self, step: int, told: dict[str, float]) -> dict[str, Any]:
        """Everything that the next step depends on, and what the last one said of itself."""
        return {
            "step": step,
            "told": told,
            "parameters": dict(self.named_parameters()),
            "optimiser": self.optimiser.state_dict(),
            "average": {"n": self.average.n, "means": self.average.means},
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> tuple[int, dict[str, float]]:
        """Take up a state; the step to go on with, and what the one before it said."""
        for name, parameter in self.named_parameters():
            parameter.copy_(state["parameters"][name].to(parameter.device))
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.n, self.average.means = state["average"]["n"], dict(state["average"]["means"])
        return int(state["step"]), dict(state.get("told", {}))

    def close(self) -> None:
        """Take hooks off the model."""
        if self.gates is not None:
            self.gates.detach()
        if self.tap is not None:
            self.tap.close()


def train_steps(
    training: Finetuning, data: Data, run: Attempt, *, clock: Callable[[], float] = time.monotonic
) -> tuple[int, dict[str, float]]:
    """All steps, resuming from ``run.checkpoint`` if there is one; their number, and what the last one said.

    Raises: what ``run.progress`` raises to stop the attempt.
    """
    config = training.config
    order = Order(len(data.train), rows_per_step=config.batch_size * config.accumulation, seed=run.seed)
    n_steps = config.max_steps or max(1, round(config.epochs * order.steps_per_epoch))
    step, told = _resume(training, run)
    saved_s, is_watched = clock(), gpu_guard.watch(training.device, run)
    while step < n_steps:
        if is_watched:
            gpu_guard.cool_down(training.device, config, run)
        try:
            told = training.step([data.train[row] for row in order.rows(step)], data, step=step, n_steps=n_steps)
        except torch.OutOfMemoryError as err:
            raise gpu_guard.out_of_memory(training.device, config.gpu_memory_share, step + 1) from err
        step += 1
        run.log(step, **told)
        if not math.isfinite(told["loss"]):
            message = f"The loss is {told['loss']} at step {step}; a lower learning rate may help."
            raise FloatingPointError(message)
        if _rank() == 0 and (clock() - saved_s >= config.checkpoint_every_s or step == n_steps):
            save_checkpoint(training, step, told, run)
            saved_s = clock()
        run.progress(0.95 * step / n_steps, f"step {step} of {n_steps}")
    return n_steps, told


def finetune(training: Finetuning, data: Data, run: Attempt, *, clock: Callable[[], float] = time.monotonic) -> Outcome:
    """Train to the end and measure. Raises: what ``run.progress`` raises to stop the attempt."""
    n_steps, told = train_steps(training, data, run, clock=clock)
    training.average.write_to(training.named_parameters())
    loss = training.validation_loss(data)
    metrics = {
        "train_loss": told.get("loss", math.nan),
        "validation_loss": loss,
        "perplexity": math.exp(min(loss, 50.0)),
    }
    if training.gates is not None:
        metrics |= spectrum(training.gates).as_metrics()
    return Outcome(n_steps, {name: value for name, value in metrics.items() if math.isfinite(value)})


def save_checkpoint(training: Finetuning, step: int, told: dict[str, float], run: Attempt) -> None:
    """Write the state, or keep the last good one and say so when the disk is full."""
    document, tensors = split(training.state(step, told))
    shas: dict[str, str] = {}

    def fill(folder: Path) -> None:
        shas["sha256"] = save_tensors(folder / _TENSORS, tensors)
        (folder / "sha256").write_text(shas["sha256"], "ascii")

    try:
        run.checkpoint.save({"training": document}, fill, keep=training.config.checkpoints_kept)
    except OSError as err:
        if err.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        run.note(
            f"The disk is full: the checkpoint at step {step} was not written, the one before stays.", level="warning"
        )


def _resume(training: Finetuning, run: Attempt) -> tuple[int, dict[str, float]]:
    saved = run.checkpoint.load(_is_whole)
    if saved is None:
        return 0, {}
    step, told = training.restore(join(saved.state["training"], load_tensors(saved.folder / _TENSORS)))
    run.note(f"Resumed at step {step}.")
    return step, told


def _is_whole(saved: Saved) -> bool:
    """True if the tensors are the bytes that were written."""
    return "training" in saved.state and sha256_of(saved.folder / _TENSORS) == (saved.folder / "sha256").read_text(
        "ascii"
    )


def make_optimiser(
    parameters: Sequence[Tensor], config: FinetuneConfig, *, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW as configured. ``auto``: paged 8-bit on a GPU; fused on a CPU, where the 8-bit ones are many times slower."""
    kind = config.optimiser
    if kind == "auto":
        kind = "paged_adamw_8bit" if device.type == "cuda" else "adamw"
    given: dict[str, Any] = {"lr": config.learning_rate, "betas": config.betas, "weight_decay": config.weight_decay}
    if kind == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **given)
    import bitsandbytes

    made = bitsandbytes.optim.PagedAdamW8bit if kind == "paged_adamw_8bit" else bitsandbytes.optim.AdamW8bit
    return made(parameters, **given)


def _adapted(model: Any, config: FinetuneConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = resolve_targets(model, config.lora.targets)
    lora = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, lora)
    if config.gradient_checkpointing:
        adapted.enable_input_require_grads()
    return adapted


def _unfrozen(model: Any) -> Any:
    for parameter in model.parameters():
        parameter.requires_grad_()
    return model


def _mixed(seed: int, step: int, stream: int) -> int:
    """A seed for one purpose of one step (splitmix64's mixing)."""
    value = (
        seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + (stream + 2) * 0x94D049BB133111EB
    ) & 0xFFFF_FFFF_FFFF_FFFF
    value ^= value >> 31
    return value & 0x7FFF_FFFF_FFFF_FFFF


def _world() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _rank() -> int:
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def _sum_over_processes(parameters: Sequence[Tensor]) -> None:
    if _world() > 1:
        for parameter in parameters:
            if parameter.grad is None:  # this process had no micro-batch
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)


def _total_over_processes(value: float) -> float:
    if _world() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64, device="cuda" if distributed.get_backend() == "nccl" else "cpu")
    distributed.all_reduce(total)
    return float(total)
