"""What a user's vector was made from, as a hash: another one means that the vector is stale. Knows no table and no model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import orjson

from genba_recommend.dataset import User


def user_hash(user: User, history: Sequence[tuple[str, float]]) -> str:
    """Args: history: item ids with their weights, newest first."""
    read = [user.age_range, user.region, user.sessions_per_week, [[item, round(weight, 4)] for item, weight in history]]
    return hashlib.blake2b(orjson.dumps(read), digest_size=16).hexdigest()
