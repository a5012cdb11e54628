"""The base model of a fine-tuning, from a folder on this machine. Never asks a hub, never runs a model's own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from genba_llm.finetune_config import FinetuneConfig, Quantise
from genba_llm.refused import Refused
from genba_llm.small_phi3 import load_tensors, stored_in_int8
from genba_shared.torchvision import make_torchvision_importable

FAMILY = "phi3"


class UnusableModel(Refused):
    """The base model cannot be used, and why."""


def check_base(folder: Path) -> dict[str, Any]:
    """The configuration of a model folder of the Phi-3 family (Phi-3.5-mini and Phi-4-mini are).

    Raises: UnusableModel for a missing or unreadable folder and for another family.
    """
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as err:
        message = f"There is no model at {folder.name!r}: config.json is missing."
        raise UnusableModel(message) from err
    except (OSError, ValueError) as err:
        message = f"The config.json of {folder.name!r} cannot be read: {err}."
        raise UnusableModel(message) from err
    if config.get("model_type") != FAMILY:
        message = f"{folder.name!r} is of the family {config.get('model_type')!r}; SO8T is for {FAMILY!r} (Phi-3.5-mini, Phi-4-mini)."
        raise UnusableModel(message)
    return config


def load_base(
    folder: Path, *, quantise: Quantise = "none", dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Any:
    """The model in evaluation mode. ``quantise`` holds its linear layers in int8 (LLM.int8, threshold 6.0) or nf4; a small
    model that is stored in int8, as the one that ships, is widened and held as it is.

    Raises: UnusableModel.
    """
    check_base(folder)
    make_torchvision_importable()
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if stored_in_int8(folder):
        return _widened(folder, dtype).to(device)
    how: dict[str, Any] = {}
    if quantise == "int8":
        how["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=6.0)
    elif quantise == "nf4":
        how["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
        )
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            dtype=dtype,
            device_map=device,
            attn_implementation="sdpa",
            **how,
        ).eval()
    except (OSError, ValueError, SafetensorError) as err:
        message = f"The model in {folder.name!r} cannot be loaded: {err}"
        raise UnusableModel(message) from err


def _widened(folder: Path, dtype: torch.dtype) -> Any:
    """A small model whose rows are stored in int8, in full."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=dtype)
    tensors = {name: torch.from_numpy(values) for name, values in load_tensors(folder).items()}
    model.load_state_dict(tensors, strict=False)  # the head is tied to the embedding
    return model.eval()


def load_tokenizer(folder: Path) -> Any:
    """Raises: UnusableModel without a tokenizer or without a chat template."""
    make_torchvision_importable()
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as err:
        message = f"The tokenizer in {folder.name!r} cannot be loaded: {err}"
        raise UnusableModel(message) from err
    if not tokenizer.chat_template:
        message = f"The tokenizer in {folder.name!r} has no chat template; rows cannot be written as conversations."
        raise UnusableModel(message)
    return tokenizer


def empty_model(folder: Path) -> Any:
    """The architecture without weights, on the meta device. Raises: UnusableModel."""
    check_base(folder)
    make_torchvision_importable()
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))


def available_bytes(device: str, *, gpu_share: float = 1.0) -> float:
    """Memory that is free on the device now; of a GPU, at most ``gpu_share`` of all that it has."""
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        return min(float(free), gpu_share * float(total))
    import psutil

    return float(psutil.virtual_memory().available)


def compute_dtype(device: str, config: FinetuneConfig) -> torch.dtype:
    """bfloat16 on a GPU for adapters, single precision elsewhere."""
    return torch.bfloat16 if device.startswith("cuda") and config.train == "adapter" else torch.float32
