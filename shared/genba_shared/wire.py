"""Field types for what callers send, where pydantic is kinder than the JSON Schema it publishes.

Left alone it takes ``true`` for 1, ``"7"`` for 7 and ``0.5`` for a moment in 1970. An API that documents a number takes
numbers. Query parameters are text by nature: there only ``Moment`` is of use. Knows no service.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, StringConstraints

_RFC_3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[+-]\d{2}:\d{2})", re.ASCII)


def _only_rfc_3339(value: object) -> object:
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC_3339.fullmatch(value)):
        return value
    raise ValueError("must be a date and time with a time zone, such as 2026-11-21T09:30:00Z")


def _in_the_calendar(value: datetime) -> datetime:
    try:
        value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies beyond the years 1 to 9999 in UTC") from error
    return value


Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A number in a JSON body: finite, and no truth value or text. ``Annotated[Real, Field(ge=0)]`` narrows it."""

Whole = Annotated[int, Field(strict=True)]
"""A whole number in a JSON body."""

Text = Annotated[str, StringConstraints(min_length=0)]
"""Text that UTF-8 can write. Of a bare ``str`` pydantic asks nothing, and lets half of a surrogate pair through."""

Flag = Annotated[bool, Field(strict=True)]
"""``true`` or ``false`` in a JSON body, and nothing that resembles them."""

Moment = Annotated[AwareDatetime, BeforeValidator(_only_rfc_3339), AfterValidator(_in_the_calendar)]
"""A moment as RFC 3339 writes it, in a body or a query: with its time zone, and never a bare number."""
