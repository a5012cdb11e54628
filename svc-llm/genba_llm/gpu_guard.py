"""What a training may do to the card it runs on: how hot it may make it, and how much of its memory it may take.

Other programs live on the same card, the service that answers among them: a share is kept from them and not all of it, and a
card that is too hot gets a rest. Does nothing on a CPU.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from genba_llm.finetune import Attempt
    from genba_llm.finetune_config import FinetuneConfig

_REST_S = 5.0
_GIB = float(1 << 30)


class OutOfGpuMemory(RuntimeError):
    """The card's memory ran out in the middle: tried again from the checkpoint, for it may be another program that took it."""


def take_share(device: str, share: float) -> None:
    """Let this process have at most ``share`` of a GPU's memory; what is above fails in here and not in its neighbours."""
    found = torch.device(device)
    if found.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(share, torch.cuda.current_device() if found.index is None else found)


def watch(device: torch.device, run: Attempt) -> bool:
    """Whether the temperature of ``device`` can be read; says so where it should be and cannot."""
    if device.type != "cuda":
        return False
    try:
        torch.cuda.temperature(device)
    except Exception as err:  # noqa: BLE001 - NVML has errors of its own, and a card may have no sensor
        run.note(f"The GPU's temperature cannot be read and is not watched: {err}", level="warning")
        return False
    return True


def cool_down(device: torch.device, config: FinetuneConfig, run: Attempt) -> None:
    """Wait while the GPU is hotter than it may be."""
    while torch.cuda.temperature(device) > config.gpu_max_celsius:
        run.note(f"The GPU is above {config.gpu_max_celsius:.0f} °C; waiting.", level="warning")
        run.raise_if_cancelled()
        time.sleep(_REST_S)


def out_of_memory(device: torch.device, share: float, step: int) -> OutOfGpuMemory:
    """What to say when a step did not fit."""
    free, total = torch.cuda.mem_get_info(device)
    ours = torch.cuda.memory_reserved(device)
    return OutOfGpuMemory(
        f"The GPU's memory ran out at step {step}: {ours / _GIB:.1f} of {total / _GIB:.1f} GiB are this run's"
        f" (gpu_memory_share {share:g}), {free / _GIB:.1f} GiB are free. A smaller batch_size or max_tokens needs less,"
        " quantise: nf4 too."
    )
