from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genba_sem.encoders import unit
from genba_sem.set_models import KIND_NAMES, Kind, LearntFusion
from genba_sem.set_training import train
from genba_sem.views import QualityMean

Particles = tuple[list[np.ndarray], list[np.ndarray], np.ndarray]


def particles(rng: np.random.Generator, each: int = 5, classes: int = 3, dim: int = 16) -> Particles:
    labels = np.repeat(np.arange(classes), each)
    views = [unit(np.eye(classes, dim)[label] + 0.3 * rng.normal(size=(6, dim))) for label in labels]
    return views, [rng.uniform(0.3, 1, 6).astype(np.float32) for _ in labels], labels


@pytest.fixture(scope="module", params=list(KIND_NAMES))
def fusion(request: pytest.FixtureRequest) -> LearntFusion:
    kind: Kind = request.param
    return train(kind, *particles(np.random.default_rng(0)), steps=40)


def test_neither_order_nor_repetition_nor_a_black_view_changes_the_row(fusion: LearntFusion) -> None:
    rng = np.random.default_rng(1)
    views, quality, _ = particles(rng)
    rows, trust = views[0], quality[0]
    whole = fusion.fuse(rows, trust)
    order = rng.permutation(6)
    shuffled = fusion.fuse(rows[order], trust[order])
    assert shuffled.row == pytest.approx(whole.row, abs=1e-5)
    assert shuffled.weights == pytest.approx(whole.weights[order], abs=1e-5)
    twice = fusion.fuse(np.concatenate([rows, rows[:1]]), np.append(trust, trust[0]))
    assert twice.row == pytest.approx(whole.row, abs=1e-4)
    black = fusion.fuse(np.concatenate([rows, -rows[:1]]), np.append(trust, np.float32(0)))
    assert black.row == pytest.approx(whole.row, abs=1e-5)
    assert black.weights[-1] == 0


def test_it_starts_as_the_weighted_mean_and_learns_to_tell_labels_apart(fusion: LearntFusion) -> None:
    views, quality, labels = particles(np.random.default_rng(2))
    untrained = train(fusion.kind, views, quality, labels, steps=0)
    assert untrained.fuse(views[0], quality[0]).row == pytest.approx(
        QualityMean().fuse(views[0], quality[0]).row, abs=1e-4
    )
    rows = np.stack([fusion.fuse(v, q).row for v, q in zip(views, quality, strict=True)])
    prototypes = np.stack([rows[labels == label].mean(0) for label in range(3)])
    assert ((rows @ prototypes.T).argmax(1) == labels).mean() > 0.9


def test_it_is_saved_and_loaded_as_the_same_fusion(fusion: LearntFusion, tmp_path: Path) -> None:
    fusion.save(tmp_path / "fusion.safetensors")
    again = LearntFusion.load(tmp_path / "fusion.safetensors")
    views, quality, labels = particles(np.random.default_rng(3))
    assert again.id == fusion.id
    assert np.array_equal(again.fuse(views[1], quality[1]).row, fusion.fuse(views[1], quality[1]).row)
    assert not fusion.fuse(views[0], np.zeros(6, np.float32)).row.any()
    with pytest.raises(ValueError, match="two masters"):
        train(fusion.kind, views[:1], quality[:1], labels[:1])


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_it_serves_without_torch_what_torch_has_trained(kind: Kind) -> None:
    import torch

    from genba_sem.set_training import KINDS
    from genba_sem.views import view_weights

    views, quality, labels = particles(np.random.default_rng(4))
    trained = train(kind, views, quality, labels, steps=30, seed=2)
    model = KINDS[kind](trained.dim)
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in trained.tensors.items()})
    for rows, trust in zip(views, quality, strict=True):
        prior = view_weights(rows, trust)
        with torch.inference_mode():
            row, weights = model(torch.from_numpy(rows)[None], torch.from_numpy(prior)[None])
        found = trained.fuse(rows, trust)
        assert found.row == pytest.approx(unit(row[0].numpy()), abs=1e-5)
        assert found.weights == pytest.approx(weights[0].numpy(), abs=1e-5)
