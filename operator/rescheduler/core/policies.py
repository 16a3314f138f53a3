"""Which policy decides for a node."""

from collections.abc import Iterable

from rescheduler.api.policies import Policy
from rescheduler.core.facts import Node


def winning(policies: Iterable[Policy], node: Node) -> Policy | None:
    """The one policy that decides alone: highest priority, then first name; None where none selects the node."""
    selecting = (p for p in policies if p.spec.node_selector.matches(node.labels))
    return min(selecting, key=lambda p: (-p.spec.priority, p.name), default=None)
