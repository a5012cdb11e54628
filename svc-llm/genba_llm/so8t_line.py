"""From rows to a bundle: what the recipe ``llm.so8t`` does, in the order it does it.

    rows → conversations → tokens → packed ──► fine-tune (LoRA, rotations) ──► merge, burn, certify ──► safetensors, GGUF
                                                                                                   └──► validation, gate

Refuses before training whatever could only fail after it: a base of another family, layers that do not exist, a plan that
does not fit the memory.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

from genba_llm import lineage
from genba_llm.base_model import UnusableModel, available_bytes, compute_dtype, empty_model, load_base, load_tokenizer
from genba_llm.burn_in import evaluating
from genba_llm.data_parallel import check_devices, train_together
from genba_llm.finetune import Data, Finetuning, finetune
from genba_llm.finetune_config import FinetuneConfig
from genba_llm.finish import merged_model, save_adapter, write_model
from genba_llm.gguf_export import Quant, export_gguf, modelfile
from genba_llm.gpu_guard import take_share
from genba_llm.line_data import Prepared, prepare
from genba_llm.memory_plan import MemoryPlan, memory_plan
from genba_llm.refused import Refused
from genba_llm.sft_rows import Row, messages
from genba_llm.small_phi3 import stored_in_int8
from genba_llm.so8t_bundle import ADAPTER, BUNDLE, MODEL
from genba_llm.target_modules import resolve_targets
from genba_llm.token_loss import learnt_logits
from genba_llm.tokenizer_training import train_tokenizer
from genba_llm.what_is_known import keep_known
from genba_shared.torchvision import make_torchvision_importable

if TYPE_CHECKING:
    from genba_shared.recipe import Run


class TooLittleMemory(Refused):
    """The plan does not fit the device."""


@dataclass(frozen=True)
class FreshShape:
    """A model of the family made from nothing, with a tokenizer learnt from the rows."""

    vocab_size: int = 4096
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2

    @property
    def intermediate_size(self) -> int:
        """About 8/3 of the width; whole blocks of 256, which K-quants need, where the width is made of them."""
        if self.hidden_size % 256:
            return self.hidden_size * 8 // 3 // 32 * 32
        return -(-self.hidden_size * 8 // 3 // 256) * 256


@dataclass(frozen=True)
class Finished:
    """What a run hands over: the bundle's folder and its figures."""

    folder: Path
    metrics: dict[str, float]
    data_hash: str


def make_fresh_base(
    rows: Iterable[Row],
    shape: FreshShape,
    folder: Path,
    *,
    max_tokens: int,
    seed: int,
    documents: Iterable[str] = (),
) -> Path:
    """A base of the family with random weights and a tokenizer learnt from ``rows`` and ``documents``, written to ``folder``.

    Raises: TooLittleMemory.
    """
    make_torchvision_importable()
    from transformers import Phi3Config, Phi3ForCausalLM

    tokenizer = train_tokenizer(
        itertools.chain(_texts(rows), documents), vocab_size=shape.vocab_size, max_tokens=max_tokens
    )
    config = Phi3Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        partial_rotary_factor=0.75,
        tie_word_embeddings=True,
        max_position_embeddings=max_tokens,
        original_max_position_embeddings=max_tokens,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.device("meta"):
        _check_room(4.0 * sum(p.numel() for p in Phi3ForCausalLM(config).parameters()))
    torch.manual_seed(seed)
    Phi3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _check_room(weights: float) -> None:
    free = available_bytes("cpu")
    if weights > free:
        message = f"A model of this shape needs {weights / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free."
        raise TooLittleMemory(message)


