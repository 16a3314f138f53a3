"""Compare the operator's clock with the clock of the API server.

Times that other parties write, such as those of conditions, and maintenance windows are in the API server's time. If the
operator's machine was paused or the API server's clock was set, the offset between the clocks lasts.
"""

from dataclasses import dataclass, replace

MIN_STEP = 10.0
"""Seconds; a larger offset is a step of a clock and no drift."""
STEP_CONFIRMED_AFTER = 30.0
"""Seconds for which each response must show the same step; one slow response or one server with a wrong clock is none."""
MAX_OFFSET_SPREAD = 3.0
"""Seconds by which responses with the same step may differ: `Date` has whole seconds, and a response is delayed."""
OFFSET_TOLERANCE = 1.5
"""Seconds; a smaller offset is not corrected."""
MAX_SLEW_RATE = 0.001
"""Seconds per second by which the operator's time may run faster or slower; with more, a `for` could be too short."""


@dataclass(frozen=True, slots=True)
class ClockStep:
    """A step of the clock that is not confirmed yet.

    Attributes:
        since: when the step was first observed, in monotonic seconds.
        min_offset: the smallest offset since then, in seconds.
        max_offset: the largest offset since then, in seconds.
    """

    since: float
    min_offset: float
    max_offset: float


def observe(previous: ClockStep | None, offset: float, at: float) -> ClockStep | None:
    """Return the step after one more offset (seconds that the server is ahead); None if the offset is no step."""
    if abs(offset) <= MIN_STEP:
        return None
    if previous is None:
        return ClockStep(at, offset, offset)
    step = replace(previous, min_offset=min(previous.min_offset, offset), max_offset=max(previous.max_offset, offset))
    return step if step.max_offset - step.min_offset <= MAX_OFFSET_SPREAD else ClockStep(at, offset, offset)


def is_confirmed(step: ClockStep | None, at: float) -> bool:
    """Whether the step has lasted long enough to be certain."""
    return step is not None and at - step.since >= STEP_CONFIRMED_AFTER


def slew_correction(offset: float, elapsed: float) -> float:
    """Return the seconds by which the operator's time is corrected now; `elapsed`: seconds since the last correction."""
    if abs(offset) <= OFFSET_TOLERANCE:
        return 0.0
    limit = MAX_SLEW_RATE * max(0.0, elapsed)
    return max(-limit, min(limit, offset))
