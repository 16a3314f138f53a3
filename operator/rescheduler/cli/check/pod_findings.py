"""Findings about pods: budgets that allow no eviction, pods that would block a drain, and single replicas.

The same pure functions decide that decide in a drain and in a plan. Room on other nodes is not asked for: a plan is.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import DrainSettings
from rescheduler.cli.check import messages
from rescheduler.cli.check.findings import Finding, Level, Topic
from rescheduler.core.drain.pod_evaluation import with_eligibility
from rescheduler.core.drain.pod_summary import opted_out_pods
from rescheduler.core.eviction import api_responses
from rescheduler.core.eviction.pod_actions import EvictionContext, PodAction, PodDecision, decide_action
from rescheduler.core.model.disruption_budgets import DisruptionBudget, budgets_for
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volumes import NodeVolumes
from rescheduler.core.model.workloads import Deployment, Workload
from rescheduler.core.replacement import decisions

_LASTING_BUDGET_CLASSES = (BlockerClass.BUDGET_MISCONFIGURED, BlockerClass.SEVERAL_BUDGETS)
"""Refusals of a budget that end only if somebody changes the budget."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """Pods of a cluster, with everything that decisions about them need.

    Attributes:
        pods: all pods that have a node.
        nodes: by name.
        budgets: by namespace.
        deployments: by namespace and name.
        single_stateful_sets: UIDs of StatefulSets of one replica.
        workloads_with_node_name: kind, namespace and name of those whose template names a node.
        settings_for: the drain settings of a node.
    """

    now: datetime
    pods: Sequence[Pod] = ()
    nodes: Mapping[str, Node] = field(default_factory=dict)
    budgets: Mapping[str, Sequence[DisruptionBudget]] = field(default_factory=dict)
    deployments: Mapping[tuple[str, str], Deployment] = field(default_factory=dict)
    single_stateful_sets: frozenset[str] = frozenset()
    workloads_with_node_name: Sequence[str] = ()
    volumes: NodeVolumes = field(default_factory=NodeVolumes)
    namespace_labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    settings_for: Callable[[Node], DrainSettings] = lambda _: DrainSettings()


@dataclass(frozen=True, slots=True)
class LeavingPod:
    """A pod that a drain of its node would move.

    Attributes:
        settings: of the drain, with the rule of the pod.
        budgets: that cover the pod.
        deployment: None if no Deployment controls the pod.
        not_replaced_reason: of `decisions.ineligible_reason`; empty if the pod is replaced first.
    """

    pod: Pod
    decision: PodDecision
    settings: DrainSettings
    budgets: tuple[DisruptionBudget, ...]
    deployment: Deployment | None
    not_replaced_reason: str


def find_in_pods(facts: PodFacts) -> Iterator[Finding]:
    """Return the findings about budgets, pods and replicas."""
    leaving = list(_leaving_pods(facts))
    yield from _find_budgets(leaving)
    yield from _find_unused_budgets(facts)
    yield from _find_blockers(leaving)
    yield from _find_bound(leaving, facts)
    yield from _find_opted_out(leaving, facts)
    yield from _find_single_replicas(leaving, facts)


def _leaving_pods(facts: PodFacts) -> Iterator[LeavingPod]:
    contexts: dict[str, EvictionContext] = {}
    settings: dict[str, DrainSettings] = {}
    for pod in facts.pods:
        if not (node := facts.nodes.get(pod.node)):
            continue
        if node.name not in contexts:
            settings[node.name] = facts.settings_for(node)
            contexts[node.name] = EvictionContext(
                facts.now,
                node_unreachable=node.ready_status == CONDITION_UNKNOWN,
                namespace_labels=facts.namespace_labels,
                volumes=facts.volumes,
            )
        decision = decide_action(pod, settings[node.name], contexts[node.name])
        if decision.action is not PodAction.SKIP and not pod.finished:
            yield _leaving_pod(pod, decision, settings[node.name].with_rule(decision.rule), facts)


def _leaving_pod(pod: Pod, decision: PodDecision, settings: DrainSettings, facts: PodFacts) -> LeavingPod:
    budgets = budgets_for(pod, facts.budgets.get(pod.namespace, ()))
    deployment = facts.deployments.get((pod.namespace, _deployment_name(pod)))
    replacement_input = decisions.ReplacementInput(
        settings,
        facts.now,
        budgets,
        facts.volumes.has_single_node_volume(pod),
        is_bound_to_node=decision.is_bound_to_node,
    )
    workload = Workload(deployment, (), (pod,)) if deployment else None
    reason = decisions.ineligible_reason(pod, workload, replacement_input)
    return LeavingPod(pod, decision, settings, budgets, deployment, reason)


def _deployment_name(pod: Pod) -> str:
    """Return the name of the Deployment of a pod: the name of its ReplicaSet ends with the hash of the template."""
    if pod.owner is None or pod.owner.kind != "ReplicaSet" or not pod.pod_template_hash:
        return ""
    name, _, template_hash = pod.owner.name.rpartition("-")
    return name if template_hash == pod.pod_template_hash else ""


def _find_budgets(leaving: Iterable[LeavingPod]) -> Iterator[Finding]:
    """Return a finding for each class of refusal: its budgets, and the next step for the first one."""
    refusals: dict[BlockerClass, dict[str, tuple[str, str]]] = defaultdict(dict)
    replaced_first = []
    for row in leaving:
        refusal = api_responses.predict_refusal(row.pod, row.budgets)
        if row.decision.action is not PodAction.EVICT or not refusal:
            continue
        if not row.not_replaced_reason and refusal.blocker_class is not BlockerClass.SEVERAL_BUDGETS:
            replaced_first.append(row.pod.key)
            continue
        mode = decisions.replacement_mode(row.pod, row.settings)
        refusal = with_eligibility(refusal, row.pod, row.not_replaced_reason, mode)
        names = messages.budget_names(row.pod.namespace, [budget.name for budget in row.budgets])
        if refusal.blocker_class:
            refusals[refusal.blocker_class].setdefault(names, (refusal.message, refusal.hint))
    for blocker_class, by_budget in refusals.items():
        level = Level.PROBLEM if blocker_class in _LASTING_BUDGET_CLASSES else Level.WARNING
        (first, (_, hint)), *others = sorted(by_budget.items())
        yield Finding(
            level,
            Topic.BUDGETS,
            messages.budgets_refuse(blocker_class, len(by_budget)),
            messages.BUDGET_MEANINGS[level],
            messages.next_step_for(first, hint) if others else hint,
            [f"{names}: {message}" for names, (message, _) in sorted(by_budget.items())],
        )
    if replaced_first:
        state, meaning = messages.replaced_first(len(replaced_first)), messages.REPLACED_FIRST_MEANING
        yield Finding(Level.NOTE, Topic.BUDGETS, state, meaning, objects=sorted(replaced_first))
    if not refusals and not replaced_first:
        yield Finding(Level.OK, Topic.BUDGETS, messages.BUDGETS_ALLOW)


def _find_unused_budgets(facts: PodFacts) -> Iterator[Finding]:
    labels: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for pod in facts.pods:
        labels[pod.namespace].append(pod.labels)
    unused = [
        f"{budget.namespace}/{budget.name}"
        for budgets in facts.budgets.values()
        for budget in budgets
        if budget.selector is None or not any(map(budget.selector.matches, labels[budget.namespace]))
    ]
    if unused:
        state, meaning = messages.unused_budgets(len(unused)), messages.UNUSED_BUDGETS_MEANING
        yield Finding(Level.NOTE, Topic.BUDGETS, state, meaning, objects=sorted(unused))


def _find_blockers(leaving: Iterable[LeavingPod]) -> Iterator[Finding]:
    """Return a finding for each class of pods that a drain with these settings leaves as blockers."""
    by_class: dict[BlockerClass, list[LeavingPod]] = defaultdict(list)
    for row in leaving:
        if row.decision.blocker_class:
            by_class[row.decision.blocker_class].append(row)
    for blocker_class, rows in by_class.items():
        first, *others = sorted(rows, key=lambda row: row.pod.key)
        hint = first.decision.hint
        yield Finding(
            Level.PROBLEM,
            Topic.PODS,
            messages.blocked_pods(blocker_class, len(rows)),
            first.decision.message,
            messages.next_step_for(first.pod.key, hint) if others and hint else hint,
            sorted(messages.on_node(row.pod.key, row.pod.node) for row in rows),
        )
    if not by_class:
        yield Finding(Level.OK, Topic.PODS, messages.NO_BLOCKED_PODS)


def _find_bound(leaving: Iterable[LeavingPod], facts: PodFacts) -> Iterator[Finding]:
    """Return which pods are bound to their node, by their spec, their volumes, their data or their template."""
    if named := facts.workloads_with_node_name:
        state, meaning = messages.workloads_with_node_name(len(named)), messages.NODE_NAME_MEANING
        yield Finding(Level.WARNING, Topic.PODS, state, meaning, messages.NODE_NAME_NEXT_STEP, sorted(named))
    bound = [messages.on_node(row.pod.key, row.pod.node) for row in leaving if row.decision.waits_for_node]
    if bound:
        yield Finding(
            Level.NOTE, Topic.PODS, messages.bound_pods(len(bound)), messages.BOUND_MEANING, objects=sorted(bound)
        )

    data = [
        messages.on_node(row.pod.key, row.pod.node)
        for row in leaving
        if row.pod.has_host_data and not row.decision.waits_for_node
    ]
    if data:
        state, meaning = messages.host_data_pods(len(data)), messages.HOST_DATA_MEANING
        yield Finding(Level.NOTE, Topic.PODS, state, meaning, objects=sorted(data))


def _find_opted_out(leaving: Iterable[LeavingPod], facts: PodFacts) -> Iterator[Finding]:
    rows = opted_out_pods([(row.pod, row.decision) for row in leaving], facts.now)
    if rows:
        objects = [f"{row.namespace}/{row.pod}: {', '.join(row.annotations)}" for row in rows]
        state, meaning = messages.opted_out_pods(len(rows)), messages.OPTED_OUT_MEANING
        yield Finding(Level.NOTE, Topic.PODS, state, meaning, messages.OPTED_OUT_NEXT_STEP, sorted(objects))


def _find_single_replicas(leaving: Iterable[LeavingPod], facts: PodFacts) -> Iterator[Finding]:
    """Return which workloads of one replica are away during a drain, and which are replaced first."""
    replaced: list[str] = []
    by_reason: dict[str, list[str]] = defaultdict(list)
    for row in leaving:
        pod, owner = row.pod, row.pod.owner
        if row.deployment and row.deployment.replicas == 1:
            reason = row.not_replaced_reason
        elif owner and owner.kind == "StatefulSet" and owner.uid in facts.single_stateful_sets:
            reason = "StatefulSet"
        else:
            continue
        (by_reason[reason] if reason else replaced).append(pod.key)
    if by_reason:
        away = sorted(f"{key}: {messages.gap_reason(reason)}" for reason, keys in by_reason.items() for key in keys)
        state = messages.single_replicas_away(len(away))
        yield Finding(Level.WARNING, Topic.REPLICAS, state, messages.AWAY_MEANING, messages.AWAY_NEXT_STEP, away)
    if replaced:
        state, meaning = messages.single_replicas_replaced(len(replaced)), messages.REPLACED_SINGLE_MEANING
        yield Finding(Level.NOTE, Topic.REPLICAS, state, meaning, objects=sorted(replaced))
    if not by_reason and not replaced:
        yield Finding(Level.OK, Topic.REPLICAS, messages.NO_SINGLE_REPLICAS)
