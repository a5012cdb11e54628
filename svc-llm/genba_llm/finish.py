"""What a fine-tuning leaves behind: the adapter, and a plain model of the family with everything burnt into its weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from genba_llm.base_model import load_base, load_tokenizer
from genba_llm.burn_in import Certificate, burn_with_certificate
from genba_llm.finetune import Finetuning
from genba_llm.packing import Sample
from genba_llm.so8t import THETA, So8tConfig, So8tGates
from genba_llm.state_files import load_tensors, save_tensors

ANGLES = "so8t.safetensors"
PROBE_TOKENS = 256


def save_adapter(training: Finetuning, folder: Path) -> None:
    """LoRA in peft's own format and the angles with where they belong: small, and enough to make the model again from its base."""
    folder.mkdir(parents=True, exist_ok=True)
    if training.config.train == "adapter":
        training.model.save_pretrained(folder)
    if training.gates is not None:
        save_tensors(folder / ANGLES, {THETA: training.gates.theta.detach().cpu()})
        (folder / "so8t.json").write_text(json.dumps(training.gates.config.as_metadata()), "utf-8")


def load_gates(folder: Path, model: Any) -> So8tGates | None:
    """The gates of an adapter folder for ``model``, not attached; None if it was trained without. Raises: ValueError for other angles."""
    path = folder / "so8t.json"
    if not path.is_file():
        return None
    gates = So8tGates.for_model(model, So8tConfig.from_metadata(json.loads(path.read_text("utf-8"))))
    theta = load_tensors(folder / ANGLES)[THETA]
    if theta.shape != gates.theta.shape:
        message = f"The angles are {tuple(theta.shape)}, the model wants {tuple(gates.theta.shape)}: they belong to another base."
        raise ValueError(message)
    with torch.no_grad():
        gates.theta.copy_(theta)
    return gates


def merged_model(base: Path, adapter: Path, *, dtype: torch.dtype = torch.float32) -> tuple[Any, So8tGates | None]:
    """The base in its original weights with LoRA merged, and its gates beside it. Never merged into quantised weights.

    Raises: UnusableModel; ValueError.
    """
    model = load_base(base, dtype=dtype)
    gates = load_gates(adapter, model)
    if (adapter / "adapter_config.json").is_file():
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return model, gates


def write_model(
    model: Any, gates: So8tGates | None, tokenizer: Any, folder: Path, *, probes: Sequence[Sample]
) -> Certificate | None:
    """Burn, certify and save as safetensors with the tokenizer. The certificate lies beside the weights.

    Raises: CannotBurn when the burnt model does not answer like the gated one; nothing is written then.
    """
    certificate = (
        burn_with_certificate(model, gates, probe_tokens(probes), side=gates.config.side) if gates is not None else None
    )
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    if certificate is not None:
        (folder / "burn_in.json").write_text(json.dumps(certificate.as_json(), indent=2), "utf-8")
    return certificate


def probe_tokens(samples: Sequence[Sample]) -> torch.Tensor:
    """(B, T) unpadded tokens of validation samples to compare models on, at most 256 in a row and eight rows.

    Raises: ValueError without a sample.
    """
    longest = sorted(samples, key=lambda sample: -len(sample.ids))[:8]
    if not longest:
        raise ValueError("There are no samples to compare the models on.")
    length = min(PROBE_TOKENS, *(len(sample.ids) for sample in longest))
    return torch.tensor([sample.ids[:length] for sample in longest])


def reload(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer of a written folder. Raises: UnusableModel."""
    return load_base(folder), load_tokenizer(folder)
