"""Apply the placement plan to a drain: which pods are released first, and which pods stay for lack of room.

A pod without room is only moved later, because an autoscaler acts on its Pending replacement. Only pods that get no
replacement first stay at once: they would be gone before another pod has room.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import DrainSettings, NoRoom
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision
from rescheduler.core.model.pods import Pod
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.replacement.decisions import ReplacementDecision, ReplacementStep
from rescheduler.core.replacement.messages import NO_ROOM_HINT, NO_ROOM_PREFIX, PENDING_PREFIX

Forecasts = Mapping[str, Forecast]
"""Forecasts by pod UID."""
_WAITING_STEPS = (ReplacementStep.WAIT, ReplacementStep.RELEASE)


def no_room_reason(forecast: Forecast | None) -> str | None:
    """Return why no other node has room for the pod; None if there is or may be room."""
    return forecast.reason if forecast and forecast.fit is Fit.DOES_NOT_FIT and not forecast.blocked_by_pods else None


def blocked_by_pods_reason(forecast: Forecast | None) -> str | None:
    """Return why other pods keep this pod off every node that has room; None if they do not."""
    return forecast.reason if forecast and forecast.fit is Fit.DOES_NOT_FIT and forecast.blocked_by_pods else None


def is_colocated(forecast: Forecast | None) -> bool:
    """Whether the pod must leave before its new pod finds a place, and pods that stay do not keep the new pod off."""
    return forecast is not None and bool(forecast.colocated_uids) and not forecast.blocked_by_pods


def host_data_without_room(forecasts: Forecasts, pods: Iterable[Pod]) -> frozenset[str]:
    """Return the uids of pods that have data in a hostPath of their node, and no room elsewhere.

    Their data is on this node only. Therefore they leave within their budgets, and wait for their node.
    """
    return frozenset(pod.uid for pod in pods if pod.has_host_data and no_room_reason(forecasts.get(pod.uid)))


def plan_sort_key(forecast: Forecast | None) -> tuple[bool, int]:
    """Sort pods in the order of the plan; pods that fit nowhere and pods without a forecast come last."""
    comes_last = forecast is None or forecast.fit is Fit.DOES_NOT_FIT
    return comes_last, forecast.rank if forecast else 0


def with_no_room_message(decision: ReplacementDecision, forecast: Forecast | None) -> ReplacementDecision:
    """Return the decision with the blocker `NoRoomInPool` while the pod waits; the scheduler's message comes first."""
    if not (reason := no_room_reason(forecast)) or decision.step not in _WAITING_STEPS or decision.blocker_class:
        return decision
    message = PENDING_PREFIX + decision.message if decision.message else NO_ROOM_PREFIX + reason
    return replace(decision, blocker_class=BlockerClass.NO_ROOM_IN_POOL, message=message, hint=NO_ROOM_HINT)


def hold_without_room(
    pod_decisions: Sequence[tuple[Pod, PodDecision]],
    decisions: Mapping[str, ReplacementDecision],
    forecasts: Forecasts,
    settings: DrainSettings,
    *,
    may_stay: bool = False,
) -> dict[str, ReplacementDecision]:
    """Return the decisions for pods that get no replacement first and have no room: these pods stay on the node.

    `may_stay`: the node need not become empty, so a pod that other pods keep off every node stays too.
    """

    def no_place_reason(pod: Pod) -> str | None:
        decision, forecast = decisions.get(pod.uid), forecasts.get(pod.uid)
        if decision and not (may_stay and decision.step is ReplacementStep.PLAIN_EVICTION):
            return None
        return no_room_reason(forecast) or (blocked_by_pods_reason(forecast) if may_stay else None)

    if settings.no_room is NoRoom.EVICT:
        return {}
    return {
        pod.uid: ReplacementDecision(
            ReplacementStep.HOLD,
            blocker_class=BlockerClass.NO_ROOM_IN_POOL,
            message=NO_ROOM_PREFIX + reason,
            hint=NO_ROOM_HINT,
        )
        for pod, pod_decision in pod_decisions
        if pod_decision.action is PodAction.EVICT and (reason := no_place_reason(pod))
    }
