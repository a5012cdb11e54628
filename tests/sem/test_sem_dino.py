from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.sem.dino_world import saved
from tests.sem.sem_world import picture

from genba_sem.dino import export_onnx, open_dino, open_onnx
from genba_sem.plugins import Encoders
from genba_shared.encoders import EncoderUnavailable


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


def test_weights_that_were_cut_off_are_refused(tmp_path: Path) -> None:
    file = saved("dinov2", tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(EncoderUnavailable, match="cannot be read"):
        open_dino(tmp_path)


@pytest.mark.parametrize("kind", ["dinov2", "dinov3_vit"])
def test_an_onnx_export_gives_the_rows_of_the_model_and_says_that_it_is_another_encoder(
    kind: str, tmp_path: Path
) -> None:
    torch = open_dino(saved(kind, tmp_path / "weights"))
    export_onnx(tmp_path / "weights", tmp_path / "graph")
    onnx = open_onnx(tmp_path / "graph")
    for seed, what in enumerate(("disc", "needle", "square")):
        pixels = picture(what, np.random.default_rng(seed))
        there, here = torch.describe(pixels, pixels > 0.5), onnx.describe(pixels, pixels > 0.5)
        np.testing.assert_allclose(here, there, atol=2e-4)
    assert onnx.id.startswith(f"onnx:{kind}@")
    assert onnx.kind != torch.kind
    assert json.loads((tmp_path / "graph" / "config.json").read_text())["exported_from"] == torch.id


def test_eight_bits_keep_the_direction_of_rows(tmp_path: Path) -> None:
    torch = open_dino(saved("dinov2", tmp_path / "weights"))
    whole = export_onnx(tmp_path / "weights", tmp_path / "whole").stat().st_size
    small = export_onnx(tmp_path / "weights", tmp_path / "graph", precision="int8").stat().st_size
    pixels = picture("disc", np.random.default_rng(0))
    rows = [each.describe(pixels, pixels > 0.5) for each in (torch, open_onnx(tmp_path / "graph"))]
    assert float(rows[0] @ rows[1]) / 2 > 0.99  # both halves of a row are unit length
    assert small < whole


def test_encoders_are_opened_once_by_a_name_below_their_folder_and_nowhere_else(tmp_path: Path) -> None:
    saved("dinov2", tmp_path / "encoders" / "tiny")
    saved("dinov2", tmp_path / "outside")
    here = Encoders(tmp_path / "encoders")
    tiny = here.opened("dino:tiny")
    assert tiny is here.opened("dino:tiny")
    assert (tiny.name, tiny.kind) == ("dino:tiny", tiny.id)
    assert here.opened("hlg-shape-v1").kind == "hlg-shape-v1"
    for name in ("dino:../outside", "onnx:../outside", "onnx:tiny", "clip:tiny", "dino:nobody/nothing"):
        with pytest.raises(EncoderUnavailable):
            here.opened(name)
    with pytest.raises(EncoderUnavailable, match="There is no encoder onnx:tiny"):
        Encoders(None).opened("onnx:tiny")
