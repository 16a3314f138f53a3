"""Texts about NamespacePools for users: messages of conditions and blockers, wait reasons, and one Event.

docs/reference/conditions.md, namespacepool.md and events.md list them.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rescheduler.api import names
from rescheduler.api.scalars import NumberOrPercent, truncate
from rescheduler.core.model.messages import listing
from rescheduler.core.model.quantities import format_quantity
from rescheduler.core.model.resource_requests import ResourceList
from rescheduler.core.pools.node_loss import NodeLoss

NOT_CHECKED = "admission has not been checked yet"
ENFORCED = "admission puts new pods of the pool's namespaces onto the pool's nodes"
AUDIT_ADMISSION = "the pool is in mode Audit: admission does not change the pods of its namespaces"
AUDIT = "the pool is in mode Audit and claims nothing: the numbers show what it would have"
NO_NODES_FOR_PODS = "the nodeSelector selects no node that the pool can have: new pods of its namespaces stay Pending"
NO_OPEN_NODE = "no node of the pool is Ready and schedulable: new pods of its namespaces stay Pending"
LABELLED = "all namespaces and nodes of the pool are labelled"
NO_CONFLICT = "no other pool claims the namespaces or nodes of this pool"
NOT_EXCLUSIVE = "the pool is not exclusive: its nodes accept pods of other namespaces"
NO_NODES = "the pool has no node"
NO_LAST_PLACE = "no pod would lose its last place by the taint"
TAINT_NEEDS_ADMISSION = "the taint is held back: without admission the pool's own pods would not tolerate it"
TAINT_CHECK_PENDING = "the check for pods that would lose their last place by the taint has not ended yet"
TAINTED = "the taint keeps pods of other namespaces off the pool's nodes"
PODS_NOT_COUNTED = "the pods are not counted yet"
NO_PODS = "the last count found no pod in the namespaces of the pool: only a pod can show whether it finds a place"
_MAX_SELECTOR_LENGTH = 500
ROOM_BY_TOTALS = "if any one node is lost, the other nodes have room for the pods, by the sums of their requests"


# -- admission --------------------------------------------------------------------------------------------------------


def policies_not_served(kind: str, group_version: str, refusing: Sequence[str]) -> str:
    """Return the message of `Enforced=False`, reason `NotServed`.

    `refusing`: bindings that refuse every new pod of a pool, because nothing puts it into the pool.
    """
    cause = f"the API server does not serve {kind} in {group_version}: upgrade Kubernetes to 1.36 or newer"
    if not refusing:
        return cause
    return (
        f"{cause}. New pods in the namespaces of the pool are refused until then. To admit them, install the chart with "
        f"pools.policies=never, or delete {', '.join(refusing)}"
    )


def policies_missing(objects: Sequence[str]) -> str:
    """Return the message of `Enforced=False`, reason `PoliciesMissing`."""
    return f"admission objects are missing or changed: {', '.join(objects)}. Install the chart again"


# -- labels and conflicts ---------------------------------------------------------------------------------------------


def not_labelled(count: int, refused_writes: Iterable[str]) -> str:
    """Return the message of `Ready=False`, reason `Marking`; refused writes are named with their cause."""
    return "; ".join((f"{count} namespaces and nodes of the pool are not labelled yet", *refused_writes))


def overwritten(pool: str, objects: Sequence[str]) -> str:
    """Return the message of `Ready=False`, reason `Overwritten`; `objects`: such as `namespace shop`."""
    return (
        f"another client keeps undoing the label or taint of the pool on {listing(objects)}; it is set again at least "
        f"twice a minute, and pods that are created meanwhile start outside the pool. Write {names.POOL}: {pool} "
        f"(on nodes {names.NODE_POOL}: {pool}) into the manifests of that client, or let it ignore the label: Argo CD "
        "has ignoreDifferences with RespectIgnoreDifferences=true"
    )


def unschedulable(count: int, label: str, node_selector: str) -> str:
    """Return the sentence of `Ready` about pods without a node; `label`: the pool label of nodes, as `key=value`."""
    return (
        f"{count} pods of its namespaces find no node. If an autoscaler must add a node, its node template needs "
        f"the label {label}, and labels that the nodeSelector selects: {truncate(node_selector, _MAX_SELECTOR_LENGTH)}"
    )


def write_refused(kind: str, name: str, cause: str) -> str:
    """Return the message about a namespace or node that the API server refuses to change."""
    return f"{kind} {name} cannot be written: {cause}"


def conflict(kind: str, name: str, other_pool: str, *, is_kept: bool) -> str:
    """Return the message about a namespace or node that two pools claim."""
    if is_kept:
        return f"{kind} {name} is claimed by pool {other_pool} too, which is newer"
    return f"{kind} {name} is kept by pool {other_pool}, which is older"


def label_kept(pool: str, pods: Sequence[str]) -> str:
    """Return the message of the Event `PoolLabelKept`."""
    return (
        f"The label of pool {pool}, which is deleted, stays on the node while these pods require it: {listing(pods)}. "
        "Without the label no node takes them, and a kubelet that restarts fails them. Move or delete the pods"
    )


def nodes_restricted(key: str) -> str:
    """Return the message of `NodeLabelsTrusted=True`."""
    return f"the nodeSelector requires label {key}, which no kubelet may set on its own Node"


def nodes_set_by_kubelet(keys: Sequence[str]) -> str:
    """Return the message of `NodeLabelsTrusted=False`."""
    return (
        f"a kubelet may set every label that the nodeSelector requires ({', '.join(keys) or 'none'}) on its own Node. "
        "A compromised node can join the pool and receive its next pods. "
        "Require a label under node-restriction.kubernetes.io/"
    )


# -- the taint, and the loss of a node --------------------------------------------------------------------------------


def taint_held_back(unschedulable: Sequence[str]) -> str:
    """Return the message of `TaintHeldBack=True`, reason `LastPlace`."""
    return (
        "the taint is held back: these would lose their last place or could not start there again: "
        f"{listing(unschedulable)}. Let them tolerate the taint, or give them another node"
    )


def loss_does_not_fit(loss: NodeLoss) -> str:
    """Return the message of `SurvivesNodeLoss=False`, reason `DoesNotFit`."""
    pods = "; ".join(loss.unplaceable)
    return f"{_without(loss)} {loss.unplaceable_total} of {loss.pods_total} pods would find no place: {pods}"


def loss_is_uncertain(loss: NodeLoss) -> str:
    """Return the message of `SurvivesNodeLoss=Unknown`, reason `SchedulerOnly`."""
    pods = "; ".join(loss.uncertain)
    return (
        f"{_without(loss)} only the scheduler can decide about {loss.uncertain_total} of {loss.pods_total} pods: {pods}"
    )


def loss_fits(loss: NodeLoss) -> str:
    """Return the message of `SurvivesNodeLoss=True` after a plan for each pod."""
    return f"{_without(loss)} its {loss.pods_total} pods would find a place on the other nodes"


def no_room_by_totals(node: str | None, kind: str, missing: int) -> str:
    """Return the message of `SurvivesNodeLoss=False`, reason `NoRoom`; node None: the pool has no open node."""
    without = f"without node {node} the other nodes lack" if node else "without an open node the pool lacks"
    return f"{without} {kind} {format_quantity(kind, missing)} for the pods of the pool"


def _without(loss: NodeLoss) -> str:
    return f"without node {loss.node}, the largest,"


# -- blockers and wait reasons ----------------------------------------------------------------------------------------


def node_not_ready(node: str) -> str:
    """Return the message of the blocker `NodeNotReady`."""
    return f"node {node} of the pod is not Ready: only the drain of the node may move the pod"


def node_not_tainted(node: str) -> str:
    """Return the message of the blocker `TaintHeldBack`."""
    return f"node {node} does not have the taint of the pool: the pod would come back"


def came_back(until: datetime) -> str:
    """Return the message of the blocker `CameBack`."""
    return (
        "a pod of the same owner was moved, and this later pod is out of place again: "
        f"it stays until {until:%H:%M:%S} UTC. Check the scheduling of the owner"
    )


def no_matching_node(pool: str | None) -> str:
    """Return the message of the blocker `NoRoomInPool` if no node fits the pod; pool None: any node will do."""
    return f"{_no_open_node(pool)} meets the nodeSelector, affinity and tolerations of the pod"


def no_room_in_pool(pool: str | None, resource_requests: ResourceList) -> str:
    """Return the message of the blocker `NoRoomInPool` if no node has room; pool None: any node will do."""
    return f"{_no_open_node(pool)} has room for the pod ({_amounts(resource_requests)})"


def _no_open_node(pool: str | None) -> str:
    return f"no open node of pool {pool}" if pool else "no other open node"


def _amounts(resource_requests: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {format_quantity(kind, size)}" for kind, size in resource_requests.items()) or "one pod"


def pool_budget_taken(pool: str, limit: NumberOrPercent, slots: int, nodes: int, unavailable: Sequence[str]) -> str:
    """Return the message of the wait reason `PoolBudget`."""
    taken = listing(unavailable, limit=5)
    return f"maxUnavailable {limit} of NamespacePool {pool} ({slots} of {nodes} nodes) is taken by {taken}"
