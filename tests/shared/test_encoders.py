"""OpenCLIP through its real loading code, with a tiny random model of the same classes."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.shared.tiny_openclip import TINY, save_tiny

from genba_shared import encoders
from genba_shared.encoders import EncoderUnavailable, OpenClip, find_source, open_openclip

pytest.importorskip("torch", reason="the extra openclip is not installed")

pytestmark = pytest.mark.openclip

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny(folder: Path) -> OpenClip:
    return open_openclip("openclip:tiny", folder, device="cpu")


def pictures(count: int, height: int = 90, width: int = 120) -> list[Pixels]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def test_images_and_texts_become_unit_rows_in_one_space(tiny: OpenClip) -> None:
    images, texts = tiny.encode_images(pictures(3)), tiny.encode_texts(["a torque wrench", "gloves"])
    assert images.shape == (3, 24)
    assert texts.shape == (2, 24)
    assert tiny.dim == 24
    assert images.dtype == texts.dtype == np.float32
    assert np.allclose(np.linalg.norm(np.concatenate([images, texts]), axis=1), 1, atol=1e-5)


def test_an_image_is_seen_as_open_clip_itself_would_see_it(tiny: OpenClip) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    transform = image_transform_v2(PreprocessCfg(**tiny._model.visual.preprocess_cfg), is_train=False)
    for height, width in [(90, 120), (121, 77), (64, 64), (480, 854), (65, 64)]:
        rough = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(rough).resize((width, height)))
        theirs = transform(Image.fromarray(picture))
        ours = tiny._prepared([picture])[0]
        assert ours.shape == theirs.shape
        assert float((ours - theirs).abs().max()) < 1.5 / 255 / 0.26
        row = tiny._model.encode_image(theirs[None]).detach().numpy()
        assert float(tiny.encode_images([picture])[0] @ (row[0] / np.linalg.norm(row))) > 0.9999


def test_how_images_are_batched_does_not_change_their_rows(folder: Path, tiny: OpenClip) -> None:
    small = open_openclip("openclip:tiny", folder, device="cpu", batch=4)
    many = [*pictures(9), *pictures(2, 70, 70)]
    assert np.allclose(small.encode_images(many), tiny.encode_images(many), atol=1e-5)
    assert np.allclose(tiny.encode_images(many)[3], tiny.encode_images([many[3]])[0], atol=1e-5)


def test_sixty_four_images_go_through_at_once_unless_said_otherwise(tiny: OpenClip) -> None:
    assert tiny.batch == 64
    assert [len(part) for part in encoders._batches(list(range(150)), tiny.batch)] == [64, 64, 22]


def test_nothing_in_gives_nothing_out(tiny: OpenClip) -> None:
    assert tiny.encode_images([]).shape == (0, 24)
    assert tiny.encode_texts([]).shape == (0, 24)


def test_a_text_longer_than_the_context_is_cut_off(tiny: OpenClip) -> None:
    assert tiny.encode_texts(["tighten the plug " * 100]).shape == (1, 24)


def test_other_weights_are_another_encoder(folder: Path, tiny: OpenClip, tmp_path: Path) -> None:
    other = open_openclip("openclip:tiny", save_tiny(tmp_path / "other", seed=1), device="cpu")
    again = open_openclip("openclip:tiny", folder, device="cpu")
    assert tiny.id.startswith("openclip:tiny@")
    assert other.id != tiny.id == again.id


def test_a_checkpoint_may_be_named_itself(folder: Path, tiny: OpenClip, tmp_path: Path) -> None:
    """Also when another one lies beside it, which open_clip would have taken."""
    save_tiny(tmp_path, seed=7)
    chosen = tmp_path / "epoch_3.pt"
    state = save_tiny(tmp_path / "same", weights="open_clip_pytorch_model.bin")
    (state / "open_clip_pytorch_model.bin").replace(chosen)
    named = open_openclip("openclip:tiny", chosen, device="cpu")
    assert np.allclose(named.encode_texts(["oil"]), tiny.encode_texts(["oil"]), atol=1e-6)


def test_a_built_in_architecture_needs_its_checkpoint_only(tmp_path: Path, tiny: OpenClip) -> None:
    _, open_clip = encoders._load_libraries()
    (tmp_path / "genba-tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path)
    chosen = save_tiny(tmp_path / "same", weights="open_clip_pytorch_model.bin") / "open_clip_pytorch_model.bin"
    bare = chosen.replace(tmp_path / "epoch_3.pt")
    opened = open_openclip("openclip:genba-tiny", bare, device="cpu")
    assert np.allclose(opened.encode_texts(["oil"]), tiny.encode_texts(["oil"]), atol=1e-6)


@pytest.mark.parametrize("architecture", ["ViT-H-14", "ViT-B-32"])
def test_the_widths_that_we_promise_are_those_of_the_architectures(architecture: str) -> None:
    _, open_clip = encoders._load_libraries()
    config = open_clip.get_model_config(architecture)
    assert config["embed_dim"] == encoders.DIMS[architecture]
    assert config["vision_cfg"]["image_size"] == 224


def test_without_weights_it_says_so_and_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket", None)
    with pytest.raises(EncoderUnavailable, match="nothing is downloaded"):
        find_source("openclip:ViT-H-14")
    with pytest.raises(EncoderUnavailable, match="There are no weights"):
        find_source("openclip:ViT-H-14", tmp_path)


def test_weights_in_the_hub_cache_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a1b2")
    snapshot = save_tiny(repository / "snapshots" / "a1b2")
    source = find_source("openclip:ViT-B-32")
    assert source.folder == snapshot
    assert source.weights == snapshot / "open_clip_model.safetensors"
    assert OpenClip("openclip:ViT-B-32", source, device="cpu").dim == 24


class _Attack:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.mkdir, ("should-not-exist",))


def test_a_checkpoint_that_would_run_code_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps({"a": _Attack()}, protocol=2))
    (tmp_path / "open_clip_config.json").write_bytes((folder / "open_clip_config.json").read_bytes())
    with pytest.raises(EncoderUnavailable, match="cannot be read safely"):
        open_openclip("openclip:tiny", tmp_path, device="cpu")
    assert not (tmp_path / "should-not-exist").exists()


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match="do not fit"):
        open_openclip("openclip:tiny", save_tiny(tmp_path, embed_dim=25), device="cpu")


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_weights_that_were_cut_off_are_refused(folder: Path, tmp_path: Path, share: float) -> None:
    """As an upload leaves them that broke off."""
    whole = (folder / "open_clip_model.safetensors").read_bytes()
    (tmp_path / "open_clip_model.safetensors").write_bytes(whole[: int(share * len(whole))])
    (tmp_path / "open_clip_config.json").write_bytes((folder / "open_clip_config.json").read_bytes())
    with pytest.raises(EncoderUnavailable, match="do not fit"):
        open_openclip("openclip:tiny", tmp_path, device="cpu")


def test_weights_of_another_architecture_are_refused(folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((folder / "open_clip_model.safetensors").read_bytes())
    with pytest.raises(EncoderUnavailable, match="do not fit"):
        open_openclip("openclip:ViT-B-32", alone, device="cpu")


def test_a_model_that_would_fetch_parts_is_refused(tmp_path: Path) -> None:
    text = {**TINY["text_cfg"], "hf_model_name": "roberta-base"}  # type: ignore[dict-item]
    with pytest.raises(EncoderUnavailable, match="downloaded"):
        open_openclip("openclip:tiny", save_tiny(tmp_path, text_cfg=text), device="cpu")


def test_a_broken_configuration_is_refused(folder: Path, tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "open_clip_config.json").write_text("{")
    with pytest.raises(EncoderUnavailable, match="cannot be read"):
        open_openclip("openclip:tiny", tmp_path, device="cpu")


def test_a_name_that_is_no_openclip_encoder_is_the_callers_mistake() -> None:
    for name in ("motion-hog-v1", "openclip:"):
        with pytest.raises(ValueError, match="no OpenCLIP encoder"):
            find_source(name)
