"""A lane as a model's bundle: encoder fit, masters, fusion, classifier and head in one folder, so that they are swapped together.

``bundle.json`` and safetensors, nothing that runs code. What it was decided by is in it, whatever the tables say later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import load_file, save_file

from genba_sem import onsite
from genba_sem.encoders import Encoder, HlgShape
from genba_sem.learnt_head import LearntHead
from genba_sem.masters import MasterParticle
from genba_sem.onsite import OnsiteEncoder
from genba_sem.set_models import LearntFusion
from genba_sem.views import Fusion, PlainMean, QualityMean

FORMAT: Final = 1
_GRAPH: Final = "encoder.onnx"
_ENCODER, _MASTERS, _FUSION, _HEAD = (f"{part}.safetensors" for part in ("encoder", "masters", "fusion", "head"))
FUSIONS: Final[Mapping[str, type[QualityMean | PlainMean]]] = {kind.id: kind for kind in (QualityMean, PlainMean)}


@dataclass(frozen=True, eq=False)
class KeptMaster:
    """A master and who may know of it."""

    particle: MasterParticle
    clearance: int


@dataclass(frozen=True, eq=False)
class LaneParts:
    """All that a lane is built of. ``master_set``: the number of the set that these masters were; ``head``: decides in the
    classifier's place, where it knows all labels.
    """

    encoder: Encoder
    masters: tuple[KeptMaster, ...]
    master_set: int
    fusion: Fusion
    classifier: str
    head: LearntHead | None = None

    def save(self, folder: Path, about: Mapping[str, Any]) -> Path:
        """Write the bundle; ``about`` joins its manifest (metrics, data hash, preprocessing)."""
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(self.encoder, HlgShape):
            self.encoder.save(folder / _ENCODER)
        elif isinstance(self.encoder, OnsiteEncoder):
            self.encoder.save(folder / _GRAPH, folder / _ENCODER)
        tensors = {}
        for index, master in enumerate(self.masters):
            tensors[f"{index}.raw"] = np.asarray(master.particle.raw, np.float16)
            tensors[f"{index}.quality"] = np.asarray(master.particle.quality, np.float32)
        save_file(tensors, folder / _MASTERS)
        if isinstance(self.fusion, LearntFusion):
            self.fusion.save(folder / _FUSION)
        head = None if self.head is None else self.head.save(folder / _HEAD)
        manifest = {
            "format": FORMAT,
            "config": {
                "encoder": self.encoder.id,
                "encoder_name": self.encoder.name,
                "fusion": self.fusion.id,
                "classifier": self.classifier,
                "master_set": self.master_set,
                "head": head,
            },
            "masters": [
                {
                    "particle_id": each.particle.particle_id,
                    "label_id": each.particle.label_id,
                    "clearance": each.clearance,
                }
                for each in self.masters
            ],
            **about,
        }
        (folder / "bundle.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: Path, opened: Callable[[str], Encoder]) -> LaneParts:
        """Read what ``save`` wrote. opened: gives an encoder that brings its own weights, by its name.

        Raises: ValueError for another format, parts that this code does not know, or other weights than the lane was made with;
        EncoderUnavailable (503) where there are none.
        """
        manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        config = manifest.get("config", {})
        if manifest.get("format") != FORMAT:
            raise ValueError(f"The bundle has format {manifest.get('format')}.")
        tensors = load_file(folder / _MASTERS)
        masters = tuple(
            KeptMaster(
                MasterParticle(
                    each["particle_id"],
                    each["label_id"],
                    np.asarray(tensors[f"{index}.raw"], np.float32),
                    np.asarray(tensors[f"{index}.quality"], np.float32),
                ),
                int(each["clearance"]),
            )
            for index, each in enumerate(manifest["masters"])
        )
        return cls(
            _encoder_of(folder, config, opened),
            masters,
            int(config["master_set"]),
            _fusion_of(folder, config["fusion"]),
            config["classifier"],
            LearntHead.load(folder / _HEAD, config["head"]) if config.get("head") else None,
        )


def _encoder_of(folder: Path, config: Mapping[str, Any], opened: Callable[[str], Encoder]) -> Encoder:
    name = config.get("encoder_name", HlgShape.name)
    if name == HlgShape.name:
        return HlgShape.load(folder / _ENCODER)
    encoder = OnsiteEncoder.load(folder / _GRAPH, folder / _ENCODER) if name == onsite.NAME else opened(name)
    if encoder.id != config["encoder"]:
        raise ValueError(f"The lane was made with {config['encoder']}, and {name} is {encoder.id} on this machine.")
    return encoder


def _fusion_of(folder: Path, name: str) -> Fusion:
    if (kind := FUSIONS.get(name)) is not None:
        return kind()
    fusion = LearntFusion.load(folder / _FUSION)
    if fusion.id != name:
        raise ValueError(f"The bundle has fusion {name}, and its file holds {fusion.id}.")
    return fusion
