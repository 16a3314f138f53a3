"""The storm brake: where many nodes are unhealthy at once, moving pods makes it worse, and we may be the ones who err.

It holds back what has not begun; what runs goes on. One node alone is never a storm.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from rescheduler.api import names
from rescheduler.api.policies import Policy
from rescheduler.core.facts import Node

_LEAST_IN_ONE_PLACE = 3
"""Of so few nodes that a zone or pool may have, one or two that fail are no storm there (DESIGN 2)."""


@dataclass(frozen=True, slots=True)
class Weather:
    """How many nodes there are, and how many of them are unhealthy, by place: a policy, a zone or a pool."""

    nodes: Counter[tuple[str, str]] = field(default_factory=Counter)
    sick: Counter[tuple[str, str]] = field(default_factory=Counter)


def _places(node: Node, policy: Policy) -> tuple[tuple[str, str], ...]:
    found = [("ReschedulePolicy", policy.name)]
    if zone := node.labels.get(names.ZONE):
        found.append(("zone", zone))
    if pool := node.labels.get(names.NODE_POOL):
        found.append(("pool", pool))
    return tuple(found)


def survey(rows: Iterable[tuple[Node, Policy, bool]]) -> Weather:
    """Count nodes: (node, the policy that decides for it, whether it is unhealthy)."""
    weather = Weather()
    for node, policy, sick in rows:
        places = _places(node, policy)
        weather.nodes.update(places)
        if sick:
            weather.sick.update(places)
    return weather


def storm(node: Node, policy: Policy, weather: Weather, *, ailing: str = "unhealthy") -> str:
    """What storm keeps this node from being drained for its failure, in words; empty where none does."""
    limit = policy.spec.failure.max_unhealthy
    for place in _places(node, policy):
        sick, nodes = weather.sick[place], weather.nodes[place]
        least = 2 if place[0] == "ReschedulePolicy" else _LEAST_IN_ONE_PLACE
        if sick >= least and sick > limit.of(nodes):
            return (
                f"{sick} of {nodes} nodes of {place[0]} {place[1]} are {ailing}, "
                f"more than failure.maxUnhealthy {limit}: nothing new starts there"
            )
    return ""
