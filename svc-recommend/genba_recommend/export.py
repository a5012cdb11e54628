"""Export the towers of a bundle for use elsewhere: ``export(bundle, "tfjs", out)``. One door for the command line and for code.

A bundle's folder holds bundle.json (with ``temperature`` and ``blend``), encoders.json, items.npz (ids, genre, maker, prior),
vectors.npy, neighbours.npz and heads.safetensors where they help, and the towers' weights in other *.safetensors, named as
``two_tower.parameters`` names them, or as one tower does in a file of its name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from genba_recommend.blending import Blend
from genba_recommend.features import Encoders
from genba_recommend.heads import FILE as HEADS
from genba_recommend.heads import Heads
from genba_recommend.neighbours import FILE as NEIGHBOURS
from genba_recommend.neighbours import Neighbours
from genba_shared.problems import Invalid

__all__ = ("FORMATS", "Bundle", "Exported", "export")

Float32s = npt.NDArray[np.float32]
Format = Literal["onnx", "tfjs", "savedmodel"]
Tables = Literal["float32", "float16", "int8"]
FORMATS: tuple[Format, ...] = get_args(Format)
TOWERS = ("user_tower", "item_tower")


class BundleIncomplete(Invalid):
    """The folder is not a bundle that can be exported."""


@dataclass(frozen=True)
class Bundle:
    """A bundle as read: everything that an export needs, and no torch."""

    weights: Mapping[str, Float32s]
    encoders: Encoders
    temperature: float
    ids: tuple[str, ...]
    genre: npt.NDArray[np.int32]  # (N, Lg)
    maker: npt.NDArray[np.int32]  # (N, 1)
    vectors: Float32s  # (N, D)
    prior: Float32s  # (N,)
    blend: Blend
    neighbours: Neighbours
    heads: Heads

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """Raises: BundleIncomplete naming the file that is missing or does not fit."""
        try:
            manifest = json.loads((folder / "bundle.json").read_text("utf-8"))
            encoders = Encoders.from_json((folder / "encoders.json").read_text("utf-8"))
            vectors = np.load(folder / "vectors.npy", allow_pickle=False)
            with np.load(folder / "items.npz", allow_pickle=False) as data:
                columns = {name: data[name] for name in ("ids", "genre", "maker", "prior")}
            temperature = float(manifest["temperature"])
            blend = Blend(**manifest.get("first_stage", manifest.get("blend", {})))  # what is exported ranks alone
            neighbours = Neighbours.read(folder / NEIGHBOURS, len(vectors))
            heads = Heads.read(folder / HEADS, tuple(manifest.get("heads", ())))
        except OSError as err:
            raise BundleIncomplete(f"{Path(str(err.filename)).name} of {folder.name} cannot be read.") from err
        except (KeyError, TypeError, ValueError) as err:
            raise BundleIncomplete(f"{folder.name} is not a recommender's bundle: {err}.") from err
        if len({len(vectors), len(neighbours), *map(len, columns.values())}) != 1:
            raise BundleIncomplete(f"items.npz and vectors.npy of {folder.name} are of different lengths.")
        ids = tuple(columns.pop("ids").tolist())
        return cls(
            weights=_weights(folder), encoders=encoders, temperature=temperature, ids=ids, vectors=vectors,
            blend=blend, neighbours=neighbours, heads=heads, **columns,
        )  # fmt: skip

    def has(self, tower: str) -> bool:
        """Whether the weights of a tower are there."""
        return any(name.startswith(f"{tower}.") for name in self.weights)


@dataclass(frozen=True)
class Exported:
    """What was written."""

    format: Format
    files: tuple[Path, ...]

    @property
    def total_bytes(self) -> int:
        """Return the size of all files."""
        return sum(path.stat().st_size for path in self.files)


def export(bundle_folder: Path, format: Format, out: Path, *, tables: Tables = "float16") -> Exported:  # noqa: A002 - the word people use
    """Write the towers of a bundle into ``out``. ``tables``: how embeddings are stored in onnx and tfjs (int8 is uint8 there).

    Raises: BundleIncomplete; ValueError for an unknown format.
    """
    if format not in FORMATS:
        message = f"The format is {format!r}, must be one of {', '.join(FORMATS)}"
        raise ValueError(message)
    bundle = Bundle.read(bundle_folder)
    if not bundle.has("user_tower"):
        raise BundleIncomplete(f"{bundle_folder.name} has no weights of a user tower.")
    out.mkdir(parents=True, exist_ok=True)
    if format == "tfjs":
        return Exported(format, tuple(_tfjs(bundle, out, tables)))
    (out / "encoders.json").write_text(bundle.encoders.to_json(), "utf-8")
    items = {
        "ids": bundle.ids,
        "temperature": bundle.temperature,
        "blend": asdict(bundle.blend),
        "heads": bundle.heads.tasks,
    }
    (out / "items.json").write_text(json.dumps(items, ensure_ascii=False), "utf-8")
    if format == "onnx":
        _onnx(bundle, out, tables)
    else:
        _savedmodel(bundle, out)
    return Exported(format, tuple(sorted(path for path in out.rglob("*") if path.is_file())))


def _onnx(bundle: Bundle, out: Path, tables: Tables) -> None:
    from genba_recommend import export_onnx as onnx

    onnx.save(onnx.user_tower(bundle.weights, vectors=bundle.vectors, tables=tables), out / onnx.USER_TOWER)
    if bundle.has("item_tower"):
        onnx.save(onnx.item_tower(bundle.weights, tables=tables), out / onnx.ITEM_TOWER)
    if bundle.heads.tasks:
        onnx.save(onnx.heads(bundle.heads), out / onnx.HEADS)
    if not bundle.neighbours.is_empty:
        item, weight, blend = bundle.neighbours.item, bundle.neighbours.weight, bundle.blend
        graph = onnx.neighbours(item, weight, blend=blend.neighbours, fade=blend.fade, tables=tables)
        onnx.save(graph, out / onnx.NEIGHBOURS)


def _tfjs(bundle: Bundle, out: Path, tables: Tables) -> list[Path]:
    from genba_recommend.export_tfjs import Listed, write

    listed = Listed(
        bundle.ids,
        bundle.genre,
        bundle.maker,
        bundle.vectors,
        bundle.prior,
        bundle.blend,
        bundle.neighbours,
        bundle.heads,
    )
    stored = "uint8" if tables == "int8" else tables
    return write(bundle.weights, bundle.encoders, listed, out, temperature=bundle.temperature, tables=stored)


def _savedmodel(bundle: Bundle, out: Path) -> None:
    from genba_recommend.export_savedmodel import write_item_tower, write_user_tower

    write_user_tower(bundle.weights, bundle.vectors, out / "user_tower")
    if bundle.heads.tasks:
        bundle.heads.write(out / HEADS)
    if not bundle.neighbours.is_empty:
        bundle.neighbours.write(out / NEIGHBOURS)
    if bundle.has("item_tower"):
        write_item_tower(bundle.weights, out / "item_tower")


def _weights(folder: Path) -> dict[str, Float32s]:
    found: dict[str, Float32s] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, value in load_file(path).items():
            whole = name if name.startswith(tuple(f"{tower}." for tower in TOWERS)) else f"{path.stem}.{name}"
            found[whole] = value.astype(np.float32)
    return found
