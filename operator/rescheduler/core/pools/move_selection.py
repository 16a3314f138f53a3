"""Which pods that are out of place are moved now, and why the others are not.

A pod that has nowhere to go stays where it is; so does one whose replacement came up out of place again: whatever is
wrong there, moving it once more would not mend it.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from rescheduler.api import names
from rescheduler.api.policies import Suspend
from rescheduler.api.pools import PoolBlocker
from rescheduler.core.model.node_affinity import may_run_on
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.quantities import PODS, said
from rescheduler.core.model.resource_requests import Amounts
from rescheduler.core.model.wait_reasons import Held
from rescheduler.core.pools import labels_and_taints
from rescheduler.core.pools.misplaced_pods import Misplaced

CAUSE = "NamespacePool/"
SETTLE = timedelta(seconds=5)
"""Every API server must have read a namespace's new label before the replacement of one of its pods is created."""
_PAUSE = timedelta(minutes=15)
_MOST = 10_000  # owners remembered


class Journeys:
    """When the first pod of an owner left for a pool: a pod of it that was made later and is out of place came back."""

    def __init__(self) -> None:
        self._first: OrderedDict[tuple[str, str | None], datetime] = OrderedDict()

    def left(self, owner: str, home: str | None, now: datetime) -> None:
        """A pod of this owner has left for this pool (None: for any node of none)."""
        first = self._first.get((owner, home))
        if first is None or now - first > _PAUSE:
            self._first[owner, home] = now
            self._first.move_to_end((owner, home))
        while len(self._first) > _MOST:
            self._first.popitem(last=False)

    def again(self, pod: Misplaced, mapped: datetime, now: datetime) -> datetime | None:
        """Until when a pod that came back is left where it is; None where it did not.

        `mapped`: since when its namespace and its node are mapped as they are. A pod that was there before stands where
        it was right to come up.
        """
        first = self._first.get((pod.owner, pod.home))
        if first is None or now - first > _PAUSE or pod.created is None or pod.created < first.replace(microsecond=0):
            return None
        return first + _PAUSE if pod.created >= mapped.replace(microsecond=0) else None


@dataclass(frozen=True)
class Site:
    """All that the choice depends on.

    Attributes:
        ground: by node, the pool that has it.
        used: by node, what its pods hold.
        settled: whether a namespace carries its pool's label, and has for long enough.
        mapped: since when a namespace and a node, by name, are in the pools that have them.
        held: why nothing may be moved off a node.
    """

    now: datetime
    nodes: Mapping[str, Node]
    ground: Mapping[str, str | None]
    used: Mapping[str, Amounts]
    settled: Callable[[str], bool]
    mapped: Callable[[str, str], datetime]
    held: Callable[[Node], Held | None]
    suspend: Callable[[Node], Suspend]
    journeys: Journeys


@dataclass(slots=True)
class Plan:
    """What is to be moved now, by node and uid; and by pool what cannot be, and why."""

    errands: dict[str, dict[str, str]] = field(default_factory=dict)
    blockers: dict[str, list[PoolBlocker]] = field(default_factory=dict)


def plan(misplaced: Iterable[Misplaced], site: Site) -> Plan:
    """Those already let go of come first: they have their room."""
    found, room = Plan(), _Room(site)
    for pod in sorted(misplaced, key=lambda pod: (not pod.released, pod.namespace, pod.name)):
        here = site.nodes.get(pod.node)
        if here is None or not site.settled(pod.namespace):
            continue
        why = _obstacle(pod, here, site) or room.obstacle(pod)
        if why:
            blocker = PoolBlocker(namespace=pod.namespace, pod=pod.name, class_=why[0], message=why[1])
            found.blockers.setdefault(pod.pool, []).append(blocker)
        else:
            found.errands.setdefault(pod.node, {})[pod.uid] = CAUSE + pod.pool
    return found


Why = tuple[str, str]
"""A blocker's class and message."""


def _obstacle(pod: Misplaced, here: Node, site: Site) -> Why | None:
    """Why it may not leave."""
    held = site.held(here)
    if held and not (pod.released and site.suspend(here) is Suspend.NEW):
        return str(held.reason), held.message
    if here.ready != "True":
        return "NodeNotReady", f"its node {here.name} is not Ready: that is for its drain to mend"
    if pod.home != pod.pool and labels_and_taints.tainted(here) != pod.pool:
        return "TaintHeldBack", f"node {here.name} does not have the pool's taint: it would come back"
    if until := site.journeys.again(pod, site.mapped(pod.namespace, pod.node), site.now):
        return (
            "CameBack",
            f"a pod of its owner was moved, and this one came up out of place again: left until {until:%H:%M:%S} UTC",
        )
    return None


class _Room:
    """Which nodes would take which pods, and how much is left on them."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._open = [n for n in site.nodes.values() if n.ready == "True" and not n.unschedulable and not n.deleting]
        self._taken: dict[str, Counter[str]] = {}
        self._known: dict[str, list[Node]] = {}  # by what a pod asks of a node

    def obstacle(self, pod: Misplaced) -> Why | None:
        """Why there is no place for it; None: there is, and it is taken."""
        whither = f"pool {pod.home}" if pod.home else "other nodes"
        nodes = [node for node in self._takers(pod) if node.name != pod.node]
        if not nodes:
            return (
                "NoRoomInPool",
                f"no open node of {whither} meets what it asks for (nodeSelector, affinity, tolerations)",
            )
        if pod.released:
            return None
        asked = {**pod.asked, PODS: 1}
        for node in nodes:
            taken = self._taken.setdefault(node.name, Counter(self._site.used.get(node.name, {})))
            if all(node.allocatable.get(kind, 0) - taken[kind] >= size for kind, size in asked.items()):
                taken.update(asked)
                return None
        sizes = ", ".join(f"{kind} {said(kind, size)}" for kind, size in pod.asked.items()) or "one more pod"
        return "NoRoomInPool", f"none of the open nodes of {whither} has room for it ({sizes})"

    def _takers(self, pod: Misplaced) -> Sequence[Node]:
        key = f"{pod.home} {pod.where}"
        if key not in self._known:
            where = _once_home(pod)
            self._known[key] = [node for node in self._open if self._is_home(node, pod) and may_run_on(where, node)]
        return self._known[key]

    def _is_home(self, node: Node, pod: Misplaced) -> bool:
        """Whether it belongs there; whoever is at home nowhere may be on any node whose taints let it."""
        if pod.home is None:
            return True
        return self._site.ground.get(node.name) == pod.home and node.labels.get(names.NODE_POOL) == pod.home


def _once_home(pod: Misplaced) -> Mapping[str, Any]:
    """What its replacement asks of a node: admission adds what its pool asks."""
    if pod.home is None:
        return pod.where
    pool = {"key": names.POOL, "operator": "Equal", "value": pod.home, "effect": labels_and_taints.EFFECT}
    # The selector that a pod was given for another pool is not in its owner's template.
    selector = {**(pod.where.get("nodeSelector") or {}), names.NODE_POOL: pod.home}
    return {**pod.where, "nodeSelector": selector, "tolerations": [*(pod.where.get("tolerations") or ()), pool]}
