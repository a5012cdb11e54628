"""The number that training makes small: both towers over one step, and the loss that the configuration names."""

from __future__ import annotations

import torch
from torch import Tensor

from genba_recommend.batches import HARD_POOL, SHARES, Step
from genba_recommend.losses import MASKED, contrast, hardest, hinge, mixture_log_expected, sampled_softmax
from genba_recommend.training_config import TrainingConfig
from genba_recommend.two_tower import TwoTower, device_of, history_table, tensors


def loss_of(model: TwoTower, step: Step, config: TrainingConfig, *, seed: int) -> Tensor:
    """Args: seed: of the ids that are dropped in this step. Returns: scalar."""
    device = device_of(model)
    step, items = step.on(device), tensors(step.items, device)
    # Drawn on the CPU, so that a seed drops the same ids on every device.
    drawn = torch.rand(len(items["id"]), generator=torch.Generator().manual_seed(seed)).to(device)
    items["id"] = items["id"] * (drawn >= config.towers.item_id_dropout)  # without an id features must do
    vectors = model.item_tower(items)  # (V, D)
    users = model.user_tower(tensors(step.users, device), history_table(vectors))  # (B, D)
    positive = (users * vectors[step.positive]).sum(1)  # (B,) cosines
    negative = users @ vectors[step.negative].T  # (B, M)
    if config.loss == "hinge":
        return _hinge(positive, negative, step, config)
    return _softmax(positive, negative, step, config)


def _softmax(positive: Tensor, negative: Tensor, step: Step, config: TrainingConfig) -> Tensor:
    temperature, lean = config.towers.temperature, config.prior_in_training
    positive = positive / temperature + lean * step.prior_positive
    negative = negative / temperature + lean * step.prior_negative
    n_in_batch = len(positive)
    n_uniform = negative.shape[1] - n_in_batch
    log_expected = mixture_log_expected(
        step.frequency, n_in_batch=n_in_batch, n_uniform=n_uniform, n_items=step.n_known
    )
    loss = sampled_softmax(positive, negative, log_expected=log_expected, mask=step.mask)
    if not config.hard_negatives or not n_uniform:
        return loss
    uniform, hits = negative[:, n_in_batch:], step.mask[:, n_in_batch:]
    hard = hardest(uniform.detach(), config.hard_negatives, mask=hits)
    return loss + config.hard_weight * contrast(positive, uniform.masked_fill(hits, MASKED).gather(1, hard))


def _hinge(positive: Tensor, negative: Tensor, step: Step, config: TrainingConfig) -> Tensor:
    """Samples come as random, popular, and the pool of which each row takes its hardest."""
    shared, pool = negative.shape[1] - HARD_POOL, slice(negative.shape[1] - HARD_POOL, None)
    hard = hardest(negative[:, pool].detach(), round(SHARES[1] * config.hinge_negatives), mask=step.mask[:, pool])
    scores = torch.cat([negative[:, :shared], negative[:, pool].gather(1, hard)], dim=1)
    mask = torch.cat([step.mask[:, :shared], step.mask[:, pool].gather(1, hard)], dim=1)
    return hinge(positive, scores, margin=config.hinge_margin, mask=mask)
