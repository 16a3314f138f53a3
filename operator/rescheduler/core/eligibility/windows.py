"""Evaluate the maintenance windows of a policy: maintenance may run while any of them is open.

A policy without windows allows maintenance at any time; callers check that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rescheduler.api.windows import Window


@dataclass(frozen=True, slots=True)
class WindowState:
    """The state of the windows at one moment.

    Attributes:
        open_until: when the last open window closes; None if no window is open.
        next_opening: when the next window opens; None if no window opens.
        error: the fields of invalid windows and what is wrong with them; None if all are valid.
    """

    open_until: datetime | None = None
    next_opening: datetime | None = None
    error: str | None = None


def window_state(windows: Sequence[Window], now: datetime) -> WindowState:
    """Return the state of the windows; an invalid window is never open, and does not affect the others."""
    closing: list[datetime] = []
    opening: list[datetime] = []
    errors: list[str] = []
    for index, window in enumerate(windows):
        try:
            last, following = window.opening(now, ahead=False), window.opening(now, ahead=True)
        except ValueError as error:
            errors.append(f"maintenance.windows[{index}]: {error}")
            continue
        if last and now < last + window.duration:
            closing.append(last + window.duration)
        if following:
            opening.append(following)
    return WindowState(max(closing, default=None), min(opening, default=None), "; ".join(errors) or None)
