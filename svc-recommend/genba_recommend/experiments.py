"""Which arm of an experiment a user is in: the same one every time, on every machine, from the ids alone. Knows no table and no HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

from genba_recommend.discovering import When

Status = Literal["running", "stopped"]
Lists = Literal["personal", "trending", "popular"]


@dataclass(frozen=True)
class Arm:
    """One way of making lists. weight: its part of the users.   version: of the model; None for lists that need none."""

    name: str
    weight: float
    version: int | None = None
    lists: Lists = "personal"
    diversity: float | None = None
    explore: float | None = None
    discover: When | None = None


@dataclass(frozen=True)
class Experiment:
    """Arms over a share of the users; the first is the control."""

    id: str
    name: str
    status: Status
    share: float
    arms: tuple[Arm, ...]
    started_at: datetime
    stopped_at: datetime | None = None
    created_by: str = ""
    outcome: dict[str, Any] | None = None

    @classmethod
    def of(cls, row: Any) -> Self:
        """From its row."""
        return cls(
            row.id, row.name, row.status, row.share, tuple(Arm(**arm) for arm in row.arms),
            row.started_at, row.stopped_at, row.created_by, row.outcome,
        )  # fmt: skip

    def arm_of(self, user_id: str) -> Arm | None:
        """The user's arm; None for those who do not take part."""
        if bucket(f"{self.id}/share", user_id) >= self.share:
            return None
        place = bucket(f"{self.id}/arm", user_id) * sum(arm.weight for arm in self.arms)
        for arm in self.arms:
            place -= arm.weight
            if place < 0:
                return arm
        return self.arms[-1]


def bucket(salt: str, user_id: str) -> float:
    """A number in [0, 1) that depends on salt and user alone, even over users: SHA-256 of both, its first 53 bits."""
    digest = hashlib.sha256(f"{salt}/{user_id}".encode()).digest()
    return float((int.from_bytes(digest[:8], "big") >> 11) / (1 << 53))


def assign(experiments: Sequence[Experiment], user_id: str) -> tuple[Experiment, Arm] | None:
    """The experiment, the oldest first, in which a user takes part, and the arm. A user is in one experiment at a time."""
    for experiment in experiments:
        if (arm := experiment.arm_of(user_id)) is not None:
            return experiment, arm
    return None
