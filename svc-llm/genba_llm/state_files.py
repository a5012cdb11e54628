"""Training state on disk without a pickle: nested values with tensors inside become one JSON value and one safetensors file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def split(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """A JSON value in which every tensor is a reference, and the tensors by reference.

    Takes what optimisers keep: dicts with string or integer keys, lists, tuples, numbers, strings, None and tensors.
    Raises: TypeError for anything else.
    """
    tensors: dict[str, Tensor] = {}

    def walk(each: Any) -> Any:
        if torch.is_tensor(each):
            name = str(len(tensors))
            tensors[name] = each.detach().cpu().contiguous().clone()
            return {"tensor": name}
        if isinstance(each, dict):
            return {"pairs": [[key, walk(inner)] for key, inner in each.items()]}
        if isinstance(each, list | tuple):
            return {"list" if isinstance(each, list) else "tuple": [walk(inner) for inner in each]}
        if each is None or isinstance(each, bool | int | float | str):
            return {"value": each}
        message = f"A {type(each).__name__} cannot be kept in a checkpoint."
        raise TypeError(message)

    return walk(value), tensors


def join(document: Any, tensors: dict[str, Tensor]) -> Any:
    """What ``split`` was given."""
    if "tensor" in document:
        return tensors[document["tensor"]]
    if "pairs" in document:
        return {key: join(inner, tensors) for key, inner in document["pairs"]}
    if "list" in document:
        return [join(inner, tensors) for inner in document["list"]]
    if "tuple" in document:
        return tuple(join(inner, tensors) for inner in document["tuple"])
    return document["value"]


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write a safetensors file and wait until the disk has it; its SHA-256."""
    from safetensors.torch import save

    data = save(tensors)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(data).hexdigest()


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Raises: OSError; ValueError for a file that is no safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, Tensor] = load(path.read_bytes())
    except SafetensorError as err:
        message = f"{path.name} is no safetensors file: {err}"
        raise ValueError(message) from err
    return tensors


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
