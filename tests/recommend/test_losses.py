from __future__ import annotations

import numpy as np
import torch

from genba_recommend.losses import contrast, hardest, hinge, mixture_log_expected, sampled_softmax


def test_the_sampled_loss_estimates_the_full_softmax_under_a_skewed_proposal() -> None:
    rng = np.random.default_rng(0)
    n_items, positive = 50, 3
    logits = torch.from_numpy(rng.normal(size=n_items)).float()
    frequency = torch.from_numpy(rng.dirichlet(np.full(n_items, 0.3))).float()
    full = torch.logsumexp(logits, 0) - logits[positive]
    n_in_batch, n_uniform = 4_000, 4_000
    drawn = np.concatenate(
        [
            rng.choice(n_items, n_in_batch, p=frequency.double().numpy() / frequency.double().numpy().sum()),
            rng.integers(0, n_items, n_uniform),
        ]
    )
    log_expected = mixture_log_expected(frequency[drawn], n_in_batch=n_in_batch, n_uniform=n_uniform, n_items=n_items)
    estimate = sampled_softmax(
        logits[positive][None],
        logits[drawn][None],
        log_expected=log_expected,
        mask=torch.from_numpy(drawn == positive)[None],
    )
    assert abs(float(estimate - full)) < 0.02
    wrong_sign = sampled_softmax(
        logits[positive][None],
        logits[drawn][None],
        log_expected=-log_expected,
        mask=torch.from_numpy(drawn == positive)[None],
    )
    assert abs(float(wrong_sign - full)) > 1  # the classic bug would be noticed


def test_a_row_without_negatives_has_no_loss_and_no_nan() -> None:
    everything = torch.ones(1, 3, dtype=torch.bool)
    loss = sampled_softmax(torch.zeros(1), torch.zeros(1, 3), log_expected=torch.zeros(3), mask=everything)
    assert float(loss) == 0
    assert float(hinge(torch.zeros(1), torch.zeros(1, 3), margin=0.2, mask=everything)) == 0


def test_the_hinge_leaves_alone_what_is_a_margin_apart() -> None:
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    assert float(hinge(torch.tensor([0.9]), torch.tensor([[0.1, 0.2]]), margin=0.3, mask=nothing)) == 0
    near = hinge(torch.tensor([0.5]), torch.tensor([[0.4, 0.0]]), margin=0.3, mask=nothing)
    assert abs(float(near) - 0.1) < 1e-6


def test_the_hardest_are_the_highest_that_are_no_hits() -> None:
    scores, mask = torch.tensor([[3.0, 9.0, 5.0]]), torch.tensor([[False, True, False]])
    assert hardest(scores, 1, mask=mask).tolist() == [[2]]
    assert float(contrast(torch.tensor([10.0]), torch.tensor([[-10.0]]))) < 1e-6


def test_rows_can_weigh_differently() -> None:
    positive, negative = torch.tensor([0.0, 5.0]), torch.zeros(2, 1)
    mask = torch.zeros(2, 1, dtype=torch.bool)
    one = sampled_softmax(positive, negative, log_expected=torch.zeros(1), mask=mask, weight=torch.tensor([1.0, 0.0]))
    assert abs(float(one) - np.log(2)) < 1e-6
