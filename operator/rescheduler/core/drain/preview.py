"""Preview the drain of a node. The preview writes nothing and keeps nothing.

The preview uses the same rules as the drain: actions, budgets and placement.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random

from rescheduler.api.drains import BlockerClass, OptedOutPod
from rescheduler.api.policies import DrainSettings, NoRoom, ReplacementMode
from rescheduler.core.drain import capacity, eta
from rescheduler.core.drain.colocated_pods import hold_for_colocated_pods
from rescheduler.core.drain.pod_evaluation import waiting_for_node, with_eligibility
from rescheduler.core.drain.pod_summary import opted_out_pods, staying_pods
from rescheduler.core.eviction import api_responses
from rescheduler.core.eviction.controlling_pods import follow_controlling_pods
from rescheduler.core.eviction.pod_actions import (
    EvictionContext,
    OwnerKey,
    PodAction,
    PodDecision,
    PodWithDecision,
    decide_action,
    needs_placement,
)
from rescheduler.core.model.disruption_budgets import DisruptionBudget, budgets_for
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volumes import NodeVolumes
from rescheduler.core.model.workloads import Deployment, ReplicaSet, Workload
from rescheduler.core.placement import chain_moves
from rescheduler.core.placement.chain_moves import ChainPlan
from rescheduler.core.placement.planner import Fit, Forecast, plan
from rescheduler.core.placement.pod_requirements import PodRequirements
from rescheduler.core.placement.pod_snapshot import ScheduledPod
from rescheduler.core.placement.problem import PlacementInput
from rescheduler.core.replacement import decisions, failures, messages
from rescheduler.core.replacement.failures import ReplacementFailure


class Drainable(StrEnum):
    """Whether a node can be drained now."""

    YES = "Yes"
    UNSURE = "Unsure"  # only the scheduler can decide for some pods
    NO = "No"


@dataclass(frozen=True, slots=True)
class ExpectedBlocker:
    """A pod that would block a drain.

    Attributes:
        pod: namespace/name.
        message: why the pod cannot leave.
        hint: what the user can do; empty if nothing helps.
    """

    pod: str
    blocker_class: BlockerClass
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class PendingPod:
    """A pod that leaves although the plan finds no place for its new pod.

    Attributes:
        pod: namespace/name.
        reason: why no node takes the new pod.
        hint: what the user can do; empty if nothing simple helps.
    """

    pod: str
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class DrainPreview:
    """The preview of one node.

    Attributes:
        node: the name of the node.
        placed: pods that certainly fit elsewhere.
        staying: number of pods that a drain leaves.
        unplaced: pods that stay because they do not fit, or that depend on the scheduler, with the forecast.
        pending: pods that leave within their budgets, and whose new pods stay Pending.
        blockers: pods that would block the drain.
        single_replica_pods: the only pod of a Deployment: with plain eviction the Deployment is down for a while.
        opted_out: pods that leave although they ask another tool not to disrupt them.
        waits_for_node: pods that only this node can have: they leave, and their new pods wait for the node.
        replaced_first: pods whose budget allows no eviction now, and that leave when their replacement is Ready.
        named_staying: of the pods that a drain leaves, those that could leave under other settings, with the reason.
        min_duration: the shortest duration of the drain.
        chain_plan: pods of other nodes whose move would give room to pods of this node.
        max_chain_moves: number of such moves that the drain makes itself.
    """

    node: str
    placed: int
    staying: int
    unplaced: tuple[tuple[str, Forecast], ...] = ()
    pending: tuple[PendingPod, ...] = ()
    blockers: tuple[ExpectedBlocker, ...] = ()
    single_replica_pods: tuple[str, ...] = ()
    opted_out: tuple[OptedOutPod, ...] = ()
    waits_for_node: tuple[str, ...] = ()
    replaced_first: tuple[str, ...] = ()
    named_staying: tuple[tuple[str, str], ...] = ()
    min_duration: timedelta = timedelta()
    chain_plan: ChainPlan = field(default_factory=ChainPlan)
    max_chain_moves: int = 0

    @property
    def drainable(self) -> Drainable:
        """Whether the node can be drained."""
        if self.blockers or any(
            forecast.fit is Fit.DOES_NOT_FIT and not self.makes_room_for(pod) for pod, forecast in self.unplaced
        ):
            return Drainable.NO
        all_fit = self.chain_plan.all_fit if self.chain_plan.moves else not self.unplaced
        return Drainable.YES if all_fit else Drainable.UNSURE

    def makes_room_for(self, pod: str) -> bool:
        """Whether the drain moves a pod of another node first, so that this pod (namespace/name) fits."""
        return self.max_chain_moves > 0 and pod in self.chain_plan.by_pod


@dataclass(frozen=True, slots=True)
class PreviewInput:
    """The input of a preview, read at one moment.

    Attributes:
        now: the time of the reads.
        placement_input: nodes and pods for placement; its snapshot lists each pod of `pods_by_node`.
        pods_by_node: pods of the previewed nodes and of the nodes that are drained now.
        draining: settings of the nodes that are drained now: these nodes take no pods, and their pods need room too.
        budgets: by namespace.
        replica_sets: by UID.
        deployments: by UID.
        volumes: volumes of the pods.
        daemon_sets: UIDs of the DaemonSets, by namespace.
        came_back: owners whose pods the drain of a node no longer evicts, because they came back, by node.
    """

    now: datetime
    placement_input: PlacementInput
    pods_by_node: Mapping[str, Sequence[Pod]]
    draining: Mapping[str, DrainSettings] = field(default_factory=dict)
    budgets: Mapping[str, Sequence[DisruptionBudget]] = field(default_factory=dict)
    replica_sets: Mapping[str, ReplicaSet] = field(default_factory=dict)
    deployments: Mapping[str, Deployment] = field(default_factory=dict)
    volumes: NodeVolumes = field(default_factory=NodeVolumes)
    daemon_sets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    came_back: Mapping[str, frozenset[OwnerKey]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodePlan:
    """The plan of one node.

    Attributes:
        decided: the pods of the node, each with its decision.
        pods_to_place: the pods whose new pods need room.
        forecasts: one for each of `pods_to_place`.
        placement_input: what the plan was made from.
    """

    decided: Sequence[PodWithDecision]
    pods_to_place: Sequence[ScheduledPod]
    forecasts: Sequence[Forecast]
    placement_input: PlacementInput

    @property
    def forecasts_by_uid(self) -> dict[str, Forecast]:
        """Return the forecasts by uid of the pod."""
        return {pod.uid: forecast for pod, forecast in zip(self.pods_to_place, self.forecasts, strict=True)}

    @property
    def lacks_room(self) -> bool:
        """Whether more free capacity would help a pod."""
        return any(map(chain_moves.lacks_room, self.forecasts))


def plan_node(node: Node, settings: DrainSettings, inputs: PreviewInput) -> NodePlan:
    """Return the plan of draining this node with these settings."""
    decided = decide_pods(node, settings, inputs)
    uids_to_place = {pod.uid for pod, decision in decided if needs_placement(pod, decision)}
    node_pods = [
        node_pod
        for node_pod in inputs.placement_input.pod_snapshot.pods_by_node[node.name]
        if node_pod.uid in uids_to_place
    ]
    placement_input = _placement_input(node, inputs)
    forecasts = plan(node_pods, placement_input, Random(0)) if node_pods else []  # noqa: S311 - no secret
    return NodePlan(decided, node_pods, forecasts, placement_input)


def preview_node(node: Node, settings: DrainSettings, inputs: PreviewInput) -> DrainPreview:
    """Return the preview of draining this node with these settings."""
    return preview_plan(node, settings, inputs, plan_node(node, settings, inputs))


def preview_plan(
    node: Node,
    settings: DrainSettings,
    inputs: PreviewInput,
    node_plan: NodePlan,
    chain_plan: ChainPlan | None = None,
) -> DrainPreview:
    """Return the preview with this plan of the node; `chain_plan`: moves of other pods that would help."""
    decided, forecasts_by_uid = node_plan.decided, node_plan.forecasts_by_uid
    uids_without_room = capacity.host_data_without_room(forecasts_by_uid, (pod for pod, _ in decided))
    pending = {
        pod.uid: PendingPod(pod.key, forecast.reason or "", _pending_hint(forecast))
        for pod, decision in decided
        if (forecast := forecasts_by_uid.get(pod.uid))
        and pod.uid not in uids_without_room
        and _leaves_without_place(pod, decision, forecast, settings, inputs)
    }
    rows = sorted(
        (pod.key, forecasts_by_uid[pod.uid])
        for pod, _ in decided
        if pod.uid in forecasts_by_uid and pod.uid not in uids_without_room and pod.uid not in pending
    )
    blockers, replaced_first = _expected_blockers(decided, settings, inputs, forecasts_by_uid)
    blocked = {blocker.pod for blocker in blockers}
    first_budgets = {pod.uid: pod_budgets[0] for pod, _ in decided if (pod_budgets := _budgets(pod, inputs))}
    leaving = [(pod, decision) for pod, decision in decided if decision.action is not PodAction.SKIP]
    groups = eta.EvictionRates().group_pods(
        leaving, first_budgets, timedelta(), grace_period_seconds=settings.grace_period_seconds
    )
    return DrainPreview(
        node.name,
        placed=sum(forecast.fit is Fit.FITS for _, forecast in rows),
        staying=len(decided) - len(leaving),
        named_staying=tuple((pod.key, reason) for pod, reason in staying_pods(decided)),
        unplaced=tuple((key, forecast) for key, forecast in rows if forecast.fit is not Fit.FITS),
        pending=tuple(sorted((row for row in pending.values() if row.pod not in blocked), key=lambda row: row.pod)),
        blockers=tuple(blockers),
        single_replica_pods=tuple(sorted(pod.key for pod, _ in leaving if _is_single_replica(pod, inputs))),
        opted_out=tuple(opted_out_pods(leaving, inputs.now)),
        waits_for_node=waiting_for_node(decided, uids_without_room, ()),
        replaced_first=tuple(replaced_first),
        min_duration=eta.min_duration(groups, settings.max_evictions_per_second),
        chain_plan=chain_plan or ChainPlan(),
        max_chain_moves=settings.chain_moves,
    )


def decide_pods(node: Node, settings: DrainSettings, inputs: PreviewInput) -> list[PodWithDecision]:
    """Return the pods of the node with the decisions of the drain."""
    context = EvictionContext(
        inputs.now,
        node_unreachable=node.ready_status == CONDITION_UNKNOWN,
        namespace_labels=inputs.placement_input.namespace_labels,
        daemon_set_uids=inputs.daemon_sets,
        came_back=inputs.came_back.get(node.name, frozenset()),
        volumes=inputs.volumes,
    )
    decided = [(pod, decide_action(pod, settings, context)) for pod in inputs.pods_by_node.get(node.name, ())]
    return follow_controlling_pods(decided, {}, context)


def _placement_input(node: Node, inputs: PreviewInput) -> PlacementInput:
    """Return the placement input without the nodes of other drains, and with the pods of those nodes as competitors."""
    other_nodes = [name for name in inputs.draining if name != node.name]
    competing: dict[PodRequirements, int] = dict(inputs.placement_input.pod_snapshot.pending)
    for name in other_nodes:
        if node_info := inputs.placement_input.nodes.get(name):
            uids_to_place = {
                pod.uid
                for pod, decision in decide_pods(node_info, inputs.draining[name], inputs)
                if needs_placement(pod, decision)
            }
            for node_pod in inputs.placement_input.pod_snapshot.pods_by_node[name]:
                if node_pod.uid in uids_to_place:
                    competing[node_pod.requirements] = competing.get(node_pod.requirements, 0) + 1
    return replace(inputs.placement_input, excluded_nodes={*other_nodes, node.name}, competing_pods=competing)


# -- pods whose new pods find no place --------------------------------------------------------------------------------


def _leaves_without_place(
    pod: Pod, decision: PodDecision, forecast: Forecast, settings: DrainSettings, inputs: PreviewInput
) -> bool:
    """Whether a drain evicts the pod although the plan finds no place for its new pod."""
    if forecast.fit is not Fit.DOES_NOT_FIT:
        return False
    merged = settings.with_rule(decision.rule)
    if capacity.blocked_by_pods_reason(forecast) is None:
        return merged.no_room is NoRoom.EVICT
    required = decisions.replacement_mode(pod, merged) is ReplacementMode.REQUIRED
    return not required or bool(ineligible_reason(pod, decision, merged, inputs, forecast))


def _pending_hint(forecast: Forecast) -> str:
    return failures.hint(ReplacementFailure.BLOCKED_BY_PODS) if capacity.blocked_by_pods_reason(forecast) else ""


# -- expected blockers ------------------------------------------------------------------------------------------------


def _expected_blockers(
    pod_decisions: Sequence[PodWithDecision],
    settings: DrainSettings,
    inputs: PreviewInput,
    forecasts: capacity.Forecasts,
) -> tuple[list[ExpectedBlocker], list[str]]:
    """Return the blockers, and the pods that leave when their replacement is Ready; `forecasts`: by uid."""
    blockers, replaced_first = [], []
    held = hold_for_colocated_pods(pod_decisions, {}, forecasts, lambda pod: _budgets(pod, inputs), ())
    for pod, decision in sorted(pod_decisions, key=lambda row: row[0].key):
        if decision.blocker_class:
            blockers.append(ExpectedBlocker(pod.key, decision.blocker_class, decision.message, decision.hint))
        elif (hold := held.get(pod.uid)) and hold.blocker_class:
            blockers.append(ExpectedBlocker(pod.key, hold.blocker_class, hold.message, hold.hint))
        elif decision.action is PodAction.EVICT and (
            refusal := api_responses.predict_refusal(pod, _budgets(pod, inputs))
        ):
            merged = settings.with_rule(decision.rule)
            reason = ineligible_reason(pod, decision, merged, inputs, forecasts.get(pod.uid))
            if refusal.blocker_class is not BlockerClass.SEVERAL_BUDGETS and not reason:
                if not (cause := capacity.blocked_by_pods_reason(forecasts.get(pod.uid))):
                    replaced_first.append(pod.key)
                    continue
                # A replacement would have no place, so the pod is evicted plainly: the budget holds it.
                refusal = replace(
                    refusal,
                    message=messages.with_refusal(refusal.message, messages.not_replaced_first(cause)),
                    hint=failures.hint(ReplacementFailure.BLOCKED_BY_PODS),
                )
            refusal = with_eligibility(refusal, pod, reason, decisions.replacement_mode(pod, merged))
            if refusal.blocker_class:
                blockers.append(ExpectedBlocker(pod.key, refusal.blocker_class, refusal.message, refusal.hint))
    return blockers, replaced_first


def _budgets(pod: Pod, inputs: PreviewInput) -> tuple[DisruptionBudget, ...]:
    return budgets_for(pod, inputs.budgets.get(pod.namespace, ()))


def _workload(pod: Pod, inputs: PreviewInput) -> Workload | None:
    owner = inputs.replica_sets.get(pod.owner.uid) if pod.owner else None
    deployment = inputs.deployments.get(owner.deployment_uid) if owner else None
    return Workload(deployment, (owner,), (pod,)) if owner and deployment else None


def ineligible_reason(
    pod: Pod, decision: PodDecision, settings: DrainSettings, inputs: PreviewInput, forecast: Forecast | None
) -> str:
    """Return why the pod is not replaced first; empty if it is. `settings`: with the rule of the pod."""
    has_single_node_volume = inputs.volumes.has_single_node_volume(pod)
    replacement_input = decisions.ReplacementInput(
        settings,
        inputs.now,
        _budgets(pod, inputs),
        has_single_node_volume,
        is_bound_to_node=decision.is_bound_to_node,
        is_colocated=capacity.is_colocated(forecast),
    )
    return decisions.ineligible_reason(pod, _workload(pod, inputs), replacement_input)


def _is_single_replica(pod: Pod, inputs: PreviewInput) -> bool:
    workload = _workload(pod, inputs)
    return workload is not None and workload.replicas == 1
