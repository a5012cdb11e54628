"""Label Studio's ML-backend protocol, spoken by hand: its tasks and label config in, its predictions and annotations out.

Its SDK would pin another web framework and an older NumPy; what goes over the wire is four small JSON documents. A task
shows a particle when its data hold ``particle_id``, or a ``sem://<particle id>`` or picture address of ours. Texts in, values
out: no HTTP, no table.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from genba_sem.labels import Label, LabelBook, plain

EVENTS: Final = frozenset({"ANNOTATION_CREATED", "ANNOTATION_UPDATED"})
KNOWN_EVENTS: Final = EVENTS | {"ANNOTATION_DELETED", "ANNOTATIONS_DELETED", "START_TRAINING", "PROJECT_UPDATED",
                                "ANNOTATIONS_CREATED", "TASKS_CREATED", "TASKS_DELETED", "PROJECT_CREATED",
                                "PROJECT_DELETED"}  # fmt: skip
NONE_OF_THEM: Final = "unknown"
_PARTICLE: Final = re.compile(r"(?:sem://|/v1/sem/particles/)(par_[0-9a-z]{1,30})", re.ASCII)
_ID: Final = re.compile(r"par_[0-9a-z]{1,30}", re.ASCII)
_MOST_CONFIG_CHARS: Final = 200_000


class BadConfig(ValueError):
    """The label config cannot be used."""


@dataclass(frozen=True)
class Control:
    """Where a prediction goes: the Choices tag, the object that it is about, and the choices as the project spells them."""

    from_name: str
    to_name: str
    choices: tuple[str, ...]


def control_of(config: str) -> Control:
    """The first Choices tag of a label config. Raises: BadConfig without one, or for what is no XML."""
    if len(config) > _MOST_CONFIG_CHARS or "<!DOCTYPE" in config or "<!ENTITY" in config:
        raise BadConfig("The label config is too long or declares entities.")
    try:
        root = ET.fromstring(config)  # noqa: S314 - neither entities nor a document type reach it, and it is short
    except ET.ParseError as err:
        raise BadConfig(f"The label config is no XML: {err}.") from err
    for tag in root.iter("Choices"):
        names = (tag.get("name"), tag.get("toName"))
        if names[0] and names[1]:
            choices = tuple(each.get("alias") or each.get("value") or "" for each in tag.iter("Choice"))
            return Control(names[0], names[1].split(",")[0], tuple(each for each in choices if each))
    raise BadConfig("The label config has no <Choices name=… toName=…>: add one with a <Choice> for each label.")


def config_for(labels: Sequence[Label], *, views: int = 6) -> str:
    """A label config that shows every view of a particle and offers every label."""
    root = ET.Element("View")
    ET.SubElement(root, "Header", value="$name")
    for position in range(views):
        ET.SubElement(root, "Image", name=f"view{position}", value=f"$view{position}")
    choices = ET.SubElement(root, "Choices", name="label", toName="view0", choice="single", required="true")
    for label in labels:
        ET.SubElement(choices, "Choice", value=label.words, alias=label.id, hint=str(label.definition.get("en", "")))
    ET.SubElement(choices, "Choice", value="None of these", alias=NONE_OF_THEM)
    return ET.tostring(root, encoding="unicode")


def project_of(said: object) -> str:
    """``"3.1669290681"`` (id and moment of creation) or ``{"id": 3}`` or ``3`` → ``"3"``."""
    if isinstance(said, Mapping):
        said = said.get("id", "")
    return str(said or "").split(".", 1)[0][:80]


def particle_of(data: object) -> str | None:
    """The particle that a task's data show."""
    if not isinstance(data, Mapping):
        return None
    named = data.get("particle_id")
    if isinstance(named, str) and _ID.fullmatch(named):
        return named
    for value in data.values():
        if isinstance(value, str) and (match := _PARTICLE.search(value)):
            return match[1]
    return None


def choice_for(label: Label, control: Control) -> str | None:
    """How the project spells a label: by its id, or one of its names or synonyms; None when it does not offer it."""
    words = {plain(each): each for each in control.choices}
    synonyms = [word for group in label.synonyms.values() for word in group]
    for name in (label.id, *label.name.values(), *synonyms):
        if name and (found := words.get(plain(name))) is not None:
            return found
    return None


def label_for(choice: str, book: LabelBook, clearance: int) -> Label | None:
    """The active label that a choice means; None for no label of ours. What it was merged into counts."""
    if (named := book.now(choice)) is not None:
        return named
    wanted = plain(choice)
    for label in [*book.active(clearance), *book.by_id.values()]:
        synonyms = [word for group in label.synonyms.values() for word in group]
        if wanted in {plain(name) for name in (*label.name.values(), *synonyms) if name}:
            return book.now(label.id)
    return None


def prediction(control: Control, choice: str, score: float, version: str) -> dict[str, Any]:
    """One prediction as Label Studio takes it."""
    value = {"choices": [choice]}
    region = {
        "from_name": control.from_name,
        "to_name": control.to_name,
        "type": "choices",
        "value": value,
        "score": score,
    }
    return {"model_version": version, "score": score, "result": [region]}


def chosen(annotation: Mapping[str, Any]) -> list[str]:
    """The choice in each Choices tag of an annotation, in the order that they were made: one may be of a view's quality or the like.

    Nothing when it was skipped or chooses nothing.
    """
    found = []
    for region in [] if annotation.get("was_cancelled") else annotation.get("result") or []:
        if isinstance(region, Mapping) and region.get("type") == "choices":
            value = region.get("value")
            choices = value.get("choices") if isinstance(value, Mapping) else None
            if isinstance(choices, Sequence) and choices and isinstance(choices[0], str):
                found.append(choices[0])
    return found


def annotator(annotation: Mapping[str, Any]) -> str:
    """Who annotated, as far as it is told: an id, or the account behind it."""
    who = annotation.get("completed_by")
    if isinstance(who, Mapping):
        who = who.get("email") or who.get("id")
    return str(who)[:120] if who is not None else "somebody"
