"""What a drain makes of the plan: who is let go of first, who is held for want of room, and what is said of them.

A plan without room orders, it does not forbid: a replacement that is Pending is what an autoscaler acts on. Only pods
that cannot be replaced first are held at once, for they would be gone before anything could take them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import Drain, NoRoom
from rescheduler.core.eviction.pod_actions import Fate, Verdict
from rescheduler.core.model.pods import Pod
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.replacement.decisions import NO_ROOM_HINT, PENDING, PLANNED, Choice, Way

Forecasts = Mapping[str, Forecast]
"""By uid of the pod."""
_WAITING = (Way.WAIT, Way.RELEASE)


def short(forecast: Forecast | None) -> str:
    """Why there is no room for the pod elsewhere; empty where there is, or may be."""
    return forecast.reason if forecast and forecast.fit is Fit.DOES_NOT_FIT and not forecast.crowded else ""


def crowded(forecast: Forecast | None) -> str:
    """Why other pods keep it off everywhere, though there is room; empty where they do not."""
    return forecast.reason if forecast and forecast.fit is Fit.DOES_NOT_FIT and forecast.crowded else ""


def turn(forecast: Forecast | None) -> tuple[bool, int]:
    """Sorts pods: those that fit come first, in the plan's order."""
    fits = forecast is not None and forecast.fit is Fit.FITS
    return not fits, forecast.turn if forecast else 0


def named(choice: Choice, forecast: Forecast | None) -> Choice:
    """With a word on the want of room while the pod waits: the scheduler's own, once there is one."""
    if not (why := short(forecast)) or choice.way not in _WAITING or choice.cause:
        return choice
    message = PENDING + choice.message if choice.message else PLANNED + why
    return replace(choice, cause=BlockerClass.NO_ROOM_IN_POOL, message=message, hint=NO_ROOM_HINT)


def held(
    judged: Sequence[tuple[Pod, Verdict]],
    choices: Mapping[str, Choice],
    forecasts: Forecasts,
    drain: Drain,
    *,
    may_stay: bool = False,
) -> dict[str, Choice]:
    """Pods that replacement first does not concern, and that have no room: they stay where they are.

    `may_stay`: so do those that other pods keep off everywhere, for their node need not be emptied.
    """

    def lacking(pod: Pod) -> str:
        choice, found = choices.get(pod.uid), forecasts.get(pod.uid)
        if choice and not (may_stay and choice.way is Way.PLAIN):
            return ""
        return short(found) or (crowded(found) if may_stay else "")

    if drain.no_room is NoRoom.EVICT:
        return {}
    return {
        pod.uid: Choice(Way.HOLD, cause=BlockerClass.NO_ROOM_IN_POOL, message=PLANNED + why, hint=NO_ROOM_HINT)
        for pod, verdict in judged
        if verdict.fate is Fate.EVICT and (why := lacking(pod))
    }
