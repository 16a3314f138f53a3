"""What a NamespacePool's status says: for people at a glance, and for machines by its conditions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rescheduler.api.conditions import Condition
from rescheduler.api.policies import Mode
from rescheduler.api.pools import NamespacePool, NamespacePoolStatus, PoolBlocker, Resources
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.quantities import CPU, MEMORY, PODS, format_quantity
from rescheduler.core.model.resource_requests import ResourceList
from rescheduler.core.pools import kubelet_labels, taint_safety
from rescheduler.core.pools.admission_policies import AdmissionState
from rescheduler.core.pools.membership import PoolConflict
from rescheduler.core.pools.misplaced_pods import MisplacementReport, PodTotals
from rescheduler.core.pools.node_loss import NodeLoss

_MAX_BLOCKERS = 50
_MAX_LISTED = 10
_MAX_REFUSED_WRITES = 3
_REPORTED_RESOURCES = (CPU, MEMORY, PODS)
_PENDING_REASONS = ("NotLooked", "NotCounted")
ConditionState = tuple[str, str, str]
"""Status, reason and message of a condition."""


@dataclass(frozen=True, slots=True)
class PoolStatusInput:
    """All that a report is made from.

    Attributes:
        nodes, namespaces: what the pool has; in mode Audit: what it would have.
        unmarked: how many of them do not carry its label yet.
        disputes: what another pool claims too, each with its kind.
        lost: who would lose their last place by the taint; None: it is not to be set, or not known yet.
        tainted: how many of the nodes carry the taint.
        sums: None before the first count.
        loss: what would become of its pods without its largest node; None: that has not been planned.
        refused: writes on its namespaces and nodes that are refused, with the cause.
    """

    pool: NamespacePool
    nodes: Sequence[Node]
    namespaces: Sequence[str]
    unlabelled_count: int
    conflicts: Sequence[tuple[str, PoolConflict]]
    admission: AdmissionState
    unschedulable_by_taint: Sequence[str] | None
    tainted_node_count: int
    totals: PodTotals | None
    misplaced: MisplacementReport
    now: datetime
    blockers: Sequence[PoolBlocker] = field(default_factory=tuple)
    node_loss: NodeLoss | None = None
    refused_writes: Sequence[str] = ()


def build(inputs: PoolStatusInput) -> NamespacePoolStatus:
    """The whole status, as it should be now."""
    name, sums, before = inputs.pool.name, inputs.totals, inputs.pool.status
    update: dict[str, object] = {
        "observed_generation": inputs.pool.generation,
        "nodes": len(inputs.nodes),
        "ready_nodes": sum(node.ready_status == "True" for node in inputs.nodes),
        "namespaces": len(inputs.namespaces),
        "allocatable": _resources(_total(node.allocatable for node in inputs.nodes)),
        "blockers": tuple(inputs.blockers)[:_MAX_BLOCKERS],
        "conditions": _conditions(inputs),
    }
    if sums is not None:
        update |= {
            "pods": sums.pods_by_pool[name],
            "pods_outside": inputs.misplaced.pods_outside[name],
            "pods_foreign": inputs.misplaced.pods_foreign[name],
            "requested": _resources(sums.requests_by_pool.get(name, {})),
        }
    return before.model_copy(update=update)


def _total(rows: Iterable[ResourceList]) -> Counter[str]:
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row)
    return total


def _resources(amounts: Mapping[str, int]) -> Resources:
    cpu, memory, pods = (format_quantity(kind, amounts.get(kind, 0)) for kind in _REPORTED_RESOURCES)
    return Resources(cpu=cpu, memory=memory, pods=pods)


def _conditions(inputs: PoolStatusInput) -> tuple[Condition, ...]:
    ours = {
        "Ready": _ready(inputs),
        "Conflict": _conflict(inputs),
        "Enforced": _enforced(inputs),
        "TaintHeldBack": _taint_held_back(inputs),
        "SurvivesNodeLoss": survives_node_loss(inputs),
        "NodeLabelsTrusted": _node_labels_trusted(inputs),
    }
    known = {c.type: c for c in inputs.pool.status.conditions}
    for type_, (state, reason, message) in ours.items():
        old = known.get(type_)
        if old and reason in _PENDING_REASONS:
            continue  # after a restart: what was said holds until there is something to say
        known[type_] = Condition(
            type=type_,
            status=state,
            reason=reason,
            message=message,
            observed_generation=inputs.pool.generation,
            last_transition_time=old.last_transition_time if old and old.status == state else inputs.now,
        )
    return tuple(known.values())


def _ready(inputs: PoolStatusInput) -> ConditionState:
    if inputs.pool.spec.mode is Mode.AUDIT:
        return "False", "Audit", "mode Audit: it claims nothing; the numbers are what it would have"
    if not inputs.nodes:
        return (
            "False",
            "NoNodes",
            "its nodeSelector selects no node that it could have: new pods of its namespaces wait",
        )
    if not any(node.ready_status == "True" and not node.unschedulable for node in inputs.nodes):
        return "False", "NoOpenNode", "none of its nodes is Ready and open: new pods of its namespaces wait"
    if inputs.unlabelled_count:
        named = "".join(f"; {words}" for words in inputs.refused_writes[:_MAX_REFUSED_WRITES])
        return "False", "Marking", f"{inputs.unlabelled_count} of its namespaces and nodes are not labelled yet{named}"
    return "True", "Mapped", "its namespaces and nodes are labelled"


def _conflict(inputs: PoolStatusInput) -> ConditionState:
    if not inputs.conflicts:
        return "False", "NoConflict", "no other pool claims its namespaces or nodes"
    words = [
        f"{kind} {dispute.name} is claimed by pool {dispute.other_pool} too, which is newer"
        if dispute.is_kept
        else f"{kind} {dispute.name} is kept by pool {dispute.other_pool}, which is older"
        for kind, dispute in inputs.conflicts[:_MAX_LISTED]
    ]
    more = len(inputs.conflicts) - _MAX_LISTED
    return "True", "ClaimedTwice", "; ".join(words) + (f"; and {more} more" if more > 0 else "")


def _enforced(inputs: PoolStatusInput) -> ConditionState:
    if inputs.pool.spec.mode is Mode.AUDIT:
        return "False", "Audit", "mode Audit: admission leaves its namespaces' pods alone"
    return inputs.admission.status, inputs.admission.reason, inputs.admission.message


def _taint_held_back(inputs: PoolStatusInput) -> ConditionState:
    if not inputs.pool.spec.exclusive:
        return "False", "NotExclusive", "it lets others onto its nodes"
    if not inputs.nodes:
        return "False", "NoNodes", "it has no node"
    if inputs.unschedulable_by_taint:
        who = taint_safety.listing(inputs.unschedulable_by_taint)
        return (
            "True",
            "LastPlace",
            f"not tainted, for they would lose their last place or could not start there again: {who}",
        )
    if inputs.pool.spec.mode is Mode.AUDIT:
        return "False", "Audit", "nobody would lose their last place by the taint"
    if inputs.admission.status == "Unknown":
        return "Unknown", inputs.admission.reason, inputs.admission.message
    if not inputs.admission.is_enforced:
        return "True", "NotEnforced", "not tainted: without admission its own pods would not tolerate the taint"
    if inputs.tainted_node_count < len(inputs.nodes):
        return "Unknown", "Looking", "it is being looked at who would lose their last place by the taint"
    return "False", "Tainted", "its nodes keep others off"


def _node_labels_trusted(inputs: PoolStatusInput) -> ConditionState:
    """Whether a node joins the pool only if somebody beside its own kubelet labels it."""
    keys = sorted(kubelet_labels.required_keys(inputs.pool.spec.node_selector))
    guarded = [key for key in keys if not kubelet_labels.kubelet_may_set(key)]
    if guarded:
        return "True", "Restricted", f"the nodeSelector requires {guarded[0]}, which no kubelet may set on its own Node"
    named = ", ".join(keys[:_MAX_LISTED]) or "none"
    message = (
        f"a kubelet may set every label that the nodeSelector requires ({named}) on its own Node, so whoever takes a node "
        "over can bring it into the pool, and gets the pool's next pods: require a label under node-restriction.kubernetes.io/"
    )
    return "False", "SetByKubelet", message


def survives_node_loss(inputs: PoolStatusInput) -> ConditionState:
    """Whether the rest would hold the pods if the largest node went: by their sums, then by a plan for each."""
    state, reason, message = _survives_by_totals(inputs)
    loss = inputs.node_loss
    if state != "True" or loss is None or loss.node not in {node.name for node in inputs.nodes}:
        return state, reason, message
    without = f"without node {loss.node}, the largest,"
    if loss.unplaceable_total:
        return (
            "False",
            "DoesNotFit",
            f"{without} {loss.unplaceable_total} of {loss.pods_total} pods would find no place: {_listing(loss.unplaceable)}",
        )
    if loss.uncertain_total:
        return (
            "Unknown",
            "SchedulerOnly",
            f"{without} only the scheduler can say for {loss.uncertain_total} of {loss.pods_total} pods: {_listing(loss.uncertain)}",
        )
    return "True", "Fits", f"{without} its {loss.pods_total} pods would find a place on the rest"


def _listing(pods: Sequence[str]) -> str:
    return "; ".join(pods)


def _survives_by_totals(inputs: PoolStatusInput) -> ConditionState:
    """Whether the rest would have what the pods ask for if any one node went."""
    if inputs.totals is None:
        return "Unknown", "NotCounted", "the pods are not counted yet"
    if not inputs.nodes:
        return "False", "NoNodes", "it has no node"
    fixed, nothing = inputs.totals.exempt_requests_by_node, Counter[str]()
    staying = _total(fixed.get(node.name, nothing) for node in inputs.nodes)
    asked = inputs.totals.requests_by_pool.get(inputs.pool.name, nothing)
    open_ = [node for node in inputs.nodes if node.ready_status == "True" and not node.unschedulable]
    offered = _total(node.allocatable for node in open_)
    overhead = _total(fixed.get(node.name, nothing) for node in open_)

    def room(kind: str, gone: Node | None) -> int:
        """What is left of it without that node."""
        less = gone.allocatable.get(kind, 0) - fixed.get(gone.name, nothing)[kind] if gone else 0
        return offered[kind] - overhead[kind] - less - (asked[kind] - staying[kind])

    for kind in _REPORTED_RESOURCES:
        largest = max(open_, key=lambda node: (room(kind, None) - room(kind, node), node.name), default=None)
        left = room(kind, largest)
        if left < 0:
            gone = f"without node {largest.name}" if largest else "with no node open"
            return (
                "False",
                "NoRoom",
                f"{gone} the rest would lack {kind} {format_quantity(kind, -left)} for the pods of the pool",
            )
    return "True", "Fits", "without any one of its nodes the rest has room for the pods, by the sums of their requests"


def urgent_part(status_: NamespacePoolStatus) -> tuple[object, ...]:
    """What a person waits for: a change of it is written at once."""
    conditions = tuple((c.type, c.status, c.reason) for c in status_.conditions)
    blockers = tuple((b.namespace, b.pod, b.class_) for b in status_.blockers)
    return status_.observed_generation, status_.nodes, status_.namespaces, status_.pods_outside, conditions, blockers
