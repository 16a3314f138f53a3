"""What would become of the pods of a node if it were drained now; nothing is written, and nothing kept.

It promises nothing that the drain itself would not find: verdicts, budgets and places are judged by the same rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random

from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import DrainSettings
from rescheduler.core.drain import eta
from rescheduler.core.eviction import api_responses
from rescheduler.core.eviction.pod_actions import (
    EvictionContext,
    PodAction,
    PodDecision,
    decide_action,
    needs_placement,
)
from rescheduler.core.model.disruption_budgets import DisruptionBudget, budgets_for
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volumes import NodeVolumes
from rescheduler.core.model.workloads import Deployment, ReplicaSet, Workload
from rescheduler.core.placement.planner import Fit, Forecast, plan
from rescheduler.core.placement.pod_requirements import PodRequirements
from rescheduler.core.placement.problem import PlacementInput
from rescheduler.core.replacement import decisions


class Drainable(StrEnum):
    """Whether a node can be drained now."""

    YES = "Yes"
    UNSURE = "Unsure"  # of some pods only the scheduler can say whether they find a place
    NO = "No"


@dataclass(frozen=True, slots=True)
class ExpectedBlocker:
    """A pod that a drain would be held up by.

    Attributes:
        message, hint: why, and what would help.
    """

    pod: str
    blocker_class: BlockerClass
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class DrainPreview:
    """What would become of one node's pods.

    Attributes:
        fits: how many find a place for sure.
        stay: how many are no part of a drain: DaemonSets' and mirror pods, or a rule skips them.
        misfits: those that do not fit, or of which only the scheduler can say, with the forecast.
        singles: pods that are their Deployment's only one: evicted plainly, it is away for a while.
        first: pods whose budget lets none go, and that go once their replacement is Ready.
        takes: how long a drain takes at least.
    """

    node: str
    placed: int
    staying: int
    unplaced: tuple[tuple[str, Forecast], ...] = ()
    blockers: tuple[ExpectedBlocker, ...] = ()
    single_replica_pods: tuple[str, ...] = ()
    replaced_first: tuple[str, ...] = ()
    min_duration: timedelta = timedelta()

    @property
    def drainable(self) -> Drainable:
        """Whether the node can be drained."""
        if self.blockers or any(forecast.fit is Fit.DOES_NOT_FIT for _, forecast in self.unplaced):
            return Drainable.NO
        return Drainable.UNSURE if self.unplaced else Drainable.YES


@dataclass(frozen=True, slots=True)
class PreviewInput:
    """What outlooks are made from, as read at one moment.

    Attributes:
        ground: its census knows the pods of `tenants` one by one.
        tenants: pods of the nodes that are asked about or drained now, by node.
        draining: nodes that are being drained now, and how: they take no pods, and theirs need a place too.
        replica_sets: by uid; `deployments`: by uid.
        daemon_sets: uids of those that exist, by namespace.
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


PodWithDecision = tuple[Pod, PodDecision]


def preview_node(node: Node, settings: DrainSettings, inputs: PreviewInput) -> DrainPreview:
    """What a drain of this node, with these settings, would come to."""
    judged = _pod_decisions(node, settings, inputs)
    homeless = {pod.uid for pod, verdict in judged if needs_placement(pod, verdict)}
    residents = [each for each in inputs.placement_input.pod_snapshot.pods_by_node[node.name] if each.uid in homeless]
    forecasts = plan(residents, _placement_input(node, inputs), Random(0)) if residents else []  # noqa: S311 - no secret
    rows = sorted((each.key, forecast) for each, forecast in zip(residents, forecasts, strict=True))
    obstacles, first = _expected_blockers(judged, settings, inputs)
    over = {pod.uid: found[0] for pod, _ in judged if (found := _budgets(pod, inputs))}
    moving = [(pod, verdict) for pod, verdict in judged if verdict.action is not PodAction.SKIP]
    lines = eta.EvictionRates().group_pods(
        moving, over, timedelta(), grace_period_seconds=settings.grace_period_seconds
    )
    return DrainPreview(
        node.name,
        placed=sum(forecast.fit is Fit.FITS for _, forecast in rows),
        staying=len(judged) - len(moving),
        unplaced=tuple((key, forecast) for key, forecast in rows if forecast.fit is not Fit.FITS),
        blockers=tuple(obstacles),
        single_replica_pods=tuple(sorted(pod.key for pod, _ in moving if _is_single_replica(pod, inputs))),
        replaced_first=tuple(first),
        min_duration=eta.min_duration(lines, settings.max_evictions_per_second),
    )


