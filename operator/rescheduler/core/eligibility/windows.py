"""Whether maintenance may go on now, by the policy's windows: a union of them; none means any time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rescheduler.api.windows import Window


@dataclass(frozen=True, slots=True)
class WindowState:
    """What the windows say at one moment.

    Attributes:
        until: when the last window that is open closes; None where none is open.
        next: when the next one opens; None where none does.
        error: a window that makes no sense; nothing is open because of it.
    """

    open_until: datetime | None = None
    next_opening: datetime | None = None
    error: str = ""


def window_state(windows: Sequence[Window], now: datetime) -> WindowState:
    """The windows' say; one that cannot be read opens nothing, and does not close the others."""
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
    return WindowState(max(closing, default=None), min(opening, default=None), "; ".join(errors))
