"""The storm brake: where many nodes fail at once, moving pods makes it worse, and we may be the ones who err.

Each cause is counted by itself: a detector that flags many nodes falsely brakes what it flags, and nothing else. The brake
holds back what has not begun; what runs goes on. One node alone is never a storm.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from rescheduler.api import names
from rescheduler.api.policies import Policy
from rescheduler.core.failure.causes import CONTRADICTED, SILENT
from rescheduler.core.model.nodes import Node

_LEAST_IN_ONE_PLACE = 3
"""Of so few nodes that a zone or pool may have, one or two that fail are no storm there."""
_CHECK = {
    SILENT: "Check the network and the control plane",
    CONTRADICTED: "Check the node controller",
}

Place = tuple[str, str]
"""A policy, a zone or a pool: its kind, and its name."""


@dataclass(frozen=True, slots=True)
class Weather:
    """How many nodes each place has, and how many of them fail for which cause."""

    nodes: Counter[Place] = field(default_factory=Counter)
    sick: Counter[tuple[Place, str]] = field(default_factory=Counter)


def _places(node: Node, policy: Policy) -> tuple[Place, ...]:
    found = [("ReschedulePolicy", policy.name)]
    if zone := node.labels.get(names.ZONE):
        found.append(("zone", zone))
    if pool := node.labels.get(names.NODE_POOL):
        found.append(("pool", pool))
    return tuple(found)


def survey(rows: Iterable[tuple[Node, Policy, Collection[str]]]) -> Weather:
    """Count nodes: (node, the policy that decides for it, names of the causes for which it fails)."""
    weather = Weather()
    for node, policy, causes in rows:
        for place in _places(node, policy):
            weather.nodes[place] += 1
            for cause in causes:
                weather.sick[place, cause] += 1
    return weather


def storm(node: Node, policy: Policy, weather: Weather, cause: str, *, like: str = "") -> str:
    """Return what storm keeps this node from being drained for this cause, in words; empty if none does.

    `like`: what else the weather counts as this cause, for the words.
    """
    limit = policy.spec.failure.max_unhealthy
    for place in _places(node, policy):
        sick, nodes = weather.sick[place, cause], weather.nodes[place]
        least = 2 if place[0] == "ReschedulePolicy" else _LEAST_IN_ONE_PLACE
        if sick >= least and sick > limit.of(nodes):
            return (
                f"{sick} of {nodes} nodes of {place[0]} {place[1]} have the condition {cause}{like}, more than "
                f"failure.maxUnhealthy {limit} ({limit.of(nodes)}): no drain starts for this condition until fewer "
                f"nodes have it. {_CHECK.get(cause, 'Check what sets it')}"
            )
    return ""


def any_storm(node: Node, policy: Policy, weather: Weather) -> str:
    """Return a storm of any cause in a place of this node, in words; empty if there is none."""
    causes = sorted({cause for _, cause in weather.sick})
    return next((found for cause in causes if (found := storm(node, policy, weather, cause))), "")
