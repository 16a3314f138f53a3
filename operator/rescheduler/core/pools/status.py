"""Build the status of a NamespacePool: counts, blockers and conditions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rescheduler.api import conditions, names
from rescheduler.api.conditions import Condition, ConditionState
from rescheduler.api.policies import Mode
from rescheduler.api.pools import NamespacePool, NamespacePoolStatus, PoolBlocker, Resources
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.quantities import CPU, MEMORY, PODS, format_quantity
from rescheduler.core.model.resource_requests import ResourceList
from rescheduler.core.pools import kubelet_labels, messages
from rescheduler.core.pools.admission_policies import AdmissionState
from rescheduler.core.pools.membership import PoolConflict
from rescheduler.core.pools.misplaced_pods import MisplacementReport, PodTotals
from rescheduler.core.pools.node_loss import NodeLoss

_MAX_BLOCKERS = 50
_MAX_LISTED = 10
_MAX_REFUSED_WRITES = 3
_REPORTED_RESOURCES = (CPU, MEMORY, PODS)
_PENDING_REASONS = ("NotLooked", "NotCounted")
_COUNTED_AT_INTERVAL = timedelta(minutes=1)
"""How old `countedAt` may become without another change: pools are counted far more often than a write is worth."""


@dataclass(frozen=True, slots=True)
class PoolStatusInput:
    """The facts from which a status is built.

    Attributes:
        nodes: the nodes of the pool; in mode Audit those that it would have.
        namespaces: the names of its namespaces; in mode Audit those that it would have.
        unlabelled_count: the number of its namespaces and nodes without its label.
        conflicts: members that another pool claims too, each with its kind, `namespace` or `node`.
        admission: the state of the admission policies.
        unschedulable_by_taint: pods and DaemonSets that would lose their last place by the taint; None: no taint is
            planned, or the check has not run.
        tainted_node_count: the number of its nodes with the taint.
        totals: the last count of all pods; None before the first count. A new pool may be absent from the last count.
        misplaced: the misplaced pods.
        blockers: pods that cannot be moved into the pool.
        node_loss: the simulated loss of its largest node; None before the first simulation.
        refused_writes: writes on its namespaces and nodes that the API server refuses, each with the cause.
        undone_writes: its namespaces and nodes, such as `node n1`, whose label or taint another client keeps changing.
        outdated_crds: which CRDs are older than the operator; empty if none is, None while that is not known.
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
    undone_writes: Sequence[str] = ()
    outdated_crds: str | None = None


def build(inputs: PoolStatusInput) -> NamespacePoolStatus:
    """Return the whole status as it should be now."""
    name, totals, before = inputs.pool.name, _totals(inputs), inputs.pool.status
    update: dict[str, object] = {
        "observed_generation": inputs.pool.generation,
        "nodes": len(inputs.nodes),
        "ready_nodes": sum(node.ready_status == "True" for node in inputs.nodes),
        "namespaces": len(inputs.namespaces),
        "allocatable": _resources(_total(node.allocatable for node in inputs.nodes)),
        "blockers": tuple(inputs.blockers)[:_MAX_BLOCKERS],
        "conditions": _conditions(inputs),
    }
    if totals is not None:
        update |= {
            "pods": totals.pods_by_pool[name],
            "pods_unschedulable": totals.unschedulable_by_pool[name],
            "pods_outside": inputs.misplaced.pods_outside[name],
            "pods_foreign": inputs.misplaced.pods_foreign[name],
            "requested": _resources(totals.requests_by_pool.get(name, {})),
        }
    status_ = before.model_copy(update=update)
    if totals is None or not _needs_new_count_time(before, status_, totals.counted_at):
        return status_
    return status_.model_copy(update={"counted_at": totals.counted_at})


def _totals(inputs: PoolStatusInput) -> PodTotals | None:
    """Return the last count if it has this pool; None otherwise: a count without the pool would show 0 pods."""
    return inputs.totals if inputs.totals and inputs.pool.uid in inputs.totals.pool_uids else None


