"""One temperature for a model's tokens, so that its probabilities are what comes true: fitted on half of the held-out rows,
reported on the other half.

The bundle keeps it in ``calibration.json``; svc-llm divides the logits by it before anything else.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from genba_llm.burn_in import evaluating
from genba_llm.classifier import softmax
from genba_llm.finetune import Data
from genba_llm.fusion_fit import fit_temperature
from genba_llm.gate_metrics import expected_calibration_error
from genba_llm.refused import Refused
from genba_llm.so8t_bundle import CALIBRATION
from genba_llm.token_loss import learnt_logits

LEAST_TOKENS: Final = 200
_MOST_LOGITS = 1 << 24  # rows times vocabulary held at a time, 128 MiB in double precision


class TooFewTokens(Refused):
    """The held-out rows have too few learnt tokens to fit a temperature."""


@dataclass(frozen=True)
class Calibrated:
    """``temperature`` by L-BFGS, ``temperature_grid`` on the grid 0.5 to 3.0; losses in nats a token, on tokens not fitted on."""

    temperature: float
    temperature_grid: float
    tokens_fitted: int
    tokens_measured: int
    loss_before: float
    loss_after: float
    ece_before: float
    ece_after: float

    def save(self, folder: Path) -> None:
        """Into a bundle's folder."""
        (folder / CALIBRATION).write_text(json.dumps(asdict(self), indent=1), "utf-8")


def calibrate(model: Any, data: Data, *, batch_size: int) -> Calibrated:
    """Fit on every other learnt token of the validation rows. Raises: TooFewTokens."""
    logits, labels = token_logits(model, data, batch_size=batch_size)
    if len(labels) < LEAST_TOKENS:
        raise TooFewTokens(
            f"The held-out rows have {len(labels)} learnt tokens; {LEAST_TOKENS} are needed to calibrate."
        )
    grid, exact = fit_temperature(logits[::2], labels[::2])
    held, truth = logits[1::2], labels[1::2]
    before, after = softmax(held), softmax(held / exact)
    return Calibrated(
        exact,
        grid,
        len(labels[::2]),
        len(truth),
        _loss(before, truth),
        _loss(after, truth),
        _ece(before, truth),
        _ece(after, truth),
    )


@torch.inference_mode()
def token_logits(model: Any, data: Data, *, batch_size: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """(N, V) logits and (N,) tokens that came, for the learnt tokens of the validation rows, as many as memory allows."""
    logits: list[npt.NDArray[np.float64]] = []
    labels: list[npt.NDArray[np.int64]] = []
    room = max(LEAST_TOKENS, _MOST_LOGITS // int(model.config.vocab_size))
    with evaluating(model):
        for some, came in learnt_logits(model, data, batch_size=batch_size):
            logits.append(some[:room].double().cpu().numpy())
            labels.append(came[:room].cpu().numpy())
            room -= len(labels[-1])
            if room <= 0:
                break
    if not labels:
        return np.empty((0, 1)), np.empty(0, np.int64)
    return np.concatenate(logits), np.concatenate(labels)


def _loss(probs: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    return float(-np.log(probs[np.arange(len(labels)), labels] + 1e-12).mean())


def _ece(probs: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    return expected_calibration_error(probs.argmax(-1) == labels, probs.max(-1))
