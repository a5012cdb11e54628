"""Would requests that share an encoder's call gain anything? CPU ms an image by images in a call, DINOv2-S's shape on ONNX Runtime.

    python benchmarks/sem_batching.py

One thread a call, as the service runs it: its workers are the parallelism. The weights are random, which changes no speed; the exported
graphs are those of ``genba sem export-encoder``. The embedded encoder describes one picture at a time whatever arrives. Needs torch,
transformers and onnx.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from genba_sem.dino import export_onnx
from genba_shared.torchvision import make_torchvision_importable

SIDE_PX, IMAGES, ROUNDS = 224, 24, 3
AT_ONCE = (1, 2, 6, 12, 24)


def session(folder: Path, precision: Literal["fp32", "int8"]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    graph = export_onnx(folder, folder / precision, precision=precision)
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def cpu_ms(runner: ort.InferenceSession, images: np.ndarray, at_once: int) -> float:
    """The least of a few rounds: others use the machine too."""
    spent = []
    for _ in range(ROUNDS):
        started_s = time.process_time()
        for start in range(0, len(images), at_once):
            runner.run(None, {"pixel_values": images[start : start + at_once]})
        spent.append(1000 * (time.process_time() - started_s) / len(images))
    return min(spent)


def main() -> None:
    make_torchvision_importable()
    import transformers

    shape = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "patch_size": 14}
    model = transformers.Dinov2Model(transformers.Dinov2Config(image_size=SIDE_PX, **shape))
    images = np.random.default_rng(0).standard_normal((IMAGES, 3, SIDE_PX, SIDE_PX)).astype(np.float32)
    print(f"| images in a call | {' | '.join(map(str, AT_ONCE))} |\n|---|{'---|' * len(AT_ONCE)}")
    with tempfile.TemporaryDirectory(prefix="genba-sem-batching-") as folder:
        model.save_pretrained(folder)
        for precision in ("fp32", "int8"):
            runner = session(Path(folder), precision)
            cells = [f"{cpu_ms(runner, images, at_once):.1f}" for at_once in AT_ONCE]
            print(f"| {precision}, CPU ms an image | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
