"""Preview what a drain of its node would do with one pod. The preview of the node decides: this module only selects."""

from dataclasses import dataclass
from enum import StrEnum

from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import DrainSettings
from rescheduler.core.drain.preview import (
    DrainPreview,
    PreviewInput,
    ineligible_reason,
    plan_node,
    preview_plan,
)
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.pods import Pod
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.replacement.messages import NO_ROOM_HINT, NO_ROOM_PREFIX


class PodOutcome(StrEnum):
    """Effect of a drain on a pod of its node."""

    STAYS = "Stays"  # the pod is not part of the drain
    BLOCKED = "Blocked"  # the pod is a blocker
    LEAVES_ALREADY = "LeavesAlready"  # the pod is Terminating
    FOLLOWS_CONTROLLER = "FollowsController"  # the pod leaves when the pod that controls it has left
    WAITS_FOR_NODE = "WaitsForNode"  # the pod leaves, and its new pod waits for this node
    STAYS_PENDING = "StaysPending"  # the pod leaves, and its new pod finds no place
    REPLACED_FIRST = "ReplacedFirst"  # the new pod is Ready before this pod is evicted
    EVICTED = "Evicted"  # plain eviction
    DELETED = "Deleted"  # plain delete: the pod is lost on its node


@dataclass(frozen=True, slots=True)
class PodPreview:
    """The preview of one pod.

    Attributes:
        blocker_class: for BLOCKED; otherwise None.
        message: why the pod stays, blocks, or finds no place; empty if the outcome says it.
        hint: what the user can do; empty if nothing helps.
        not_replaced_reason: of `decisions.ineligible_reason`; empty if the pod is replaced first, or does not leave.
        fit: whether the new pod fits on another node; None if no new pod needs one.
        fit_reason: why the new pod does not fit, or why only the scheduler can decide; empty if it fits.
        opted_out: annotations by which the pod asks other tools not to disrupt it.
    """

    outcome: PodOutcome
    blocker_class: BlockerClass | None = None
    message: str = ""
    hint: str = ""
    not_replaced_reason: str = ""
    fit: Fit | None = None
    fit_reason: str = ""
    opted_out: tuple[str, ...] = ()


def preview_pod(uid: str, node: Node, settings: DrainSettings, inputs: PreviewInput) -> PodPreview | None:
    """Return the preview of the pod with this UID; None if the node has no such pod."""
    node_plan = plan_node(node, settings, inputs)
    found = next(((pod, decision) for pod, decision in node_plan.decided if pod.uid == uid), None)
    if found is None:
        return None
    pod, decision = found
    forecasts = node_plan.forecasts_by_uid
    preview = preview_plan(node, settings, inputs, node_plan)
    reason = ineligible_reason(pod, decision, settings.with_rule(decision.rule), inputs, forecasts.get(uid))
    return _select(pod, decision, preview, forecasts.get(uid), reason)


def _select(
    pod: Pod, decision: PodDecision, preview: DrainPreview, forecast: Forecast | None, reason: str
) -> PodPreview:
    blocker = next((blocker for blocker in preview.blockers if blocker.pod == pod.key), None)
    pending = next((row for row in preview.pending if row.pod == pod.key), None)
    opted_out = next(
        (row.annotations for row in preview.opted_out if (row.namespace, row.pod) == (pod.namespace, pod.name)), ()
    )
    fit, fit_reason = (forecast.fit, forecast.reason or "") if forecast else (None, "")

    def leaves(outcome: PodOutcome, message: str = "", hint: str = "") -> PodPreview:
        return PodPreview(outcome, None, message, hint, reason, fit, fit_reason, tuple(opted_out))

    if decision.action is PodAction.SKIP:
        return PodPreview(PodOutcome.STAYS, message=decision.message)
    if blocker:
        return PodPreview(
            PodOutcome.BLOCKED, blocker.blocker_class, blocker.message, blocker.hint, reason, fit, fit_reason
        )
    if decision.action is PodAction.WAIT_TERMINATING:
        return PodPreview(PodOutcome.LEAVES_ALREADY)
    if decision.action is PodAction.WAIT_CONTROLLER:
        return PodPreview(PodOutcome.FOLLOWS_CONTROLLER)
    if pod.key in preview.waits_for_node:
        return leaves(PodOutcome.WAITS_FOR_NODE)
    if pending:
        return leaves(PodOutcome.STAYS_PENDING, pending.reason, pending.hint)
    if fit is Fit.DOES_NOT_FIT:
        message = NO_ROOM_PREFIX + fit_reason
        no_room = BlockerClass.NO_ROOM_IN_POOL
        return PodPreview(PodOutcome.BLOCKED, no_room, message, NO_ROOM_HINT, reason, fit, fit_reason)
    if decision.action is PodAction.DELETE:
        return leaves(PodOutcome.DELETED)
    return leaves(PodOutcome.EVICTED if reason or pod.finished else PodOutcome.REPLACED_FIRST)
