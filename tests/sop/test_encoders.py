"""Frames to rows: the embedded encoder, and OpenCLIP with a tiny random model of the real classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.sop.hostile_videos import Recording

from genba_shared.encoders import EncoderUnavailable
from genba_sop.encoders import MotionHogEncoder, OpenClipEncoder, open_encoder
from genba_sop.motion_hog import MotionHog
from genba_sop.video import extract


def test_the_embedded_encoder_is_named_like_its_rows() -> None:
    encoder = open_encoder("motion-hog-v1")
    assert isinstance(encoder, MotionHogEncoder)
    assert encoder.id == "motion-hog-v1"
    assert encoder.short_side_px is None


def test_a_name_that_is_not_known_is_said_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="motion-hog-v1, openclip:ViT-H-14 and openclip:ViT-B-32"):
        open_encoder("resnet")


def test_weights_that_are_not_there_are_a_clear_problem(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match="weights"):
        open_encoder("openclip:ViT-B-32", weights=tmp_path)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> OpenClipEncoder:
    pytest.importorskip("torch", reason="the extra openclip is not installed")
    from tests.shared.tiny_openclip import save_tiny

    opened = open_encoder("openclip:tiny", weights=save_tiny(tmp_path_factory.mktemp("tiny")), device="cpu")
    assert isinstance(opened, OpenClipEncoder)
    return opened


@pytest.mark.openclip
def test_a_video_is_encoded_by_openclip_from_frames_of_its_size(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    Recording(times_s=[0, 0.2, 0.5, 0.8, 1.9, 2.2]).write(path)
    got, usual = extract(path, encoder=encoder), extract(path)
    assert got.features.encoder == encoder.id != usual.features.encoder
    assert got.features.values.shape == (len(usual.features.times_s), 24)
    assert np.allclose(np.linalg.norm(got.features.values, axis=1), 1, atol=1e-5)
    assert np.array_equal(got.features.values[5], got.features.values[6])  # a still
    assert not np.allclose(got.features.values[0], got.features.values[2])
    assert got.features.local.shape == usual.features.local.shape


@pytest.mark.openclip
def test_frames_are_encoded_in_batches_and_come_back_in_order(encoder: OpenClipEncoder) -> None:
    rng = np.random.default_rng(2)
    frames = [rng.integers(0, 256, (64, 85, 3), dtype=np.uint8) for _ in range(150)]
    sizes: list[int] = []

    class Watched:
        batch = 64

        def encode_images(self, images: Any) -> Any:
            sizes.append(len(images))
            return encoder.clip.encode_images(images)

    encoding = OpenClipEncoder.begin(type("Of", (), {"clip": Watched()})())
    for frame in frames:
        encoding.add(frame)
    encoding.repeat()
    rows = encoding.values(MotionHog())
    assert sizes == [64, 64, 22]
    assert rows.shape == (151, 24)
    assert np.allclose(rows[[0, 70, 149]], encoder.clip.encode_images([frames[n] for n in (0, 70, 149)]), atol=1e-5)
    assert np.array_equal(rows[149], rows[150])
