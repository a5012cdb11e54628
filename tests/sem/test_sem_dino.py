from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.sem.sem_world import picture

from genba_sem.dino import open_dino
from genba_shared.encoders import EncoderUnavailable
from genba_shared.torchvision import make_torchvision_importable

make_torchvision_importable()
transformers = pytest.importorskip("transformers")


def saved(kind: str, folder: Path) -> Path:
    """A tiny model of the real classes; its weights are random, which only a test may have."""
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


@pytest.mark.parametrize("kind", ["dinov2", "dinov3_vit"])
def test_dino_describes_the_particle_inside_its_mask(kind: str, tmp_path: Path) -> None:
    encoder = open_dino(saved(kind, tmp_path))
    pixels = picture("disc", np.random.default_rng(0))
    mask = pixels > 0.5
    raw = encoder.describe(pixels, mask)
    assert raw.shape == (encoder.raw_dim,) == (64,)
    assert encoder.embed(raw[None]).shape == (1, encoder.dim)
    assert np.linalg.norm(encoder.embed(raw[None])) == pytest.approx(1, abs=1e-5)
    assert encoder.id.startswith(f"dino:{kind}@")
    around = np.where(mask, pixels, pixels + 0.05).astype(np.float32)
    inside = np.where(mask, 1 - pixels, pixels).astype(np.float32)
    assert np.linalg.norm(encoder.describe(inside, mask) - raw) > np.linalg.norm(encoder.describe(around, mask) - raw)


def test_without_weights_dino_is_unavailable_and_never_random(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match="readable config"):
        open_dino(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(EncoderUnavailable, match="no DINO model"):
        open_dino(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2", "hidden_size": 32, "patch_size": 14}))
    with pytest.raises(EncoderUnavailable, match="random weights"):
        open_dino(tmp_path)
    with pytest.raises(EncoderUnavailable, match="nothing is downloaded"):
        open_dino("facebook/dinov2-small")
