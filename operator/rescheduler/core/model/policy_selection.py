"""Selection of the policy that decides for a node."""

from collections.abc import Iterable, Mapping

from rescheduler.api.policies import ReschedulePolicy
from rescheduler.core.model.nodes import Node


def winning_policy(policies: Iterable[ReschedulePolicy], node: Node) -> ReschedulePolicy | None:
    """Return the only policy that decides for the node; None if no policy selects the node.

    The highest priority wins, then the first name in alphabetical order.
    """
    matching = (p for p in policies if p.spec.node_selector.matches(node.labels))
    return min(matching, key=lambda p: (-p.spec.priority, p.name), default=None)


class PolicySelector:
    """Cache of the winning policy of each node: callers ask for all nodes whenever one node changes.

    The caller creates a new selector when a policy changes. A change of a node's labels selects again for that node.
    """

    def __init__(self, policies: Iterable[ReschedulePolicy]) -> None:
        self.policies = tuple(policies)
        self._cached: dict[str, tuple[Mapping[str, str], ReschedulePolicy | None]] = {}

    def policy_for(self, node: Node) -> ReschedulePolicy | None:
        """Return the policy that decides for this node; None if no policy selects it."""
        cached = self._cached.get(node.name)
        if cached is None or (cached[0] is not node.labels and cached[0] != node.labels):
            cached = self._cached[node.name] = (node.labels, winning_policy(self.policies, node))
        return cached[1]

    def forget(self, name: str) -> None:
        """Drop the cached policy of a deleted node."""
        self._cached.pop(name, None)
