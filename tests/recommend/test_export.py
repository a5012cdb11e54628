"""One door exports a bundle's folder in each format, and says what a folder lacks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import save_file
from tests.recommend.tower_world import Towers, towers

from genba_recommend.export import BundleIncomplete, export
from genba_recommend.heads import Heads
from genba_recommend.neighbours import choices, ease
from genba_recommend.user_tower_onnx import OnnxTower


@pytest.fixture(scope="module")
def world() -> Towers:
    return towers()


def bundle(world: Towers, folder: Path) -> Path:
    """A bundle's folder as training writes it: one file of weights for each tower."""
    folder.mkdir()
    for tower in ("user_tower", "item_tower"):
        own = {k.removeprefix(f"{tower}."): v for k, v in world.weights.items() if k.startswith(f"{tower}.")}
        save_file({name: np.ascontiguousarray(value) for name, value in own.items()}, folder / f"{tower}.safetensors")
    (folder / "bundle.json").write_text(json.dumps({"temperature": 0.07}))
    (folder / "encoders.json").write_text(world.encoders.to_json(), "utf-8")
    ids = np.array([item.item_id for item in world.dataset.catalogue.items], np.str_)
    prior = np.zeros(len(ids), np.float32)
    np.savez(folder / "items.npz", ids=ids, genre=world.items.genre, maker=world.items.maker, prior=prior)
    np.save(folder / "vectors.npy", world.vectors, allow_pickle=False)
    return folder


def test_onnx_holds_both_towers_and_agrees_with_the_model(world: Towers, tmp_path: Path) -> None:
    done = export(bundle(world, tmp_path / "bundle"), "onnx", tmp_path / "out", tables="float32")
    assert {path.name for path in done.files} == {"encoders.json", "item_tower.onnx", "items.json", "user_tower.onnx"}
    assert done.total_bytes > 0
    found = OnnxTower(tmp_path / "out/user_tower.onnx").run(world.users.columns())
    np.testing.assert_allclose(found, world.answers, rtol=0, atol=1e-6)
    found = OnnxTower(tmp_path / "out/item_tower.onnx").run(world.items.columns())
    np.testing.assert_allclose(found, world.vectors, rtol=0, atol=1e-6)


def test_neighbours_heads_and_the_blend_go_along_in_every_format(world: Towers, tmp_path: Path) -> None:
    folder = bundle(world, tmp_path / "bundle")
    manifest = {"temperature": 0.07, "blend": {"neighbours": 4.0, "fade": 0.9}, "heads": ["liked"]}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    rng = np.random.default_rng(0)
    heads = Heads(("liked",), *(rng.normal(size=shape).astype(np.float32) for shape in ((48, 5), (5,), (5, 1), (1,))))
    heads.write(folder / "heads.safetensors")
    ease(choices(world.dataset.interactions, n_users=40, n_items=80), penalty=10.0).write(folder / "neighbours.npz")
    for format, name in (("onnx", "neighbours.onnx"), ("tfjs", "neighbours.bin")):  # noqa: A001 - the word people use
        out = tmp_path / format
        done = export(folder, format, out)  # type: ignore[arg-type]
        assert name in {path.name for path in done.files}
        told = json.loads((out / "items.json").read_text("utf-8"))
        assert told["blend"]["neighbours"] == 4.0
        assert "liked" in json.dumps(told["heads"])
    session = onnxruntime.InferenceSession(tmp_path / "onnx/heads.onnx", providers=["CPUExecutionProvider"])
    pairs = {"user": world.answers, "item": world.vectors[: len(world.answers)]}
    [chance] = session.run(("chance",), pairs)
    np.testing.assert_allclose(chance, heads.predict(pairs["user"], pairs["item"]), rtol=0, atol=1e-6)


def test_tfjs_holds_what_a_browser_needs(world: Towers, tmp_path: Path) -> None:
    done = export(bundle(world, tmp_path / "bundle"), "tfjs", tmp_path / "out", tables="int8")
    assert {path.suffix for path in done.files} == {".json", ".bin", ".mjs"}
    manifest = json.loads((tmp_path / "out/model.json").read_text())["weightsManifest"][0]
    quantised = {spec["name"] for spec in manifest["weights"] if "quantization" in spec}
    assert "items/embeddings" in quantised
    assert "pool/kernel" not in quantised


def test_a_bundle_of_the_user_tower_alone_is_exported_without_the_other(world: Towers, tmp_path: Path) -> None:
    folder = bundle(world, tmp_path / "bundle")
    (folder / "item_tower.safetensors").unlink()
    done = export(folder, "onnx", tmp_path / "out")
    assert "item_tower.onnx" not in {path.name for path in done.files}


@pytest.mark.parametrize(
    "missing", ["bundle.json", "encoders.json", "vectors.npy", "items.npz", "user_tower.safetensors"]
)
def test_a_folder_that_lacks_a_file_is_refused_by_name(missing: str, world: Towers, tmp_path: Path) -> None:
    folder = bundle(world, tmp_path / "bundle")
    (folder / missing).unlink()
    with pytest.raises(BundleIncomplete, match="user tower" if missing.endswith("safetensors") else missing):
        export(folder, "onnx", tmp_path / "out")


def test_vectors_of_another_catalogue_are_refused(world: Towers, tmp_path: Path) -> None:
    folder = bundle(world, tmp_path / "bundle")
    np.save(folder / "vectors.npy", world.vectors[:5], allow_pickle=False)
    with pytest.raises(BundleIncomplete, match="different lengths"):
        export(folder, "tfjs", tmp_path / "out")


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="onnx, tfjs, savedmodel"):
        export(tmp_path, "coreml", tmp_path / "out")  # type: ignore[arg-type]
