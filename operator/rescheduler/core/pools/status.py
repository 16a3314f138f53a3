"""What a NamespacePool's status says: for people at a glance, and for machines by its conditions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rescheduler.api.conditions import Condition
from rescheduler.api.policies import Mode
from rescheduler.api.pools import NamespacePool, NamespacePoolStatus, PoolBlocker, Resources
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.quantities import CPU, MEMORY, PODS, said
from rescheduler.core.model.resource_requests import Amounts
from rescheduler.core.pools import kubelet_labels, taint_safety
from rescheduler.core.pools.admission_policies import Enforcement
from rescheduler.core.pools.membership import Dispute
from rescheduler.core.pools.misplaced_pods import Finds, Sums
from rescheduler.core.pools.node_loss import Loss

_MOST_BLOCKERS = 50
_MOST_NAMED = 10
_MOST_REFUSED = 3
_COUNTED = (CPU, MEMORY, PODS)
_NOT_YET = ("NotLooked", "NotCounted")
Said = tuple[str, str, str]
"""Status, reason and message of a condition."""


@dataclass(frozen=True, slots=True)
class Scene:
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
    unmarked: int
    disputes: Sequence[tuple[str, Dispute]]
    enforcement: Enforcement
    lost: Sequence[str] | None
    tainted: int
    sums: Sums | None
    finds: Finds
    now: datetime
    blockers: Sequence[PoolBlocker] = field(default_factory=tuple)
    loss: Loss | None = None
    refused: Sequence[str] = ()


def status(scene: Scene) -> NamespacePoolStatus:
    """The whole status, as it should be now."""
    name, sums, before = scene.pool.name, scene.sums, scene.pool.status
    update: dict[str, object] = {
        "observed_generation": scene.pool.generation,
        "nodes": len(scene.nodes),
        "ready_nodes": sum(node.ready == "True" for node in scene.nodes),
        "namespaces": len(scene.namespaces),
        "allocatable": _resources(_total(node.allocatable for node in scene.nodes)),
        "blockers": tuple(scene.blockers)[:_MOST_BLOCKERS],
        "conditions": _conditions(scene),
    }
    if sums is not None:
        update |= {
            "pods": sums.pods[name],
            "pods_outside": scene.finds.outside[name],
            "pods_foreign": scene.finds.foreign[name],
            "requested": _resources(sums.requested.get(name, {})),
        }
    return before.model_copy(update=update)


def _total(rows: Iterable[Amounts]) -> Counter[str]:
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row)
    return total


def _resources(amounts: Mapping[str, int]) -> Resources:
    cpu, memory, pods = (said(kind, amounts.get(kind, 0)) for kind in _COUNTED)
    return Resources(cpu=cpu, memory=memory, pods=pods)


def _conditions(scene: Scene) -> tuple[Condition, ...]:
    ours = {
        "Ready": _ready(scene),
        "Conflict": _conflict(scene),
        "Enforced": _enforced(scene),
        "TaintHeldBack": _held_back(scene),
        "SurvivesNodeLoss": survives(scene),
        "NodeLabelsTrusted": _trusted(scene),
    }
    known = {c.type: c for c in scene.pool.status.conditions}
    for type_, (state, reason, message) in ours.items():
        old = known.get(type_)
        if old and reason in _NOT_YET:
            continue  # after a restart: what was said holds until there is something to say
        known[type_] = Condition(
            type=type_,
            status=state,
            reason=reason,
            message=message,
            observed_generation=scene.pool.generation,
            last_transition_time=old.last_transition_time if old and old.status == state else scene.now,
        )
    return tuple(known.values())


def _ready(scene: Scene) -> Said:
    if scene.pool.spec.mode is Mode.AUDIT:
        return "False", "Audit", "mode Audit: it claims nothing; the numbers are what it would have"
    if not scene.nodes:
        return (
            "False",
            "NoNodes",
            "its nodeSelector selects no node that it could have: new pods of its namespaces wait",
        )
    if not any(node.ready == "True" and not node.unschedulable for node in scene.nodes):
        return "False", "NoOpenNode", "none of its nodes is Ready and open: new pods of its namespaces wait"
    if scene.unmarked:
        named = "".join(f"; {words}" for words in scene.refused[:_MOST_REFUSED])
        return "False", "Marking", f"{scene.unmarked} of its namespaces and nodes are not labelled yet{named}"
    return "True", "Mapped", "its namespaces and nodes are labelled"


def _conflict(scene: Scene) -> Said:
    if not scene.disputes:
        return "False", "NoConflict", "no other pool claims its namespaces or nodes"
    words = [
        f"{kind} {dispute.name} is claimed by pool {dispute.other} too, which is newer"
        if dispute.keeps
        else f"{kind} {dispute.name} is kept by pool {dispute.other}, which is older"
        for kind, dispute in scene.disputes[:_MOST_NAMED]
    ]
    more = len(scene.disputes) - _MOST_NAMED
    return "True", "ClaimedTwice", "; ".join(words) + (f"; and {more} more" if more > 0 else "")


def _enforced(scene: Scene) -> Said:
    if scene.pool.spec.mode is Mode.AUDIT:
        return "False", "Audit", "mode Audit: admission leaves its namespaces' pods alone"
    return scene.enforcement.status, scene.enforcement.reason, scene.enforcement.message


def _held_back(scene: Scene) -> Said:
    if not scene.pool.spec.exclusive:
        return "False", "NotExclusive", "it lets others onto its nodes"
    if not scene.nodes:
        return "False", "NoNodes", "it has no node"
    if scene.lost:
        who = taint_safety.summary(scene.lost)
        return (
            "True",
            "LastPlace",
            f"not tainted, for they would lose their last place or could not start there again: {who}",
        )
    if scene.pool.spec.mode is Mode.AUDIT:
        return "False", "Audit", "nobody would lose their last place by the taint"
    if scene.enforcement.status == "Unknown":
        return "Unknown", scene.enforcement.reason, scene.enforcement.message
    if not scene.enforcement.holds:
        return "True", "NotEnforced", "not tainted: without admission its own pods would not tolerate the taint"
    if scene.tainted < len(scene.nodes):
        return "Unknown", "Looking", "it is being looked at who would lose their last place by the taint"
    return "False", "Tainted", "its nodes keep others off"


def _trusted(scene: Scene) -> Said:
    """Whether a node joins the pool only if somebody beside its own kubelet labels it."""
    keys = sorted(kubelet_labels.required(scene.pool.spec.node_selector))
    guarded = [key for key in keys if not kubelet_labels.kubelet_may_set(key)]
    if guarded:
        return "True", "Restricted", f"the nodeSelector requires {guarded[0]}, which no kubelet may set on its own Node"
    named = ", ".join(keys[:_MOST_NAMED]) or "none"
    message = (
        f"a kubelet may set every label that the nodeSelector requires ({named}) on its own Node, so whoever takes a node "
        "over can bring it into the pool, and gets the pool's next pods: require a label under node-restriction.kubernetes.io/"
    )
    return "False", "SetByKubelet", message


def survives(scene: Scene) -> Said:
    """Whether the rest would hold the pods if the largest node went: by their sums, then by a plan for each."""
    state, reason, message = _by_sums(scene)
    loss = scene.loss
    if state != "True" or loss is None or loss.node not in {node.name for node in scene.nodes}:
        return state, reason, message
    without = f"without node {loss.node}, the largest,"
    if loss.homeless_total:
        return (
            "False",
            "DoesNotFit",
            f"{without} {loss.homeless_total} of {loss.pods} pods would find no place: {_named(loss.homeless)}",
        )
    if loss.unsure_total:
        return (
            "Unknown",
            "SchedulerOnly",
            f"{without} only the scheduler can say for {loss.unsure_total} of {loss.pods} pods: {_named(loss.unsure)}",
        )
    return "True", "Fits", f"{without} its {loss.pods} pods would find a place on the rest"


def _named(pods: Sequence[str]) -> str:
    return "; ".join(pods)


def _by_sums(scene: Scene) -> Said:
    """Whether the rest would have what the pods ask for if any one node went."""
    if scene.sums is None:
        return "Unknown", "NotCounted", "the pods are not counted yet"
    if not scene.nodes:
        return "False", "NoNodes", "it has no node"
    fixed, nothing = scene.sums.fixed, Counter[str]()
    staying = _total(fixed.get(node.name, nothing) for node in scene.nodes)
    asked = scene.sums.requested.get(scene.pool.name, nothing)
    open_ = [node for node in scene.nodes if node.ready == "True" and not node.unschedulable]
    offered = _total(node.allocatable for node in open_)
    overhead = _total(fixed.get(node.name, nothing) for node in open_)

    def room(kind: str, gone: Node | None) -> int:
        """What is left of it without that node."""
        less = gone.allocatable.get(kind, 0) - fixed.get(gone.name, nothing)[kind] if gone else 0
        return offered[kind] - overhead[kind] - less - (asked[kind] - staying[kind])

    for kind in _COUNTED:
        largest = max(open_, key=lambda node: (room(kind, None) - room(kind, node), node.name), default=None)
        left = room(kind, largest)
        if left < 0:
            gone = f"without node {largest.name}" if largest else "with no node open"
            return "False", "NoRoom", f"{gone} the rest would lack {kind} {said(kind, -left)} for the pods of the pool"
    return "True", "Fits", "without any one of its nodes the rest has room for the pods, by the sums of their requests"


def gist(status_: NamespacePoolStatus) -> tuple[object, ...]:
    """What a person waits for: a change of it is written at once."""
    conditions = tuple((c.type, c.status, c.reason) for c in status_.conditions)
    blockers = tuple((b.namespace, b.pod, b.class_) for b in status_.blockers)
    return status_.observed_generation, status_.nodes, status_.namespaces, status_.pods_outside, conditions, blockers
