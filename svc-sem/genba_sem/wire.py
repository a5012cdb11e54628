"""What every part of svc-sem's wire format is made of: the shapes of records, pages and versions. Knows no route."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from genba_shared.wire_records import Asked, Wire

Language = Literal["en", "ja"]
Line = Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f]+$")]
Note = Annotated[str, StringConstraints(max_length=4000, pattern=r"^[^\x00]*$")]
Reason = Annotated[str, StringConstraints(min_length=3, max_length=2000, pattern=r"^[^\x00]*$")]


class TextOut(Wire):
    """A text in both languages; either may be empty."""

    en: str = ""
    ja: str = ""


class NameIn(Asked):
    """A name in English, Japanese or both."""

    en: Annotated[str, StringConstraints(max_length=120, pattern=r"^[^\x00-\x1f]*$")] = ""
    ja: Annotated[str, StringConstraints(max_length=120, pattern=r"^[^\x00-\x1f]*$")] = ""

    @model_validator(mode="after")
    def _is_named(self) -> NameIn:
        if not self.en and not self.ja:
            raise ValueError("give en, ja or both")
        return self


class TextIn(Asked):
    """A longer text in English, Japanese, both or neither."""

    en: Note = ""
    ja: Note = ""


class WordsIn(Asked):
    """Other words for the same thing."""

    en: list[Line] = Field(default_factory=list, max_length=50)
    ja: list[Line] = Field(default_factory=list, max_length=50)


class WordsOut(Wire):
    """Other words for the same thing."""

    en: list[str] = Field(default_factory=list)
    ja: list[str] = Field(default_factory=list)
