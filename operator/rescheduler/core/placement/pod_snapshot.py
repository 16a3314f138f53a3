"""The pods of a cluster in small sums: what each node holds, and what other pods' rules can see of them.

Raw pods are taken in one by one, page after page, and must not be kept: what is left grows with the nodes and with
the kinds of pods, hardly with their number.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from rescheduler.core.model import object_schemas
from rescheduler.core.model.pods import FINISHED
from rescheduler.core.model.quantities import PODS
from rescheduler.core.model.resource_requests import held
from rescheduler.core.placement.pod_affinity import Labels, Term, terms
from rescheduler.core.placement.pod_requirements import Ask, Asks, Port, claims, ports, shared_labels

_ANONYMOUS = ("ReplicaSet", "Deployment")
"""Controllers whose pods have no identity: a Deployment is the controller of its released pods."""


@dataclass(frozen=True, eq=False)
class Presence:
    """What other pods can see of a pod; equal ones are the same object.

    Attributes:
        apart: its required anti-affinity: it keeps others off.
        ending: it is Terminating: spread does not count it, affinity does.
    """

    namespace: str
    labels: Labels = field(default_factory=dict)
    apart: tuple[Term, ...] = ()
    ports: tuple[Port, ...] = ()
    ending: bool = False


@dataclass(frozen=True, slots=True)
class Resident:
    """A pod on a node that is planned for.

    Attributes:
        presence: what it counts for while it is there.
        ask, claims: what its replacement will ask for.
        owner: uid of its controller; empty: it has none.
    """

    key: str
    uid: str
    node: str
    presence: Presence
    ask: Ask
    claims: tuple[str, ...] = ()
    owner: str = ""


class Census:
    """Everything that a plan needs to know of pods.

    Attributes:
        used: what the pods on each node hold, `pods` among it.
        places: how many pods of each presence are on which node.
        residents: pods of the nodes that are planned for, by node.
        waiting: pods without a node, by what they ask.
        under_way: uids of the controllers, but for ReplicaSets and Deployments, of pods that are Terminating or have no
            node: where those will be is not known yet.
    """

    def __init__(self, asks: Asks, planned: Collection[str] = ()) -> None:
        """`planned`: the nodes whose pods are to be known one by one."""
        self.used: dict[str, Counter[str]] = defaultdict(Counter)
        self.places: dict[Presence, Counter[str]] = defaultdict(Counter)
        self.residents: dict[str, list[Resident]] = defaultdict(list)
        self.waiting: Counter[Ask] = Counter()
        self.under_way: set[str] = set()
        self._asks, self._planned = asks, planned
        self._known: dict[str, Presence] = {}

    def add(self, raw: Mapping[str, Any]) -> None:
        """Take a raw pod in. Raises UnreadableError for what is no pod."""
        raw = object_schemas.pod(raw)
        spec = raw["spec"]
        if raw["status"].get("phase") in FINISHED:
            return
        node, owner = spec.get("nodeName"), _owner(raw)
        if owner and owner["kind"] not in _ANONYMOUS and (not node or "deletionTimestamp" in raw["metadata"]):
            self.under_way.add(owner["uid"])
        if not node:
            if not spec.get("schedulingGates") and "deletionTimestamp" not in raw["metadata"]:
                self.waiting[self._asks.of(raw)] += 1
            return
        presence, used = self._presence(raw), self.used[node]
        for name, value in held(raw).items():
            used[name] += value
        used[PODS] += 1
        self.places[presence][node] += 1
        if node in self._planned:
            self.residents[node].append(self._resident(raw, presence))

    def _resident(self, raw: Mapping[str, Any], presence: Presence) -> Resident:
        meta = raw["metadata"]
        key = f"{meta['namespace']}/{meta['name']}"
        ask, mounted = self._asks.of(raw), claims(raw["spec"])
        owner = (_owner(raw) or {}).get("uid", "")
        return Resident(key, meta.get("uid", ""), raw["spec"]["nodeName"], presence, ask, mounted, owner)

    def _presence(self, raw: Mapping[str, Any]) -> Presence:
        meta, spec = raw["metadata"], raw["spec"]
        labels, bound = shared_labels(meta), ports(spec)
        repels = (spec.get("affinity") or {}).get("podAntiAffinity")
        ending = "deletionTimestamp" in meta
        key = repr((meta["namespace"], sorted(labels.items()), repels, bound, ending))
        if (found := self._known.get(key)) is None:
            apart = terms(spec, meta["namespace"], "podAntiAffinity")
            found = self._known[key] = Presence(meta["namespace"], labels, apart, bound, ending)
        return found


def _owner(raw: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The controller that a raw pod names."""
    return next((o for o in raw["metadata"].get("ownerReferences") or () if o.get("controller")), None)
