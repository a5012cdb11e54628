"""How sensitive a thing is, and who is cleared for it. One scale for people, records and content."""

from __future__ import annotations

import enum


class Clearance(enum.IntEnum):
    """How sensitive a thing may be for somebody to see it; a total order."""

    PUBLIC = 0
    INTERNAL = 1
    CONFIDENTIAL = 2
    SECRET = 3

    @property
    def label(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, label: str) -> Clearance:
        """Raises: ValueError for a word that is no clearance."""
        try:
            return cls[label.upper()]
        except KeyError:
            raise ValueError(f"{label!r} is no clearance; use one of {', '.join(c.label for c in cls)}.") from None
