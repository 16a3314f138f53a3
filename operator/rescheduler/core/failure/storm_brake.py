"""The storm brake: where many nodes fail at once, moving pods makes it worse, and we may be the ones who err.

Each cause is counted by itself: a detector that flags many nodes falsely brakes what it flags, and nothing else. The brake
holds back what has not begun; what runs goes on. One node alone is never a storm.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from rescheduler.api import names
from rescheduler.api.policies import ReschedulePolicy
from rescheduler.core.failure.causes import READY_UNKNOWN, READY_UNKNOWN_LEASE_RENEWED
from rescheduler.core.model.nodes import Node

_MIN_UNHEALTHY_PER_SCOPE = 3
"""Of so few nodes that a zone or pool may have, one or two that fail are no storm there."""
_HINTS = {
    READY_UNKNOWN: "Check the network and the control plane",
    READY_UNKNOWN_LEASE_RENEWED: "Check the node controller",
}

Scope = tuple[str, str]
"""A policy, a zone or a pool: its kind, and its name."""


@dataclass(frozen=True, slots=True)
class UnhealthyCounts:
    """How many nodes each place has, and how many of them fail for which cause."""

    nodes: Counter[Scope] = field(default_factory=Counter)
    unhealthy: Counter[tuple[Scope, str]] = field(default_factory=Counter)


def _scopes(node: Node, policy: ReschedulePolicy) -> tuple[Scope, ...]:
    found = [("ReschedulePolicy", policy.name)]
    if zone := node.labels.get(names.ZONE):
        found.append(("zone", zone))
    if pool := node.labels.get(names.NODE_POOL):
        found.append(("pool", pool))
    return tuple(found)


def count_unhealthy(rows: Iterable[tuple[Node, ReschedulePolicy, Collection[str]]]) -> UnhealthyCounts:
    """Count nodes: (node, the policy that decides for it, names of the causes for which it fails)."""
    weather = UnhealthyCounts()
    for node, policy, causes in rows:
        for place in _scopes(node, policy):
            weather.nodes[place] += 1
            for cause in causes:
                weather.unhealthy[place, cause] += 1
    return weather


def storm_reason(
    node: Node, policy: ReschedulePolicy, counts: UnhealthyCounts, cause: str, *, also_counted: str = ""
) -> str:
    """Return what storm keeps this node from being drained for this cause, in words; empty if none does.

    `like`: what else the weather counts as this cause, for the words.
    """
    limit = policy.spec.failure.max_unhealthy
    for place in _scopes(node, policy):
        sick, nodes = counts.unhealthy[place, cause], counts.nodes[place]
        least = 2 if place[0] == "ReschedulePolicy" else _MIN_UNHEALTHY_PER_SCOPE
        if sick >= least and sick > limit.of(nodes):
            return (
                f"{sick} of {nodes} nodes of {place[0]} {place[1]} have the condition {cause}{also_counted}, more than "
                f"failure.maxUnhealthy {limit} ({limit.of(nodes)}): no drain starts for this condition until fewer "
                f"nodes have it. {_HINTS.get(cause, 'Check what sets it')}"
            )
    return ""


def any_storm_reason(node: Node, policy: ReschedulePolicy, counts: UnhealthyCounts) -> str:
    """Return a storm of any cause in a place of this node, in words; empty if there is none."""
    causes = sorted({cause for _, cause in counts.unhealthy})
    return next((found for cause in causes if (found := storm_reason(node, policy, counts, cause))), "")