def _needs_new_count_time(before: NamespacePoolStatus, after: NamespacePoolStatus, counted_at: datetime) -> bool:
    return after != before or before.counted_at is None or counted_at - before.counted_at >= _COUNTED_AT_INTERVAL


def _total(rows: Iterable[ResourceList]) -> Counter[str]:
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row)
    return total


def _resources(amounts: Mapping[str, int]) -> Resources:
    cpu, memory, pods = (format_quantity(kind, amounts.get(kind, 0)) for kind in _REPORTED_RESOURCES)
    return Resources(cpu=cpu, memory=memory, pods=pods)


def _conditions(inputs: PoolStatusInput) -> tuple[Condition, ...]:
    states = {
        "Ready": _ready(inputs),
        "Conflict": _conflict(inputs),
        "Enforced": _enforced(inputs),
        "TaintHeldBack": _taint_held_back(inputs),
        "SurvivesNodeLoss": survives_node_loss(inputs),
        "NodeLabelsTrusted": _node_labels_trusted(inputs),
    }
    before = inputs.pool.status.conditions
    known_types = {condition.type for condition in before}
    # A pending state would overwrite a known condition with Unknown after every restart.
    changes = {
        type_: state for type_, state in states.items() if type_ not in known_types or state[1] not in _PENDING_REASONS
    }
    generation, now = inputs.pool.generation, inputs.now
    merged = conditions.merge(before, changes, generation, now)
    return conditions.with_crds_outdated(merged, inputs.outdated_crds, generation, now)


def _ready(inputs: PoolStatusInput) -> ConditionState:
    if inputs.pool.spec.mode is Mode.AUDIT:
        return "False", "Audit", messages.AUDIT
    state, reason, message = _nodes_ready(inputs)
    totals = _totals(inputs)
    if totals and (count := totals.unschedulable_by_pool[inputs.pool.name]):
        label = f"{names.NODE_POOL}={inputs.pool.name}"
        message = f"{message}. {messages.unschedulable(count, label, inputs.pool.spec.node_selector.query())}"
    return state, reason, message


def _nodes_ready(inputs: PoolStatusInput) -> ConditionState:
    """Return the state of `Ready` of a pool in mode Enforce, without its pods."""
    if not inputs.nodes:
        return "False", "NoNodes", messages.NO_NODES_FOR_PODS
    if not any(node.ready_status == "True" and not node.unschedulable for node in inputs.nodes):
        return "False", "NoOpenNode", messages.NO_OPEN_NODE
    if inputs.undone_writes:
        # The label comes and goes: without this reason, `Ready` would change with every write.
        return "False", "Overwritten", messages.overwritten(inputs.pool.name, inputs.undone_writes)
    if inputs.unlabelled_count:
        refused_writes = inputs.refused_writes[:_MAX_REFUSED_WRITES]
        return "False", "Marking", messages.not_labelled(inputs.unlabelled_count, refused_writes)
    return "True", "Mapped", messages.LABELLED


def _conflict(inputs: PoolStatusInput) -> ConditionState:
    if not inputs.conflicts:
        return "False", "NoConflict", messages.NO_CONFLICT
    listed = [
        messages.conflict(kind, conflict.name, conflict.other_pool, is_kept=conflict.is_kept)
        for kind, conflict in inputs.conflicts[:_MAX_LISTED]
    ]
    more = len(inputs.conflicts) - _MAX_LISTED
    return "True", "ClaimedTwice", "; ".join(listed) + (f"; and {more} more" if more > 0 else "")


def _enforced(inputs: PoolStatusInput) -> ConditionState:
    if inputs.pool.spec.mode is Mode.AUDIT:
        return "False", "Audit", messages.AUDIT_ADMISSION
    return inputs.admission.status, inputs.admission.reason, inputs.admission.message


