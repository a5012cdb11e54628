"""What a procedure is: steps, their order, the runs that show them. Frozen values; knows no video files, HTTP or database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["minor", "major", "critical"]


@dataclass(frozen=True)
class Text:
    """A text that a person reads, in both languages of the console."""

    en: str
    ja: str = ""


@dataclass(frozen=True)
class Step:
    """One step of a procedure.

    ``after`` names the steps that must be finished before this one may start: the procedure's partial order.
    A critical step fails the run when it is missing; an optional step may be left out.
    """

    id: str
    name: Text
    after: tuple[str, ...] = ()
    critical: bool = False
    optional: bool = False
    min_s: float | None = None
    max_s: float | None = None
    tool: str | None = None
    weight: float = 1.0
    severity: Severity = "major"
    action: Text = field(default_factory=lambda: Text(""))  # what to do about it


@dataclass(frozen=True)
class Procedure:
    """Steps in the order in which the gold runs show them; ``Step.after`` says which of that order binds."""

    id: str
    version: int
    title: Text
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Span:
    """A step's place in a video: ``start_s`` ≤ t < ``end_s``."""

    step_id: str
    start_s: float
    end_s: float
