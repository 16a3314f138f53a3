"""What the API server's clock tells about ours.

Times of others (conditions, windows of the cluster's people) are in the API server's time. A clock of ours that stood
still with its machine, or an API server's clock that was set, shows as an offset that stays.
"""

from dataclasses import dataclass, replace

STEP = 10.0
"""Seconds; a clock that is off by more was stepped, and has not drifted."""
LASTING = 30.0
"""Seconds for which each answer must show the same step: one slow answer, or one server of several, is none."""
SPREAD = 3.0
"""Seconds between answers that show the same step: `Date` has whole seconds, and an answer takes its time."""
NOISE = 1.5
"""Seconds; a smaller offset is none."""
SLEW = 0.001
"""Seconds in each second by which our time may be made to go faster or slower: no `for` is noticeably shorter."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step that may be one. `since`: monotonic seconds; `low`, `high`: the offsets since then, in seconds."""

    since: float
    low: float
    high: float


def observe(before: Step | None, offset: float, at: float) -> Step | None:
    """Take in one offset (seconds that the server is ahead); None if it shows no step."""
    if abs(offset) <= STEP:
        return None
    if before is None:
        return Step(at, offset, offset)
    found = replace(before, low=min(before.low, offset), high=max(before.high, offset))
    return found if found.high - found.low <= SPREAD else Step(at, offset, offset)


def lasts(step: Step | None, at: float) -> bool:
    """Whether the clock was stepped for certain."""
    return step is not None and at - step.since >= LASTING


def slewed(offset: float, elapsed: float) -> float:
    """Return the seconds by which our time is corrected now, after `elapsed` seconds without a correction."""
    if abs(offset) <= NOISE:
        return 0.0
    limit = SLEW * max(0.0, elapsed)
    return max(-limit, min(limit, offset))
