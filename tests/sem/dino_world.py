"""Tiny DINO models of the real classes; their weights are random, which only a test may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from genba_shared.torchvision import make_torchvision_importable

make_torchvision_importable()
transformers = pytest.importorskip("transformers")


def saved(kind: str, folder: Path) -> Path:
    """Write a model as its maker would."""
    import torch

    torch.manual_seed(0)
    if kind == "dinov2":
        sizes = {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 14,
            "image_size": 56,
        }
        model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes))
    else:
        sizes = {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 16,
        }
        model = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(num_register_tokens=4, **sizes))
    model.save_pretrained(folder)
    return folder
