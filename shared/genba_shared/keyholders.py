"""Whether the holder of an API key may still ask for anything: for what acts in their name after they have gone.

The gateway keeps the table and all that it says of keys; this is the one question that others put to it.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import case, column, func, or_, select, table
from sqlalchemy.orm import Session

from genba_shared.db import UtcDateTime

_KEYS = table(
    "gateway_api_keys",
    column("subject"),
    column("expires_at", UtcDateTime()),
    column("revoked_at", UtcDateTime()),
)


def has_a_good_key(session: Session, subject: str, now: datetime) -> bool:
    """Whether a key of ``subject`` works. Of who never had one, whose tokens an identity provider gives, nothing is known: True."""
    is_bad = or_(_KEYS.c.revoked_at.is_not(None), _KEYS.c.expires_at <= now)
    counts = select(func.count(), func.count(case((is_bad, 1)))).where(_KEYS.c.subject == subject)
    keys, bad = session.execute(counts.select_from(_KEYS)).one()
    return keys == 0 or bad < keys