def _taint_held_back(inputs: PoolStatusInput) -> ConditionState:
    if not inputs.pool.spec.exclusive:
        return "False", "NotExclusive", messages.NOT_EXCLUSIVE
    if not inputs.nodes:
        return "False", "NoNodes", messages.NO_NODES
    if inputs.unschedulable_by_taint:
        return "True", "LastPlace", messages.taint_held_back(inputs.unschedulable_by_taint)
    if inputs.pool.spec.mode is Mode.AUDIT:
        return "False", "Audit", messages.NO_LAST_PLACE
    if inputs.admission.status == "Unknown":
        return "Unknown", inputs.admission.reason, inputs.admission.message
    if not inputs.admission.is_enforced:
        return "True", "NotEnforced", messages.TAINT_NEEDS_ADMISSION
    if inputs.tainted_node_count < len(inputs.nodes):
        return "Unknown", "Looking", messages.TAINT_CHECK_PENDING
    return "False", "Tainted", messages.TAINTED


def _node_labels_trusted(inputs: PoolStatusInput) -> ConditionState:
    """Whether a node needs a label that its own kubelet may not set to join the pool."""
    keys = sorted(kubelet_labels.required_keys(inputs.pool.spec.node_selector))
    restricted = [key for key in keys if not kubelet_labels.kubelet_may_set(key)]
    if restricted:
        return "True", "Restricted", messages.nodes_restricted(restricted[0])
    return "False", "SetByKubelet", messages.nodes_set_by_kubelet(keys[:_MAX_LISTED])


def survives_node_loss(inputs: PoolStatusInput) -> ConditionState:
    """Whether the other nodes hold the pods if the largest node is lost: by sums, then by a plan for each pod."""
    state, reason, message = _survives_by_totals(inputs)
    loss = inputs.node_loss
    if state != "True" or not loss or not loss.pods_total or loss.node not in {node.name for node in inputs.nodes}:
        return state, reason, message
    if loss.unplaceable_total:
        return "False", "DoesNotFit", messages.loss_does_not_fit(loss)
    if loss.uncertain_total:
        return "Unknown", "SchedulerOnly", messages.loss_is_uncertain(loss)
    return "True", "Fits", messages.loss_fits(loss)


def _survives_by_totals(inputs: PoolStatusInput) -> ConditionState:
    """Whether the other nodes have the sum of the pods' requests if any one node is lost."""
    totals = _totals(inputs)
    if totals is None:
        return "Unknown", "NotCounted", messages.PODS_NOT_COUNTED
    if not inputs.nodes:
        return "False", "NoNodes", messages.NO_NODES
    if not totals.pods_by_pool[inputs.pool.name]:
        return "Unknown", "NoPods", messages.NO_PODS
    exempt, nothing = totals.exempt_requests_by_node, Counter[str]()
    exempt_total = _total(exempt.get(node.name, nothing) for node in inputs.nodes)
    requested = totals.requests_by_pool.get(inputs.pool.name, nothing)
    open_nodes = [node for node in inputs.nodes if node.ready_status == "True" and not node.unschedulable]
    allocatable = _total(node.allocatable for node in open_nodes)
    overhead = _total(exempt.get(node.name, nothing) for node in open_nodes)

    def room(kind: str, lost: Node | None) -> int:
        """Return the free amount of a resource without the lost node; negative if it is missing."""
        lost_amount = lost.allocatable.get(kind, 0) - exempt.get(lost.name, nothing)[kind] if lost else 0
        return allocatable[kind] - overhead[kind] - lost_amount - (requested[kind] - exempt_total[kind])

    for kind in _REPORTED_RESOURCES:
        largest = max(open_nodes, key=lambda node: (room(kind, None) - room(kind, node), node.name), default=None)
        free = room(kind, largest)
        if free < 0:
            return "False", "NoRoom", messages.no_room_by_totals(largest.name if largest else None, kind, -free)
    return "True", "Fits", messages.ROOM_BY_TOTALS


def urgent_part(status_: NamespacePoolStatus) -> tuple[object, ...]:
    """Return the part of the status whose change is written at once."""
    condition_states = tuple((c.type, c.status, c.reason) for c in status_.conditions)
    blockers = tuple((b.namespace, b.pod, b.class_) for b in status_.blockers)
    return (
        status_.observed_generation,
        status_.nodes,
        status_.namespaces,
        status_.pods_outside,
        condition_states,
        blockers,
    )
