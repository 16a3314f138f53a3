"""The storm brake: if many nodes fail at once, no further drain starts for that cause.

Moving many pods would make such a failure worse, and the detection may be wrong. Each cause is counted on its own: a
detector that reports many nodes wrongly brakes only its own cause. Drains that have begun continue. A single node is
never a storm. docs/reference/policy.md describes the limit.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from rescheduler.api import names
from rescheduler.api.policies import ReschedulePolicy
from rescheduler.core.failure import messages
from rescheduler.core.failure.causes import READY_UNKNOWN, READY_UNKNOWN_LEASE_RENEWED
from rescheduler.core.model.nodes import Node

_MIN_UNHEALTHY_PER_SCOPE = 3
"""A zone or pool may have few nodes: one or two unhealthy nodes are no storm there."""
_HINTS = {
    READY_UNKNOWN: "Check the network and the control plane",
    READY_UNKNOWN_LEASE_RENEWED: "Check the node controller",
}

Scope = tuple[str, str]
"""A policy, a zone or a pool: its kind, and its name."""


@dataclass(frozen=True, slots=True)
class UnhealthyCounts:
    """The number of nodes of each policy, zone and pool, and of their unhealthy nodes by cause."""

    nodes: Counter[Scope] = field(default_factory=Counter)
    unhealthy: Counter[tuple[Scope, str]] = field(default_factory=Counter)


def _scopes(node: Node, policy: ReschedulePolicy) -> tuple[Scope, ...]:
    scopes = [("ReschedulePolicy", policy.name)]
    if zone := node.labels.get(names.ZONE):
        scopes.append(("zone", zone))
    if pool := node.labels.get(names.NODE_POOL):
        scopes.append(("pool", pool))
    return tuple(scopes)


def count_unhealthy(rows: Iterable[tuple[Node, ReschedulePolicy, Collection[str]]]) -> UnhealthyCounts:
    """Count the nodes; a row is a node, its policy, and the names of its causes."""
    counts = UnhealthyCounts()
    for node, policy, causes in rows:
        for scope in _scopes(node, policy):
            counts.nodes[scope] += 1
            for cause in causes:
                counts.unhealthy[scope, cause] += 1
    return counts


def storm_reason(
    node: Node, policy: ReschedulePolicy, counts: UnhealthyCounts, cause: str, *, also_counted: str = ""
) -> str | None:
    """Return the message about the storm that brakes this cause on this node; None if there is none.

    `also_counted`: what else the counts include for this cause, for the message.
    """
    limit = policy.spec.failure.max_unhealthy
    for scope in _scopes(node, policy):
        unhealthy, nodes = counts.unhealthy[scope, cause], counts.nodes[scope]
        minimum = 2 if scope[0] == "ReschedulePolicy" else _MIN_UNHEALTHY_PER_SCOPE
        if unhealthy >= minimum and unhealthy > limit.of(nodes):
            hint = _HINTS.get(cause, "Check the agent that sets it")
            return messages.storm(unhealthy, nodes, scope, cause, also_counted, limit, hint)
    return None


def any_storm_reason(node: Node, policy: ReschedulePolicy, counts: UnhealthyCounts) -> str | None:
    """Return the message about a storm of any cause in a policy, zone or pool of this node; None if there is none."""
    causes = sorted({cause for _, cause in counts.unhealthy})
    return next((storm for cause in causes if (storm := storm_reason(node, policy, counts, cause))), None)
