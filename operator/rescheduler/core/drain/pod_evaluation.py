"""Rules for the pods of one node, with their timers as values: which pods are lost, refused, or next.

The controller of the pods (`controllers.evacuation.node_evacuation`) observes, applies these rules, and sends the
requests.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from rescheduler.api import names
from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import DrainSettings, ReplacementMode
from rescheduler.core.drain.capacity import Forecasts
from rescheduler.core.drain.pod_summary import PodSummary
from rescheduler.core.drain.state_machine import BLOCKED_AFTER
from rescheduler.core.eviction import pod_actions
from rescheduler.core.eviction.api_responses import EvictionOutcome, EvictionResult
from rescheduler.core.eviction.helpers import is_helper
from rescheduler.core.eviction.pod_actions import EvictionContext, PodAction, PodDecision, RequiredProof
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volumes import DETACH_STUCK_AFTER, NodeVolumes
from rescheduler.core.pools import move_selection
from rescheduler.core.replacement import messages
from rescheduler.core.replacement.decisions import ReplacementDecision, ReplacementStep, replacement_mode

REFUSAL_REPORTED_AFTER = timedelta(seconds=5)
"""A refusal of a budget is no blocker before: the budget may only wait for the replacement of the last pod."""
UNREADY_CONFIRMED_AFTER = timedelta(seconds=15)
"""The node controller marks all pods of an unhealthy node as not Ready; a running kubelet resets them within 10 s."""
_BLOCKERS_BY_ELIGIBILITY = (
    BlockerClass.BUDGET_EXHAUSTED,
    BlockerClass.BUDGET_MISCONFIGURED,
    BlockerClass.NO_ROOM_IN_POOL,
)
"""Blockers that a pod might not have if it were replaced first."""
SENDING_STEPS = (ReplacementStep.PLAIN_EVICTION, ReplacementStep.EVICT, ReplacementStep.DELETE)
"""Steps with a request that removes the pod."""


class MoveMode(StrEnum):
    """Pods that a drain or a migration may move now."""

    NONE = "None"  # only returns
    RELEASE_ONLY = "ReleaseOnly"  # releases and returns; no eviction and no delete
    BEGUN_ONLY = "BegunOnly"  # only pods with a move record
    ALL = "All"


@dataclass(frozen=True, slots=True)
class PodTimers:
    """Start times, as observed by this process.

    Attributes:
        refused_since: start of the expected refusal, by pod uid.
        unready_since: first evaluation at which the pod was not Ready, by pod uid.
        unused_since: first evaluation at which no pod used the attached volume, by name of the volume.
        controlling_pods_seen: last evaluation at which the pod that controls the pod was on the node, by pod uid.
    """

    refused_since: Mapping[str, datetime] = field(default_factory=dict)
    unready_since: Mapping[str, datetime] = field(default_factory=dict)
    unused_since: Mapping[str, datetime] = field(default_factory=dict)
    controlling_pods_seen: Mapping[str, datetime] = field(default_factory=dict)

    def seconds_until_reported(self, now: datetime) -> float:
        """Return the seconds until the next refusal becomes a blocker."""
        waits = [
            REFUSAL_REPORTED_AFTER - (now - since)
            for since in self.refused_since.values()
            if now - since < REFUSAL_REPORTED_AFTER
        ]
        return min(waits, default=REFUSAL_REPORTED_AFTER).total_seconds()


@dataclass(frozen=True, slots=True)
class PodEvaluation:
    """Decisions for the pods of one node at one moment.

    Attributes:
        summary: counts, blockers and the pods that are next.
        replacement_decisions: step of each pod of a Deployment, by pod uid.
        move_causes: cause of the move, such as `NodeDrain/n1`, by uid of each pod that moves.
        volumes: volumes of the node.
    """

    summary: PodSummary
    replacement_decisions: Mapping[str, ReplacementDecision] = field(default_factory=dict)
    move_causes: Mapping[str, str] = field(default_factory=dict)
    volumes: NodeVolumes = field(default_factory=NodeVolumes)

    def sends(self, pod: Pod) -> bool:
        """Whether the decision for the pod allows a request that removes it."""
        decision = self.replacement_decisions.get(pod.uid)
        return decision is None or decision.step in SENDING_STEPS

    def pods_with_step(
        self, node_pods: Iterable[Pod], steps: Collection[ReplacementStep]
    ) -> list[tuple[Pod, ReplacementDecision]]:
        """Return the pods whose decision is one of these steps."""
        return [
            (pod, decision)
            for pod in node_pods
            if (decision := self.replacement_decisions.get(pod.uid)) and decision.step in steps
        ]

    def pods_without_replacement(self, node_pods: Iterable[Pod]) -> tuple[tuple[Pod, ReplacementDecision], ...]:
        """Return the pods that leave without a replacement because none could be had."""
        plain = self.pods_with_step(node_pods, (ReplacementStep.PLAIN_EVICTION,))
        return tuple((pod, decision) for pod, decision in plain if decision.message)

    def are_releases_held(self, node_pods: Iterable[Pod]) -> bool:
        """Whether no running pod with a move record can be returned now."""
        return all(
            (decision := self.replacement_decisions.get(pod.uid)) and decision.step is ReplacementStep.HOLD
            for pod in pods_with_record(node_pods)
        )

    def pods_in_turn(
        self, node_pods: Iterable[Pod], evicting_uids: Collection[str], mode: MoveMode
    ) -> list[tuple[Pod, PodDecision]]:
        """Return the pods that may move now, the highest priority first among pods with claims.

        Volumes are detached one after another, so that the cloud API does not throttle. With proof that the boot is
        dead, all volumes are detached at once.
        """

        def is_leaving(pod: Pod) -> bool:
            return pod.deletion_timestamp is not None or pod.uid in evicting_uids

        if mode not in (MoveMode.BEGUN_ONLY, MoveMode.ALL):
            return []
        turn = []
        is_detaching = bool(self.summary.detaching_volumes) or any(
            self.volumes.has_volume_to_detach(pod) for pod in node_pods if is_leaving(pod)
        )
        # With another order, the volumes of important pods would be attached last.
        for pod, decision in sorted(
            self.summary.next_pods, key=lambda row: -row[0].priority if row[0].all_claims else 0
        ):
            if mode is MoveMode.BEGUN_ONLY and not pod.release_record:
                continue
            if (
                self.volumes.has_volume_to_detach(pod)
                and not decision.forced
                and decision.required_proof is not RequiredProof.BOOT_DEAD
            ):
                if is_detaching and not is_leaving(pod):
                    continue
                is_detaching = True
            turn.append((pod, decision))
        return turn


def pods_with_record(node_pods: Iterable[Pod]) -> list[Pod]:
    """Return the running pods with a move record."""
    return [pod for pod in node_pods if pod.release_record and not pod.deletion_timestamp and not pod.finished]


def move_cause(pod: Pod, subscriber: str, migration_requests: Mapping[str, str] | None) -> str:
    """Return the cause of the move; empty if the pod does not move.

    `migration_requests`: cause by pod uid; None for a drain, which moves all pods. A released pod keeps its cause.
    """
    if migration_requests is None:
        return f"NodeDrain/{subscriber}"
    return migration_requests.get(pod.uid) or (pod.release_record.cause if pod.release_record else "")


def decide_pod(
    pod: Pod, settings: DrainSettings, context: EvictionContext, migration_requests: Mapping[str, str] | None
) -> PodDecision:
    """Return the decision for one pod.

    A migration skips a released pod without a request, so that it is returned. It skips pods that belong to other pods of
    the node: helpers, and pods that another pod controls.
    """
    if migration_requests is None:
        return pod_actions.decide_action(pod, settings, context)
    belongs_to_others = pod_actions.is_controlled_by_pod(pod) or is_helper(pod)
    if (pod.uid not in migration_requests or belongs_to_others) and not pod.deletion_timestamp:
        return PodDecision(PodAction.SKIP)
    # The soft taint of a migration does not keep such a pod off the node.
    if pod.tolerates_cordon and not pod.deletion_timestamp and not pod.finished:
        return PodDecision(PodAction.SKIP)
    # The node of a migration may keep the pod, so a pod that only this node can have lacks room like any other pod.
    return replace(pod_actions.decide_action(pod, settings, context), is_bound_to_node=False)


def pods_for_plan(
    pod_decisions: Iterable[tuple[Pod, PodDecision]], move_causes: Mapping[str, str], *, is_drain: bool
) -> list[Pod]:
    """Return the pods whose new pods need room; rebalancing has checked the room of its pods already."""
    return [
        pod
        for pod, decision in pod_decisions
        if (is_drain or move_causes[pod.uid].startswith(move_selection.CAUSE_PREFIX))
        and pod_actions.needs_placement(pod, decision)
    ]


def forecasts_in_effect(forecasts: Forecasts, pods: Iterable[Pod], context: EvictionContext) -> Forecasts:
    """Return the forecasts that may hold a pod back.

    Pods that serve no traffic leave even without room: all pods of an unreachable node, and the pods of a failed node
    that are not Ready.
    """
    if context.node_unreachable:
        return {}
    if not context.node_failing:
        return forecasts
    return {pod.uid: forecasts[pod.uid] for pod in pods if pod.ready and pod.uid in forecasts}


def timers_since(previous: Mapping[str, datetime], keys: Iterable[str], now: datetime) -> dict[str, datetime]:
    """Return the start of each condition that holds now; a new one starts now."""
    return {key: previous.get(key, now) for key in keys}


def bypass_budgets(
    pod_decisions: Sequence[tuple[Pod, PodDecision]],
    unready_since: Mapping[str, datetime],
    refused_uids: Collection[str],
    context: EvictionContext,
) -> list[tuple[Pod, PodDecision]]:
    """Return the decisions, with a plain delete for pods that their budgets refuse and that are not Ready for long."""
    lost_uids = {
        uid
        for uid, since in unready_since.items()
        if context.now - since >= UNREADY_CONFIRMED_AFTER and uid in refused_uids
    }
    return [
        (pod, pod_actions.bypass_budget(pod, decision, context) if pod.uid in lost_uids else decision)
        for pod, decision in pod_decisions
    ]


def decide_again_at(decisions: Iterable[ReplacementDecision]) -> datetime | None:
    """Return when time alone may change the step of a pod; None if only an event can."""
    return min((decision.decide_again_at for decision in decisions if decision.decide_again_at), default=None)


def with_replacement_step(pod: Pod, pod_decision: PodDecision, decision: ReplacementDecision | None) -> PodDecision:
    """Return the decision for a pod with its replacement considered.

    A surplus pod is deleted plainly: a budget that expects 0 pods would refuse its eviction forever. The owner of a pod
    is warned if the pod leaves without the replacement that its annotation requires.
    """
    if pod_decision.action is not PodAction.EVICT:
        return pod_decision
    if decision and decision.step is ReplacementStep.DELETE:
        return replace(pod_decision, action=PodAction.DELETE)
    if pod.annotations.get(names.REPLACEMENT) != ReplacementMode.REQUIRED or pod.finished:
        return pod_decision
    cause = messages.not_replaced_cause(not_replaced_reason(pod, decision), pod.host_paths)
    if not cause:
        return pod_decision
    warnings = (pod_decision.owner_message, messages.required_not_honoured(cause))
    return replace(pod_decision, owner_message=" ".join(filter(None, warnings)))


def waiting_for_node(
    pod_decisions: Iterable[tuple[Pod, PodDecision]], uids_without_room: Collection[str], before: Iterable[str]
) -> tuple[str, ...]:
    """Return the pods of a drain that wait for its node, on the node or gone, as sorted namespace/name.

    `uids_without_room`: pods with data in a hostPath of the node, for which no other node has room. `before`: the
    result of the last evaluation. A pod that tolerates the cordon does not wait: it starts on the node again.
    """
    rows, known = list(pod_decisions), frozenset(before)
    present = {
        pod.key
        for pod, decision in rows
        if ((decision.waits_for_node or pod.uid in uids_without_room) and not pod.tolerates_cordon)
        or (decision.action is PodAction.WAIT_TERMINATING and not pod.finished and pod.key in known)
    }
    return tuple(sorted(present | (known - {pod.key for pod, _ in rows})))


def with_eligibility(refusal: EvictionResult, pod: Pod, reason: str, mode: ReplacementMode) -> EvictionResult:
    """Return the refusal, with the cause if the pod is not replaced first: with a replacement, it might not be refused.

    `reason`: of `decisions.ineligible_reason`; empty if the pod is replaced first.
    """
    required = mode is ReplacementMode.REQUIRED
    cause = messages.not_replaced_cause(reason, pod.host_paths)
    # Most pods have no Deployment, and their owners know that. An owner that requires a replacement may not.
    if (
        not cause
        or refusal.blocker_class not in _BLOCKERS_BY_ELIGIBILITY
        or (reason == "NoDeployment" and not required)
    ):
        return refusal
    return replace(
        refusal,
        message=f"{refusal.message}; {messages.not_replaced_first(cause, required=required)}",
        hint="; or ".join(filter(None, (messages.not_replaced_hint(reason), refusal.hint))),
    )


def not_replaced_reason(pod: Pod, decision: ReplacementDecision | None) -> str:
    """Return why the pod is not replaced first, as `decisions.ineligible_reason` does; empty if it is."""
    if decision and decision.reason:
        return decision.reason if decision.step in (ReplacementStep.PLAIN_EVICTION, ReplacementStep.HOLD) else ""
    return "" if pod.owner and pod.owner.kind == "ReplicaSet" else "NoDeployment"


def expected_refusals(
    pod_decisions: Iterable[tuple[Pod, PodDecision]],
    predicted: Mapping[str, EvictionResult],
    decisions: Mapping[str, ReplacementDecision],
    settings: DrainSettings,
) -> dict[str, tuple[EvictionResult, timedelta]]:
    """Return the expected refusals by pod uid, each with the time after which it becomes a blocker.

    `predicted`: refusals that the watched budgets predict, by pod uid.
    """
    refusals = _refusals_without_eligibility(predicted, decisions)
    for pod, pod_decision in pod_decisions:
        if pod.uid in refusals:
            refusal, wait = refusals[pod.uid]
            mode = replacement_mode(pod, settings.with_rule(pod_decision.rule))
            reason = not_replaced_reason(pod, decisions.get(pod.uid))
            refusals[pod.uid] = with_eligibility(refusal, pod, reason, mode), wait
    return refusals


def _refusals_without_eligibility(
    predicted: Mapping[str, EvictionResult], decisions: Mapping[str, ReplacementDecision]
) -> dict[str, tuple[EvictionResult, timedelta]]:
    refusals = {uid: (refusal, REFUSAL_REPORTED_AFTER) for uid, refusal in predicted.items()}
    for uid, decision in decisions.items():
        if decision.blocker_class:
            blocked = EvictionResult(EvictionOutcome.REFUSED, decision.blocker_class, decision.message, decision.hint)
            is_short = decision.step is ReplacementStep.WAIT and (
                decision.blocker_class is BlockerClass.REPLACEMENT_NOT_READY
            )
            refusals[uid] = (blocked, REFUSAL_REPORTED_AFTER if is_short else timedelta())
        elif decision.step is ReplacementStep.PLAIN_EVICTION and decision.message and uid in predicted:
            # The remedy of the budget alone would not help: the pod would leave replacement first if that were possible.
            message, hint = messages.with_refusal(predicted[uid].message, decision.message), decision.hint
            refusals[uid] = (replace(predicted[uid], message=message, hint=hint), REFUSAL_REPORTED_AFTER)
        elif decision.step is ReplacementStep.WAIT and decision.waiting_for:
            waiting = EvictionResult(
                EvictionOutcome.REFUSED,
                BlockerClass.REPLACEMENT_NOT_READY,
                decision.waiting_for,
                decision.hint or messages.OWNER_HINT,
            )
            refusals[uid] = (waiting, BLOCKED_AFTER)
    return refusals


def refusal_timers(
    previous: Mapping[str, datetime], refused_uids: Iterable[str], reported_uids: Collection[str], now: datetime
) -> dict[str, datetime]:
    """Return the start of each refusal; `reported_uids`: blockers of the status, which may be older than this process."""
    return {
        uid: previous.get(uid, now - REFUSAL_REPORTED_AFTER if uid in reported_uids else now) for uid in refused_uids
    }


def lasting_refusals(
    refusals: Mapping[str, tuple[EvictionResult, timedelta]], refused_since: Mapping[str, datetime], now: datetime
) -> dict[str, EvictionResult]:
    """Return the refusals that have lasted: most budgets have room again as soon as a replacement is Ready."""
    return {uid: refusal for uid, (refusal, wait) in refusals.items() if now - refused_since[uid] >= wait}


def waiting_uids(decisions: Mapping[str, ReplacementDecision]) -> frozenset[str]:
    """Return the uids of pods that wait for their turn or their replacement."""
    return frozenset(
        uid
        for uid, decision in decisions.items()
        if decision.step not in SENDING_STEPS and decision.step is not ReplacementStep.HOLD
    )


def unused_volumes(node_pods: Iterable[Pod], context: EvictionContext) -> frozenset[str]:
    """Return the attached volumes without a pod; without proof, none of an unreachable node is awaited."""
    if context.node_unreachable and not context.boot_dead:
        return frozenset()  # the kubelet detaches no volume there, so a wait would not end
    return frozenset(context.volumes.awaiting_detach(node_pods))


def with_unused_volumes(summary: PodSummary, unused_since: Mapping[str, datetime], now: datetime) -> PodSummary:
    """Return the summary with the volumes to wait for and the stuck volumes."""
    stuck = frozenset(name for name, since in unused_since.items() if now - since >= DETACH_STUCK_AFTER)
    return replace(summary, detaching_volumes=frozenset(unused_since) - stuck, stuck_volumes=stuck)
