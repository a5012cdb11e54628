"""A trained recommender as a folder, and back for serving: towers, vectors, encoders, prior, everything they were made with.

| file | what |
|---|---|
| bundle.json | sizes, temperature, prior, blend, metrics, epochs, data hash, when the newest event was |
| config.json, encoders.json | ``TrainingConfig``; ``Encoders`` |
| user_tower.safetensors, item_tower.safetensors | weights, as ``two_tower.parameters`` names them |
| user_tower.onnx, item_tower.onnx | the graphs that serve; the user's takes the vectors of a history as an input |
| items.npz, vectors.npy | ids and features of the catalogue, what the first stage's prior said of each item, their vectors |
| heads.safetensors | what else is foreseen of a pair; only heads that foresee better than the average |
| neighbours.npz | which items go with which, where that helps; bundles of before have none |
| reranker.npz | how a shortlist is put in order, where that helps; bundles of before have none |
| premieres.npz | what items draw that nobody has touched, where that can be told; bundles of before have none |

``write_bundle`` needs torch; ``LoadedModel`` needs numpy and onnxruntime. What belongs together is in one folder, so a reader
can never mix the vectors of one version with the tower of another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from genba_recommend.blending import Blend
from genba_recommend.dataset import Dataset, Item, User
from genba_recommend.features import Encoders, ItemFeatures, UserFeatures, Windows
from genba_recommend.heads import FILE as HEADS
from genba_recommend.heads import Heads
from genba_recommend.neighbours import FILE as NEIGHBOURS
from genba_recommend.neighbours import Neighbours
from genba_recommend.premieres import FILE as PREMIERES
from genba_recommend.premieres import Premieres
from genba_recommend.prior import Prior
from genba_recommend.reranker import FILE as RERANKER
from genba_recommend.reranker import Reranker
from genba_recommend.user_tower_onnx import OnnxTower, OnnxUserTower
from genba_shared.problems import Conflict

if TYPE_CHECKING:
    from genba_recommend.training_loop import Trained

Float32s = npt.NDArray[np.float32]
FORMAT = 1
MODEL = "recommend.two_tower"
MANIFEST, CONFIG, ENCODERS = "bundle.json", "config.json", "encoders.json"
ITEMS, VECTORS = "items.npz", "vectors.npy"
USER_TOWER, ITEM_TOWER = "user_tower.onnx", "item_tower.onnx"


class BundleUnreadable(Conflict):
    """The bundle cannot be loaded."""


def write_bundle(trained: Trained, dataset: Dataset, folder: Path) -> Path:
    """Write a complete bundle. Args: dataset: the one that was trained on.   folder: made if it is not there.

    Raises: ValueError for a dataset with another catalogue.
    """
    from genba_recommend import export_onnx as onnx
    from genba_recommend.two_tower import parameters

    if len(dataset.catalogue) != len(trained.vectors):
        raise ValueError(f"The model knows {len(trained.vectors)} items, the catalogue has {len(dataset.catalogue)}.")
    folder.mkdir(parents=True, exist_ok=True)
    weights = parameters(trained.model)
    for tower in ("user_tower", "item_tower"):
        mine = {name: np.ascontiguousarray(x) for name, x in weights.items() if name.startswith(f"{tower}.")}
        save_file(mine, folder / f"{tower}.safetensors")
    onnx.save(onnx.user_tower(weights), folder / USER_TOWER)
    onnx.save(onnx.item_tower(weights), folder / ITEM_TOWER)
    now_s = float(dataset.interactions.time_s.max())
    prior = trained.first_prior.scores(
        dataset.interactions,
        n_items=len(dataset.catalogue),
        now_s=now_s,
        foreseen=trained.premieres.of(dataset.catalogue.items, now_s=now_s),
    )
    ids = np.array([item.item_id for item in dataset.catalogue.items])
    columns: dict[str, Any] = {"ids": ids, "prior": prior, **trained.items.columns()}
    np.savez(folder / ITEMS, **columns)
    np.save(folder / VECTORS, trained.vectors)
    if trained.heads.tasks:
        trained.heads.write(folder / HEADS)
    if not trained.neighbours.is_empty:
        trained.neighbours.write(folder / NEIGHBOURS)
    if not trained.reranker.is_empty:
        trained.reranker.write(folder / RERANKER)
    if not trained.premieres.is_empty:
        trained.premieres.write(folder / PREMIERES)
    (folder / CONFIG).write_text(trained.config.to_json(), "utf-8")
    (folder / ENCODERS).write_text(trained.encoders.to_json(), "utf-8")
    (folder / MANIFEST).write_text(json.dumps(_manifest(trained), indent=1, sort_keys=True), "utf-8")
    return folder


def _manifest(trained: Trained) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "model": MODEL,
        "temperature": trained.config.towers.temperature,
        "dim": trained.config.towers.dim,
        "history_len": trained.config.towers.history_len,
        "n_items": len(trained.vectors),
        "n_events": trained.n_events,
        "prior": asdict(trained.prior),
        "blend": asdict(trained.blend),
        "first_stage": asdict(trained.first_blend),
        "heads": list(trained.heads.tasks),
        "metrics": dict(trained.metrics),
        "epochs": [dict(epoch) for epoch in trained.epochs],
        "data_hash": trained.data_hash,
        "trained_until_s": trained.trained_until_s,
        "cpu_seconds": round(trained.cpu_seconds, 3),
    }


@dataclass(frozen=True)
class LoadedModel:
    """A bundle that serves. Rows are those of the catalogue that was trained on; ``row_by_id`` finds them.

    score of item i for a user = blend.towers_at(n) · user_vector @ item_vector / temperature + prior.scores(...)[i]
    + what the neighbours of the history say (``blending``); the best are put in order by ``reranker``.
    items, vectors: (N, …) of that catalogue.   user_tower, item_tower: their graphs, one thread each.
    """

    encoders: Encoders
    prior: Prior
    blend: Blend
    temperature: float
    ids: tuple[str, ...]
    items: ItemFeatures
    vectors: Float32s
    neighbours: Neighbours
    reranker: Reranker
    heads: Heads
    premieres: Premieres
    prior_scores: Float32s  # (N,) what the first stage's prior said when training ended, as exports carry it
    metrics: Mapping[str, float]
    data_hash: str
    trained_until_s: float
    user_tower: OnnxUserTower
    item_tower: OnnxTower

    @classmethod
    def load(cls, folder: Path, *, threads: int = 1) -> LoadedModel:
        """Raises: BundleUnreadable naming what is missing or does not fit; nothing is half loaded."""
        try:
            manifest = _read_manifest(folder)
            encoders = Encoders.from_json((folder / ENCODERS).read_text("utf-8"))
            vectors = np.load(folder / VECTORS, allow_pickle=False)
            with (folder / ITEMS).open("rb") as file, np.load(file, allow_pickle=False) as data:
                columns = {name: data[name] for name in data.files}
            found = cls(
                encoders=encoders,
                prior=Prior(**manifest["prior"]),
                blend=Blend(**manifest.get("blend", {})),
                temperature=float(manifest["temperature"]),
                ids=tuple(columns.pop("ids").tolist()),
                prior_scores=columns.pop("prior"),
                items=ItemFeatures(**columns),
                vectors=vectors,
                neighbours=Neighbours.read(folder / NEIGHBOURS, len(vectors)),
                reranker=Reranker.read(folder / RERANKER, columns["genre"]),
                heads=Heads.read(folder / HEADS, tuple(manifest.get("heads", ()))),
                premieres=Premieres.read(folder / PREMIERES, len(vectors)),
                metrics=manifest["metrics"],
                data_hash=manifest["data_hash"],
                trained_until_s=float(manifest["trained_until_s"]),
                user_tower=OnnxUserTower(OnnxTower(folder / USER_TOWER, threads=threads), encoders),
                item_tower=OnnxTower(folder / ITEM_TOWER, threads=threads),
            )
        except OSError as err:
            raise BundleUnreadable(f"{Path(str(err.filename)).name} cannot be read.") from err
        except BundleUnreadable:
            raise
        except Exception as err:  # onnxruntime raises RuntimeErrors of many kinds for a graph that is torn
            raise BundleUnreadable(f"This is not a recommender's bundle: {err}.") from err
        if (
            len(
                {
                    len(found.ids),
                    *map(
                        len,
                        (
                            found.items,
                            vectors,
                            found.prior_scores,
                            found.neighbours,
                            found.reranker,
                            found.premieres,
                        ),
                    ),
                }
            )
            != 1
        ):
            raise BundleUnreadable(
                f"{ITEMS}, {VECTORS}, {NEIGHBOURS}, {RERANKER} and {PREMIERES} are of different lengths."
            )
        return found

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def row_by_id(self) -> Mapping[str, int]:
        return {item_id: row for row, item_id in enumerate(self.ids)}

    def embed_items(self, items: Sequence[Item], *, batch: int = 4096) -> Float32s:
        """Vectors of items, known or never seen. Returns: (B, D), unit length."""
        return self.embed_item_features(self.encoders.items(items), batch=batch)

    def embed_item_features(self, items: ItemFeatures, *, batch: int = 4096) -> Float32s:
        """Returns: (B, D), unit length."""
        parts = [self.item_tower.run(items.take(slice(at, at + batch)).columns()) for at in range(0, len(items), batch)]
        return np.concatenate(parts) if parts else np.zeros((0, self.vectors.shape[1]), np.float32)

    def embed_users(
        self,
        users: Sequence[User],
        windows: Windows,
        items: ItemFeatures | None = None,
        vectors: Float32s | None = None,
    ) -> Float32s:
        """Vectors of users from what they did lately. Windows refer to rows + 1 of ``items`` and ``vectors``, which are the
        bundle's own where they are not given. Returns: (B, D), unit length.
        """
        table = self.vectors if vectors is None else vectors
        return self.user_tower.of(users, windows, self.items if items is None else items, table)

    def embed_features(self, users: UserFeatures, vectors: Float32s) -> Float32s:
        """The same from features; what ``scoring.latest_vectors`` takes. Returns: (B, D)."""
        return self.user_tower.run(users.columns(), vectors)


def _read_manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
    if manifest.get("format") != FORMAT:
        raise BundleUnreadable(f"The bundle is of format {manifest.get('format')}, this version reads {FORMAT}.")
    return manifest
