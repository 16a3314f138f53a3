"""What a drain makes of the plan: who is let go of first, who is held for want of room, and what is said of them.

A plan without room orders, it does not forbid: a replacement that is Pending is what an autoscaler acts on. Only pods
that cannot be replaced first are held at once, for they would be gone before anything could take them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import DrainSettings, NoRoom
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision
from rescheduler.core.model.pods import Pod
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.replacement.decisions import (
    NO_ROOM_HINT,
    NO_ROOM_PREFIX,
    PENDING_PREFIX,
    ReplacementDecision,
    ReplacementStep,
)

Forecasts = Mapping[str, Forecast]
"""By uid of the pod."""
_WAITING_STEPS = (ReplacementStep.WAIT, ReplacementStep.RELEASE)


def no_room_reason(forecast: Forecast | None) -> str:
    """Why there is no room for the pod elsewhere; empty where there is, or may be."""
    return forecast.reason if forecast and forecast.fit is Fit.DOES_NOT_FIT and not forecast.blocked_by_pods else ""


def blocked_by_pods_reason(forecast: Forecast | None) -> str:
    """Why other pods keep it off everywhere, though there is room; empty where they do not."""
    return forecast.reason if forecast and forecast.fit is Fit.DOES_NOT_FIT and forecast.blocked_by_pods else ""


def plan_sort_key(forecast: Forecast | None) -> tuple[bool, int]:
    """Sorts pods: those that fit come first, in the plan's order."""
    fits = forecast is not None and forecast.fit is Fit.FITS
    return not fits, forecast.rank if forecast else 0


def with_no_room_message(decision: ReplacementDecision, forecast: Forecast | None) -> ReplacementDecision:
    """With a word on the want of room while the pod waits: the scheduler's own, once there is one."""
    if not (why := no_room_reason(forecast)) or decision.step not in _WAITING_STEPS or decision.blocker_class:
        return decision
    message = PENDING_PREFIX + decision.message if decision.message else NO_ROOM_PREFIX + why
    return replace(decision, blocker_class=BlockerClass.NO_ROOM_IN_POOL, message=message, hint=NO_ROOM_HINT)


def hold_without_room(
    pod_decisions: Sequence[tuple[Pod, PodDecision]],
    decisions: Mapping[str, ReplacementDecision],
    forecasts: Forecasts,
    settings: DrainSettings,
    *,
    may_stay: bool = False,
) -> dict[str, ReplacementDecision]:
    """Pods that replacement first does not concern, and that have no room: they stay where they are.

    `may_stay`: so do those that other pods keep off everywhere, for their node need not be emptied.
    """

    def lacking(pod: Pod) -> str:
        choice, found = decisions.get(pod.uid), forecasts.get(pod.uid)
        if choice and not (may_stay and choice.step is ReplacementStep.PLAIN_EVICTION):
            return ""
        return no_room_reason(found) or (blocked_by_pods_reason(found) if may_stay else "")

    if settings.no_room is NoRoom.EVICT:
        return {}
    return {
        pod.uid: ReplacementDecision(
            ReplacementStep.HOLD,
            blocker_class=BlockerClass.NO_ROOM_IN_POOL,
            message=NO_ROOM_PREFIX + why,
            hint=NO_ROOM_HINT,
        )
        for pod, verdict in pod_decisions
        if verdict.action is PodAction.EVICT and (why := lacking(pod))
    }
