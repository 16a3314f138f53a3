"""Which policy decides for a node."""

from collections.abc import Iterable, Mapping

from rescheduler.api.policies import ReschedulePolicy
from rescheduler.core.model.nodes import Node


def winning_policy(policies: Iterable[ReschedulePolicy], node: Node) -> ReschedulePolicy | None:
    """The one policy that decides alone: highest priority, then first name; None where none selects the node."""
    selecting = (p for p in policies if p.spec.node_selector.matches(node.labels))
    return min(selecting, key=lambda p: (-p.spec.priority, p.name), default=None)


class PolicySelector:
    """The winning policy of each node, remembered: it is asked for all nodes whenever one changes.

    Made anew when a policy changes; a node is judged again when its labels do.
    """

    def __init__(self, policies: Iterable[ReschedulePolicy]) -> None:
        self.policies = tuple(policies)
        self._cached: dict[str, tuple[Mapping[str, str], ReschedulePolicy | None]] = {}

    def policy_for(self, node: Node) -> ReschedulePolicy | None:
        """The policy that decides for this node."""
        known = self._cached.get(node.name)
        if known is None or (known[0] is not node.labels and known[0] != node.labels):
            known = self._cached[node.name] = (node.labels, winning_policy(self.policies, node))
        return known[1]

    def forget(self, name: str) -> None:
        """The node of this name is gone."""
        self._cached.pop(name, None)