def _texts(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        for message in messages(row):
            yield message["content"]


def plan(base: Path, config: FinetuneConfig, *, device: str, processes: int = 1) -> MemoryPlan:
    """The memory that each process of the run will take.

    Raises: UnusableModel; UnknownTargets; TooFewGpus; TooLittleMemory when it does not fit ``device`` now.
    """
    check_devices(processes, device)
    model = empty_model(base)
    if config.train == "adapter":
        resolve_targets(model, config.lora.targets)
    planned = memory_plan(model, config, device=device)
    free = available_bytes(device, gpu_share=config.gpu_memory_share)
    needed = planned.total * (1 if device.startswith("cuda") else processes)
    if needed > free:
        message = f"The run needs {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free on {device}.\n{planned.table()}"
        raise TooLittleMemory(message)
    return planned


def train_line(
    rows: Sequence[Row],
    base: Path,
    config: FinetuneConfig,
    run: Run,
    *,
    device: str,
    processes: int = 1,
    gguf: Sequence[Quant] = (),
    documents: Sequence[str] = (),
) -> Finished:
    """Fine-tune, finish and measure. Raises: ValueErrors that say what is wrong before anything is trained."""
    tokenizer = load_tokenizer(base)
    prepared = prepare(rows, tokenizer, config, documents=documents)
    data = prepared.data
    if prepared.n_too_long:
        run.note(
            f"{prepared.n_too_long} rows do not fit into {config.max_tokens} tokens and were left out.", level="warning"
        )
    run.note(plan(base, config, device=device, processes=processes).table())
    if processes > 1:
        run.note(f"{processes} processes train together.")
        train_together(base, config, data, run, device=device, processes=processes)
    take_share(device, config.gpu_memory_share)
    model = load_base(base, quantise=config.quantise, dtype=compute_dtype(device, config), device=device)
    training = Finetuning(model, config, seed=run.seed)
    run.note(f"{sum(p.numel() for p in training.parameters()):,} trainable parameters.")
    try:
        outcome = finetune(training, data, run)
        run.progress(0.96, "merging and burning in")
        folder = run.workdir / "bundle"
        metrics = {name: value for name, value in outcome.metrics.items() if not name.startswith("perplexity")}
        metrics |= _finish(training, base, tokenizer, prepared, folder)
    finally:
        training.close()
    run.progress(0.98, "exporting")
    _export(folder, gguf)
    thinking = sum(row.has_thinking for row in rows) >= len(rows) / 2
    reading = any(row.input.startswith("[1] ") for row in rows)
    _describe(folder, config, base, prepared.data_hash, metrics, thinks=thinking, reads=reading)
    keep_known(folder, rows, share=config.validation_share)
    _trace(folder, base, prepared.data_hash)
    return Finished(folder, metrics, prepared.data_hash)


def _finish(training: Finetuning, base: Path, tokenizer: Any, prepared: Prepared, folder: Path) -> dict[str, float]:
    """Write adapter and plain model; what the plain model reaches on the validation rows."""
    data, batch_size = prepared.data, training.config.batch_size
    probes = [sample for row in (data.validation or data.train)[:8] for sample in row]
    if training.config.train == "all":
        training.close()
        model, gates = training.model, training.gates
    else:
        save_adapter(training, folder / ADAPTER)
        model, gates = merged_model(base, folder / ADAPTER)
    certificate = write_model(model, gates, tokenizer, folder / MODEL, probes=probes)
    reached: dict[str, float] = measure(model, tokenizer, data, batch_size=batch_size)
    of_texts = measure(model, tokenizer, prepared.texts, batch_size=batch_size)
    reached |= {f"text_{name}": value for name, value in of_texts.items()}
    if certificate is not None:
        reached |= {"burn_in_relative_error": certificate.relative_error, "burn_in_kl": certificate.kl}
    return reached


@torch.no_grad()
def measure(model: Any, tokenizer: Any, data: Data, *, batch_size: int) -> dict[str, float]:
    """Loss and accuracy for each learnt token of the validation rows; nothing without such rows.

    Beside them the share of the most frequent token, which is what guessing it always would reach, and the answers' log₂
    likelihood for each UTF-8 byte (≤ 0, higher is better), which models with different tokenizers share.
    """
    nats: float = 0.0  # over all learnt tokens
    right, learnt = 0, Counter[int]()
    with evaluating(model):
        for logits, labels in learnt_logits(model, data, batch_size=batch_size):
            nats += F.cross_entropy(logits.float(), labels, reduction="sum").item()
            right += int((logits.argmax(-1) == labels).sum())
            learnt.update(labels.tolist())
    n = learnt.total()
    if not n:
        return {}
    answers = (sample.ids[max(1, sample.n_prompt) :] for row in data.validation for sample in row)
    n_bytes = sum(len(text.encode()) for text in tokenizer.batch_decode(list(answers), skip_special_tokens=False))
    reached: dict[str, float] = {
        "loss": nats / n,
        "token_accuracy": right / n,
        "token_accuracy_of_most_frequent": learnt.most_common(1)[0][1] / n,
        "log2_likelihood_per_byte": -nats / math.log(2.0) / max(1, n_bytes),
    }
    return reached


def _export(folder: Path, kinds: Sequence[Quant]) -> None:
    """GGUF files of the finished model, with a Modelfile for the last one."""
    if not kinds:
        return
    model, tokenizer = load_base(folder / MODEL), load_tokenizer(folder / MODEL)
    for kind in kinds:
        name = f"model.{kind}.gguf"
        export_gguf(model, tokenizer, folder / name, quant=kind)
        (folder / "Modelfile").write_text(modelfile(name, tokenizer), "utf-8")


def _describe(
    folder: Path,
    config: FinetuneConfig,
    base: Path,
    data_hash: str,
    metrics: dict[str, float],
    *,
    thinks: bool,
    reads: bool,
) -> None:
    document = {
        "kind": "phi3",
        "config": config.model_dump(mode="json"),
        "thinks": thinks,  # whoever asks the model need not ask it to
        "reads": reads,  # passages stand behind the question, as in its rows
        "base": base_hash(base),
        "data_hash": data_hash,
        "metrics": metrics,
    }
    (folder / BUNDLE).write_text(json.dumps(document, indent=2, ensure_ascii=False), "utf-8")


def base_hash(base: Path) -> str:
    """SHA-256 over the base's weights and configuration: what was tuned, whatever its folder is called."""
    return lineage.sha256_of_files(base, [*(path.name for path in base.glob("*.safetensors")), "config.json"])


def _trace(folder: Path, base: Path, data_hash: str) -> None:
    """What the bundle is from, link by link."""

    def below(name: str) -> list[str]:
        return [path.relative_to(folder).as_posix() for path in (folder / name).rglob("*") if path.is_file()]

    lineage.begin(folder, data=data_hash, base=base_hash(base))
    lineage.extend(folder, "adapter", below(ADAPTER))
    lineage.extend(folder, "weights", below(MODEL))
    lineage.extend(folder, "gguf", [path.name for path in folder.glob("*.gguf")])


def copy_base(folder: Path, to: Path) -> Path:
    """The model part of a bundle as a base to train on, in full if it was stored in int8. Raises: UnusableModel if the bundle has none."""
    if not (folder / MODEL / "config.json").is_file():
        raise UnusableModel("The bundle holds no model of the family.")
    if not stored_in_int8(folder / MODEL):
        shutil.copytree(folder / MODEL, to)
        return to
    load_base(folder / MODEL).save_pretrained(to)
    load_tokenizer(folder / MODEL).save_pretrained(to)
    return to
