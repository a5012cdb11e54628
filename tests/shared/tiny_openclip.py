"""A model of OpenCLIP's real classes, small enough for tests, as its hub would lay it into a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genba_shared import encoders

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PREPROCESS = {
    "mean": [0.48, 0.46, 0.41],
    "std": [0.27, 0.26, 0.28],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def save_tiny(folder: Path, *, seed: int = 0, weights: str = "open_clip_model.safetensors", **changed: Any) -> Path:
    torch, open_clip = encoders._load_libraries()
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    state = open_clip.CLIP(**TINY).state_dict()
    if weights.endswith(".safetensors"):
        save_file(state, str(folder / weights))
    else:
        torch.save(state, folder / weights)
    config = {"model_cfg": {**TINY, **changed}, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder
