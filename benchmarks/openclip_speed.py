"""Frames a second of svc-sop's OpenCLIP encoder beside open_clip alone on the same frames, and the largest difference of their rows.

    python benchmarks/openclip_speed.py [--architecture ViT-H-14] [--frames 512] [--batch 64]

The weights are random; their speed is that of real ones. open_clip alone gets its pixels ready on the device, so the ratio
holds what the encoder adds: frames to the device, resize, crop and normalisation there. On a GPU both run in its half precision.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from genba_shared.torchvision import make_torchvision_importable

make_torchvision_importable()

import open_clip  # noqa: E402 - torchvision first
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from genba_shared.encoders import open_openclip  # noqa: E402

ROUNDS = 5


def write_weights(architecture: str, folder: Path, device: str) -> None:
    """A folder as the hub has it: configuration and safetensors, random."""
    torch.manual_seed(0)
    model = open_clip.create_model(architecture, device=device)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    config = {
        "model_cfg": open_clip.get_model_config(architecture),
        "preprocess_cfg": dict(model.visual.preprocess_cfg),
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config), "utf-8")


def seconds(work: Callable[[], Any], device: str) -> float:
    """Median over rounds of one call, after one to warm up."""
    work()
    spent = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def main() -> int:
    """Print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="ViT-H-14")
    parser.add_argument("--frames", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    frames = np.random.default_rng(0).integers(0, 256, (args.frames, 480, 640, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        write_weights(args.architecture, Path(folder), device)
        encoder = open_openclip(f"openclip:{args.architecture}", Path(folder), device=device, batch=args.batch)
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[encoder.precision]
        plain = encoder._model  # noqa: SLF001 - the same weights, without what the encoder adds
        pixels = torch.randn(args.batch, 3, encoder.image_px, encoder.image_px, device=device, dtype=dtype)

        def alone() -> None:
            with torch.inference_mode():
                for _ in range(args.frames // args.batch):
                    plain.encode_image(pixels)

        ours, theirs = seconds(lambda: encoder.encode_images(list(frames)), device), seconds(alone, device)
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(
        f"{args.architecture} on {where}, {encoder.precision}, {args.frames} frames of 640×480, batches of {args.batch}"
    )
    print(f"open_clip alone, pixels ready   {args.frames / theirs:8.0f} frames/s")
    print(f"genba_shared.encoders, from RGB {args.frames / ours:8.0f} frames/s, {theirs / ours:.2f} of it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
