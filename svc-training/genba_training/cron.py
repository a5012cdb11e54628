"""When a schedule comes due: cron's five fields in a time zone, read as Debian's cron reads them. Knows no table and no clock.

Where clocks are put forward, a time of day that does not exist becomes the first one that does; where they are put
back, it comes once, the first time. Rhythms with a star in minutes or hours follow elapsed time and just go on.
"""

from __future__ import annotations

import functools
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from genba_shared.problems import Invalid

MAX_CHARS = 100
_FIELDS = 5


@dataclass(frozen=True)
class Cron:
    """A rhythm, such as ``30 2 * * MON-FRI`` in ``Asia/Tokyo``."""

    expression: str
    time_zone: str = "UTC"

    def check(self, now: datetime) -> None:
        """Raises: Invalid that names the field, also for a rhythm that never comes due."""
        if self.time_zone not in _time_zones():
            raise _invalid("time_zone", f"{self.time_zone!r} is no IANA time zone, such as Asia/Tokyo")
        if len(self.expression) > MAX_CHARS or len(self.expression.split()) != _FIELDS:
            raise _invalid("cron", "needs five fields: minute, hour, day of month, month, day of week")
        try:
            upcoming = self.after(now)
        except CronSimError as error:
            raise _invalid("cron", f"{str(error).lower()} in {self.expression!r}") from error
        if upcoming is None:
            raise _invalid("cron", f"{self.expression!r} does not come due in fifty years")

    def after(self, moment: datetime) -> datetime | None:
        """The first due time after ``moment``, in UTC; None if there is none in fifty years.

        Raises: CronSimError; ZoneInfoNotFoundError. Neither, once ``check`` has passed.
        """
        local = moment.astimezone(zoneinfo.ZoneInfo(self.time_zone))
        for due in CronSim(self.expression, local):
            # Within an hour that comes twice cronsim may name the first pass when the second has begun.
            if (found := due.astimezone(UTC)) > moment:
                return found
        return None


@functools.cache
def _time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _invalid(field: str, message: str) -> Invalid:
    return Invalid("The schedule does not say when.", errors=[{"field": field, "message": message}])