def _pod_decisions(node: Node, settings: DrainSettings, inputs: PreviewInput) -> list[PodWithDecision]:
    seen = EvictionContext(
        inputs.now,
        node_unreachable=node.ready_status == CONDITION_UNKNOWN,
        namespace_labels=inputs.placement_input.namespace_labels,
        daemon_set_uids=inputs.daemon_sets,
        volumes=inputs.volumes,
    )
    return [(pod, decide_action(pod, settings, seen)) for pod in inputs.pods_by_node.get(node.name, ())]


def _placement_input(node: Node, inputs: PreviewInput) -> PlacementInput:
    """The ground with what other drains take: their nodes, and places for their pods."""
    others = [name for name in inputs.draining if name != node.name]
    rivals: dict[PodRequirements, int] = dict(inputs.placement_input.pod_snapshot.pending)
    for name in others:
        if other := inputs.placement_input.nodes.get(name):
            moving = {
                pod.uid
                for pod, verdict in _pod_decisions(other, inputs.draining[name], inputs)
                if needs_placement(pod, verdict)
            }
            for resident in inputs.placement_input.pod_snapshot.pods_by_node[name]:
                if resident.uid in moving:
                    rivals[resident.requirements] = rivals.get(resident.requirements, 0) + 1
    return replace(inputs.placement_input, excluded_nodes={*others, node.name}, competing_pods=rivals)


# -- what holds a drain up --------------------------------------------------------------------------------------------


def _expected_blockers(
    pod_decisions: Iterable[PodWithDecision], settings: DrainSettings, inputs: PreviewInput
) -> tuple[list[ExpectedBlocker], list[str]]:
    """Obstacles by pod, and the pods that only go once their replacement is Ready."""
    found, first = [], []
    for pod, verdict in sorted(pod_decisions, key=lambda each: each[0].key):
        if verdict.blocker_class:
            found.append(ExpectedBlocker(pod.key, verdict.blocker_class, verdict.message, verdict.hint))
        elif verdict.action is PodAction.EVICT and (held := _budget_blocker(pod, _budgets(pod, inputs))):
            if held.blocker_class is not BlockerClass.SEVERAL_BUDGETS and _is_replaced_first(pod, settings, inputs):
                first.append(pod.key)
            else:
                found.append(held)
    return found, first


def _budgets(pod: Pod, inputs: PreviewInput) -> tuple[DisruptionBudget, ...]:
    return budgets_for(pod, inputs.budgets.get(pod.namespace, ()))


def _budget_blocker(pod: Pod, budgets: Sequence[DisruptionBudget]) -> ExpectedBlocker | None:
    """What its budgets say to an eviction now."""
    refused = api_responses.predict_refusal(pod, budgets)
    if refused is None or refused.blocker_class is None:
        return None
    return ExpectedBlocker(pod.key, refused.blocker_class, refused.message, refused.hint)


def _workload(pod: Pod, inputs: PreviewInput) -> Workload | None:
    owner = inputs.replica_sets.get(pod.owner.uid) if pod.owner else None
    deployment = inputs.deployments.get(owner.deployment_uid) if owner else None
    return Workload(deployment, (owner,), (pod,)) if owner and deployment else None


def _is_replaced_first(pod: Pod, settings: DrainSettings, inputs: PreviewInput) -> bool:
    exclusive = inputs.volumes.has_single_node_volume(pod)
    setting = decisions.ReplacementInput(settings, inputs.now, _budgets(pod, inputs), exclusive)
    return not decisions.ineligible_reason(pod, _workload(pod, inputs), setting)


def _is_single_replica(pod: Pod, inputs: PreviewInput) -> bool:
    workload = _workload(pod, inputs)
    return workload is not None and workload.replicas == 1
