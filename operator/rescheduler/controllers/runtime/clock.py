"""The only place that reads the machine's clocks.

Time is the API server's, as of its first answer, and goes on by a clock that nobody sets: a jump of the machine's wall
clock, forward or back, must neither start a drain nor stall one. Small drifts are corrected so slowly that no `for` is
shortened. A large one is reported: what this process remembers is in the wrong time, and only a new start is right.
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
    """Return seconds of a clock that goes on while the machine is suspended.

    `time.monotonic` stands still then: a Lease that somebody else holds by now would seem to be ours.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Clock:
    """`now` for decisions and status, `monotonic` for intervals (seconds).

    Attributes:
        offset: seconds that the API server was ahead of us at its last answer.
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
        """The time, aware and in UTC."""
        return self._wall_start + timedelta(seconds=self.monotonic() - self._monotonic_start)

    def compare_with_server(self, date_header: str) -> float | None:
        """Compare with the `Date` of an answer that has just come; seconds that we are behind if the clock was stepped."""
        at = self.monotonic()
        if self._compared_at is not None and at - self._compared_at < _COMPARISON_INTERVAL:
            return None
        theirs = _parse_date(date_header)
        if theirs is None:
            return None
        before, self._compared_at = self._compared_at, at
        self.offset = (theirs + _DATE_ROUNDING - self.now()).total_seconds()
        if before is None:
            self._wall_start += timedelta(seconds=self.offset)
            self.offset = 0.0
            return None
        self._wall_start += timedelta(seconds=clock_skew.slew_correction(self.offset, at - before))
        self._step = clock_skew.observe(self._step, self.offset, at)
        return self.offset if clock_skew.is_confirmed(self._step, at) else None


def _parse_date(date: str) -> datetime | None:
    """An HTTP date; None if it is none, or none of these centuries."""
    try:
        found = parsedate_to_datetime(date)
    except (TypeError, ValueError, OverflowError):
        return None
    return found.astimezone(UTC) if found.tzinfo and found.year in _PLAUSIBLE_YEARS else None
