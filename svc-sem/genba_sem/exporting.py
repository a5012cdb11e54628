"""Particles as files that other tools read: a table (CSV), COCO annotations, or a FiftyOne dataset's folder as one zip.

Written row by row to a stream; pictures go into the zip only where they must. No library of those tools is imported: their formats
are JSON. Rows in, bytes out: no HTTP.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import IO, Any, Final

from genba_sem.labels import LabelBook
from genba_sem.tables import ParticleRow, ViewRow

_SHAPE: Final = (
    "unit",
    "equivalent_diameter",
    "feret_max",
    "feret_min",
    "circularity",
    "aspect_ratio",
    "solidity",
    "area",
    "perimeter",
)
COLUMNS: Final = (
    "particle_id", "name", "batch", "process", "tool", "recipe", "lot", "taken_at", "status", "label_id", "label_en", "label_ja",
    "decided_by", "confidence", "label_set", "reasons", "views", "covered", *_SHAPE, "model", "master_set", "encoder", "tags", "note",
)  # fmt: skip

_FORMULA: Final = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "＝",
    "＋",
    "－",
    "＠",
)  # Excel takes full-width signs for the others

Pair = tuple[ParticleRow, Sequence[ViewRow]]


def table(rows: Iterable[ParticleRow], book: LabelBook) -> Iterator[str]:
    """CSV lines; text that a spreadsheet would run as a formula is quoted with an apostrophe."""
    yield "\ufeff" + _line(COLUMNS)
    for row in rows:
        yield _line([_safe(each) for each in _cells(row, book)])


def _cells(row: ParticleRow, book: LabelBook) -> list[object]:
    label = book.now(row.label_id) if row.label_id else None
    said, shape = row.decision, row.shape
    members = [now.words for each in said.get("label_set", []) if (now := book.now(each)) is not None]
    return [
        row.id, row.name, row.batch, row.process, row.tool, row.recipe, row.lot, row.taken_at and row.taken_at.isoformat(),
        row.status, label and label.id, label and label.name.get("en"), label and label.name.get("ja"), row.decided_by,
        row.confidence, "; ".join(members), "; ".join(row.reasons), row.view_count, int(row.covered),
        *(shape.get(name) for name in _SHAPE), said.get("model"), said.get("master_set"), said.get("encoder"),
        "; ".join(row.tags), row.note,
    ]  # fmt: skip


def _safe(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value


def _line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()


def coco(pairs: Iterable[Pair], book: LabelBook) -> dict[str, Any]:
    """COCO instances: an image for each view that was looked at, an annotation with the outline that was found."""
    pairs = list(pairs)
    used = {label.id: label for row, _ in pairs if row.label_id and (label := book.now(row.label_id)) is not None}
    categories = {label_id: k for k, label_id in enumerate(sorted(used), start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row, views in pairs:
        label = book.now(row.label_id) if row.label_id else None
        for view in views:
            if not view.document:
                continue
            images.append(_image(len(images) + 1, row, view))
            corners = view.document["outline"]["polygon"]
            if label is not None and len(corners) >= 3:
                annotations.append(_annotation(len(annotations) + 1, len(images), categories[label.id], corners, row))
    return {
        "info": {"description": "Particles of Genba svc-sem", "date_created": datetime.now(UTC).isoformat(timespec="seconds")},
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": number, "name": used[label_id].words, "supercategory": "particle", "label_id": label_id,
             "name_ja": used[label_id].name.get("ja", "")}
            for label_id, number in categories.items()
        ],
    }  # fmt: skip


def _image(number: int, row: ParticleRow, view: ViewRow) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": f"{row.id}/{view.position}.jpg",
        "width": view.document["width_px"],
        "height": view.document["height_px"],
        "particle_id": row.id,
        "view": view.position,
        "pixel_size_nm": view.document["pixel_size_nm"],
    }


def _annotation(
    number: int, image: int, category: int, corners: Sequence[Sequence[float]], row: ParticleRow
) -> dict[str, Any]:
    x, y = [c[0] for c in corners], [c[1] for c in corners]
    area = abs(sum(x[k - 1] * y[k] - x[k] * y[k - 1] for k in range(len(x)))) / 2
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": [[value for corner in corners for value in corner]],
        "area": area,
        "bbox": [min(x), min(y), max(x) - min(x), max(y) - min(y)],
        "iscrowd": 0,
        "score": row.confidence,
        "reviewed": row.status == "reviewed",
    }


def fiftyone(file: IO[bytes], pairs: Iterable[Pair], book: LabelBook, pictures: Callable[[str], bytes]) -> None:
    """A zip in FiftyOne's own format (FiftyOneDataset): data/, metadata.json, samples.json; a group for each particle.

    pictures: called with an artifact's key, gives its bytes.
    """
    samples: list[dict[str, Any]] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for row, views in pairs:
            label = book.now(row.label_id) if row.label_id else None
            for view in views:
                if view.picture_key is None:
                    continue
                path = f"data/{row.id}-{view.position}.jpg"
                archive.writestr(path, pictures(view.picture_key))
                samples.append(_sample(path, row, view, label.words if label else None))
        archive.writestr("metadata.json", json.dumps(_METADATA, indent=1))
        archive.writestr("samples.json", json.dumps({"samples": samples}, ensure_ascii=False))


_METADATA: Final[dict[str, Any]] = {
    "name": "genba-particles",
    "media_type": "image",
    "sample_fields": [
        {"name": "filepath", "ftype": "fiftyone.core.fields.StringField"},
        {"name": "particle_id", "ftype": "fiftyone.core.fields.StringField"},
        {"name": "view", "ftype": "fiftyone.core.fields.IntField"},
        {"name": "status", "ftype": "fiftyone.core.fields.StringField"},
        {"name": "tags", "ftype": "fiftyone.core.fields.ListField", "subfield": "fiftyone.core.fields.StringField"},
        {"name": "prediction", "ftype": "fiftyone.core.fields.EmbeddedDocumentField",
         "embedded_doc_type": "fiftyone.core.labels.Classification"},
    ],
    "info": {},
}  # fmt: skip


def _sample(path: str, row: ParticleRow, view: ViewRow, label: str | None) -> dict[str, Any]:
    classification: dict[str, Any] = {
        "_cls": "Classification",
        "label": label,
        "confidence": row.confidence,
        "tags": [],
    }
    return {
        "filepath": path,
        "tags": [*row.tags, row.status],
        "metadata": None,
        "particle_id": row.id,
        "view": view.position,
        "status": row.status,
        "prediction": classification if label else None,
    }
