"""The only place that reads the machine's clocks.

Time goes on by the monotonic clock from the process's start: a jump of the wall clock, forward or back, must
neither start a drain nor stall one.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class Clock:
    """`now` for decisions and status, `monotonic` for intervals (seconds)."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._start = datetime.fromtimestamp(wall(), UTC)
        self._began = monotonic()
        self.monotonic = monotonic

    def now(self) -> datetime:
        """The time, aware and in UTC."""
        return self._start + timedelta(seconds=self.monotonic() - self._began)
