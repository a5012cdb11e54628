"""The encoder that teaches itself: what it learns, that it goes on where it stopped, and that it is the same wherever it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.sem.sem_world import KINDS, picture

from genba_sem.onsite import DIM, Cuts, OnsiteEncoder, cut
from genba_sem.onsite_training import State, teach


@pytest.fixture(scope="module")
def lab() -> tuple[Cuts, list[str]]:
    """36 particles of two views."""
    rng = np.random.default_rng(5)
    cuts, shown = [], []
    for number in range(36):
        for _ in range(2):
            pixels = picture(KINDS[number % len(KINDS)], rng)
            cuts.append(cut(pixels, pixels > 0.5))
            shown.append(f"{number}")
    return np.stack(cuts), shown


class Interrupted(Exception):
    pass


def test_it_learns_to_tell_particles_apart_and_a_turn_or_a_mirror_changes_nothing(lab: tuple[Cuts, list[str]]) -> None:
    losses: list[float] = []
    encoder = teach(*lab, steps=12, seed=0, after_step=lambda state: losses.append(state().loss))
    assert losses[-1] < losses[0]
    pixels = picture("needle", np.random.default_rng(8))
    row = encoder.describe(pixels, pixels > 0.5)[-DIM:]
    for other in (np.rot90(pixels), pixels[:, ::-1], pixels[::-1]):
        turned = np.ascontiguousarray(other)
        again = encoder.describe(turned, turned > 0.5)[-DIM:]
        cosine = float(row @ again / np.linalg.norm(row) / np.linalg.norm(again))
        assert cosine > 0.995  # a pixel more or less at the cut


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(lab: tuple[Cuts, list[str]]) -> None:
    kept: list[State] = []

    def stops(state: Callable[[], State]) -> None:
        kept.append(state())
        if len(kept) == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        teach(*lab, steps=4, seed=3, after_step=stops)
    whole = teach(*lab, steps=4, seed=3)
    resumed = teach(*lab, steps=4, seed=3, resumed=kept[-1])
    pixels = picture("disc", np.random.default_rng(1))
    rows = [encoder.describe(pixels, pixels > 0.5) for encoder in (whole, resumed)]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)


def test_it_is_the_same_encoder_wherever_its_graph_is_loaded(lab: tuple[Cuts, list[str]], tmp_path: Path) -> None:
    bare = teach(*lab, steps=1, seed=0)
    rng = np.random.default_rng(2)
    pixels = [picture(kind, rng) for kind in KINDS for _ in range(6)]
    raw = np.stack([bare.describe(each, each > 0.5) for each in pixels])
    encoder = bare.fitted(raw, [str(at // 2) for at in range(len(raw))])
    files = tmp_path / "encoder.onnx", tmp_path / "encoder.safetensors"
    encoder.save(*files)
    again = OnsiteEncoder.load(*files)
    assert (again.id, again.kind) == (encoder.id, encoder.kind)
    assert encoder.kind == bare.kind
    assert encoder.id != bare.id
    rows = again.embed(raw)
    assert rows.shape == (len(raw), encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(rows, encoder.embed(raw))
    assert teach(*lab, steps=2, seed=0).kind != encoder.kind
    with pytest.raises(ValueError, match="cannot be read"):
        OnsiteEncoder(b"nothing")
    with pytest.raises(ValueError, match="too few to learn from"):
        teach(lab[0][:8], lab[1][:8], steps=1, seed=0)
