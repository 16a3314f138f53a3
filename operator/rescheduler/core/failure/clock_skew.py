"""What the API server's clock tells about ours.

Times of others (conditions, windows of the cluster's people) are in the API server's time. A clock of ours that stood
still with its machine, or an API server's clock that was set, shows as an offset that stays.
"""

from dataclasses import dataclass, replace

MIN_STEP = 10.0
"""Seconds; a clock that is off by more was stepped, and has not drifted."""
STEP_CONFIRMED_AFTER = 30.0
"""Seconds for which each answer must show the same step: one slow answer, or one server of several, is none."""
MAX_OFFSET_SPREAD = 3.0
"""Seconds between answers that show the same step: `Date` has whole seconds, and an answer takes its time."""
OFFSET_TOLERANCE = 1.5
"""Seconds; a smaller offset is none."""
MAX_SLEW_RATE = 0.001
"""Seconds in each second by which our time may be made to go faster or slower: no `for` is noticeably shorter."""


@dataclass(frozen=True, slots=True)
class ClockStep:
    """A step that may be one. `since`: monotonic seconds; `low`, `high`: the offsets since then, in seconds."""

    since: float
    min_offset: float
    max_offset: float


def observe(previous: ClockStep | None, offset: float, at: float) -> ClockStep | None:
    """Take in one offset (seconds that the server is ahead); None if it shows no step."""
    if abs(offset) <= MIN_STEP:
        return None
    if previous is None:
        return ClockStep(at, offset, offset)
    found = replace(previous, min_offset=min(previous.min_offset, offset), max_offset=max(previous.max_offset, offset))
    return found if found.max_offset - found.min_offset <= MAX_OFFSET_SPREAD else ClockStep(at, offset, offset)


def is_confirmed(step: ClockStep | None, at: float) -> bool:
    """Whether the clock was stepped for certain."""
    return step is not None and at - step.since >= STEP_CONFIRMED_AFTER


def slew_correction(offset: float, elapsed: float) -> float:
    """Return the seconds by which our time is corrected now, after `elapsed` seconds without a correction."""
    if abs(offset) <= OFFSET_TOLERANCE:
        return 0.0
    limit = MAX_SLEW_RATE * max(0.0, elapsed)
    return max(-limit, min(limit, offset))
