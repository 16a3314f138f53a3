"""Which policy decides for a node."""

from collections.abc import Iterable, Mapping

from rescheduler.api.policies import Policy
from rescheduler.core.model.nodes import Node


def winning(policies: Iterable[Policy], node: Node) -> Policy | None:
    """The one policy that decides alone: highest priority, then first name; None where none selects the node."""
    selecting = (p for p in policies if p.spec.node_selector.matches(node.labels))
    return min(selecting, key=lambda p: (-p.spec.priority, p.name), default=None)


class Winners:
    """The winning policy of each node, remembered: it is asked for all nodes whenever one changes.

    Made anew when a policy changes; a node is judged again when its labels do.
    """

    def __init__(self, policies: Iterable[Policy]) -> None:
        self.policies = tuple(policies)
        self._known: dict[str, tuple[Mapping[str, str], Policy | None]] = {}

    def of(self, node: Node) -> Policy | None:
        """The policy that decides for this node."""
        known = self._known.get(node.name)
        if known is None or (known[0] is not node.labels and known[0] != node.labels):
            known = self._known[node.name] = (node.labels, winning(self.policies, node))
        return known[1]

    def forget(self, name: str) -> None:
        """The node of this name is gone."""
        self._known.pop(name, None)
