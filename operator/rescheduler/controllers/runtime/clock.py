"""The operator's time. Only this module reads the clocks of the machine.

The time starts with the API server's first response and continues with the monotonic clock. So a jump of the wall clock
neither starts a drain nor delays one. Small drifts are corrected slowly, so that no `for` of a policy becomes shorter.
A large step is reported. The times in memory are wrong then, and only a restart corrects them.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from rescheduler.core.failure import clock_skew

_COMPARISON_INTERVAL = 1.0  # seconds between two comparisons
_PLAUSIBLE_YEARS = range(2020, 2200)
_DATE_ROUNDING = timedelta(seconds=0.5)  # `Date` has whole seconds, rounded down


def seconds_since_boot() -> float:
    """Return the seconds of a clock that continues while the machine is suspended.

    `time.monotonic` stops during a suspend. Then this process would believe that it still holds an expired Lease.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Clock:
    """Clock of the operator: `now` for decisions and status, `monotonic` for intervals.

    Attributes:
        monotonic: returns the seconds since boot.
        offset: seconds that the API server's clock was ahead at its last response.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = seconds_since_boot
    ) -> None:
        self._wall_start = datetime.fromtimestamp(wall(), UTC)
        self._monotonic_start = monotonic()
        self.monotonic = monotonic
        self.offset = 0.0
        self._compared_at: float | None = None
        self._step: clock_skew.ClockStep | None = None

    def now(self) -> datetime:
        """Return the current time in UTC, with time zone."""
        return self._wall_start + timedelta(seconds=self.monotonic() - self._monotonic_start)

    def compare_with_server(self, date_header: str) -> float | None:
        """Compare with the `Date` of a new response; return the seconds behind the server if the clock was stepped."""
        at = self.monotonic()
        if self._compared_at is not None and at - self._compared_at < _COMPARISON_INTERVAL:
            return None
        server_time = _parse_date(date_header)
        if server_time is None:
            return None
        before, self._compared_at = self._compared_at, at
        self.offset = (server_time + _DATE_ROUNDING - self.now()).total_seconds()
        if before is None:
            self._wall_start += timedelta(seconds=self.offset)
            self.offset = 0.0
            return None
        self._wall_start += timedelta(seconds=clock_skew.slew_correction(self.offset, at - before))
        self._step = clock_skew.observe(self._step, self.offset, at)
        return self.offset if clock_skew.is_confirmed(self._step, at) else None


def _parse_date(date: str) -> datetime | None:
    """Return an HTTP date; None if it is invalid, or not between 2020 and 2199."""
    try:
        parsed = parsedate_to_datetime(date)
    except (TypeError, ValueError, OverflowError):
        return None
    return parsed.astimezone(UTC) if parsed.tzinfo and parsed.year in _PLAUSIBLE_YEARS else None
