"""The cluster as its record shows it, at one revision, and a little of what was before.

Nobody sees a change at once: what was true within the last `lag` seconds may still be acted on.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from datetime import timedelta
from math import ceil
from typing import Any

from invariants.objects import (
    Json,
    annotations,
    condition,
    controller,
    deleting,
    finished,
    has_taint,
    is_ready,
    labels,
    name,
    node_of,
    released,
    seconds,
    selects,
    uid,
)
from invariants.records import Change, Place
from rescheduler.api.policies import ReschedulePolicy

MAINTENANCE = "rescheduler.dev/maintenance"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
SILENCE, TOGETHER, SHARE, LEAST = 20.0, 60.0, 0.6, 3
"""Of a blackout: so many Leases silent for so long, from within so long of each other."""
RENEWED = 11.0
"""Seconds within which a kubelet that lives has renewed its Lease."""
_OWNED = ("ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted")
_UNRENEWED = 10.0  # seconds after which the Lease is not surely held
_OUTAGE = 15.0
"""Where nothing at all was written for so long, the API server was away."""


class Picture:
    """Objects by resource and (namespace, name).

    Attributes:
        at: seconds of the epoch.
        fresh: since when the view of the nodes is to be believed: a blackout ended then.
        renewals: by node, when its Lease was last renewed, and when the time before.
        born: when an operator process last began.
        cordoned: by node, whether it was the operator who cordoned it last.
        let_go: uids of pods that the operator released, ever.
        acted: by node, when the operator last wrote on it or on a pod there.
        led: since when one operator has held the Lease without a break.
        lost: by uid of a Deployment, when a released pod of it was last taken away by others, and its record.
    """

    def __init__(self, lag: float) -> None:
        self.lag, self.at, self.fresh, self.born = lag, 0.0, 0.0, 0.0
        self.objects: dict[str, dict[tuple[str, str], Json]] = defaultdict(dict)
        self.renewals: dict[str, tuple[float, float]] = {}
        self.cordoned: dict[str, bool] = {}
        self.let_go: set[str] = set()
        self.acted: dict[str, float] = {}
        self.led = 0.0
        self.lost: dict[str, tuple[float, Json]] = {}
        self._lease = ("", 0.0)  # who holds it, and when it was last renewed
        self._past: dict[tuple[str, str], list[tuple[float, Any]]] = defaultdict(list)
        self._parted: list[tuple[float, Json]] = []

    def take(self, change: Change) -> None:
        """Go on to this revision."""
        if self.at and change.at - self.at > _OUTAGE:
            self.renewals = dict.fromkeys(self.renewals, (change.at, change.at))
        self.at = max(self.at, change.at)
        place, raw = change.place, change.after
        key = (place.namespace, place.name)
        if raw is None:
            self.objects[place.resource].pop(key, None)
        else:
            self.objects[place.resource][key] = raw
        match place.resource:
            case "nodes" if raw:
                self._take_node(raw)
            case "pods":
                self._take_pod(change.before, raw)
            case "deployments" if raw:
                self._note("replicas", uid(raw), raw["spec"]["replicas"])
            case "nodedrains":
                begun = raw is not None and "startedAt" in (raw.get("status") or {}) and not deleting(raw)
                self._note("begun", place.name, begun)
                emptied = begun and "drainedAt" in (raw or {})["status"] and reasons(raw or {}) != {"Failure"}
                self._note("emptied", place.name, emptied)
            case "reschedulepolicies":
                self._note("policies", "", tuple(self.objects[place.resource].values()))
            case "leases" if raw:
                self._take_lease(place, change, raw["spec"])
            case "poddisruptionbudgets" if raw:
                allowed = (raw.get("status") or {}).get("disruptionsAllowed", 0)
                self._note("allowed", uid(raw), allowed > 0)

    def _take_node(self, raw: Json) -> None:
        self._note("ready", name(raw), condition(raw, "Ready").get("status", "Unknown"))
        self._note("cordoned", name(raw), bool(raw["spec"].get("unschedulable")))
        self._note("owned", name(raw), any(has_taint(raw, key) for key in _OWNED))
        self._note("maintenance", name(raw), annotations(raw).get(MAINTENANCE))

    def _take_lease(self, place: Place, change: Change, spec: Json) -> None:
        if place.namespace == "kube-node-lease":
            self._renewed(place.name, change)
            return
        if place.name != "rescheduler":
            return
        holder, renewed = spec.get("holderIdentity") or "", self._lease[1]
        if holder != self._lease[0] or self.at - renewed > _UNRENEWED:
            self.led = self.at
        self._lease = (holder, self.at)

    @property
    def leaderless(self) -> bool:
        """Whether nobody is known to hold the operator's Lease."""
        return self._lease[1] > 0 and (not self._lease[0] or self.at - self._lease[1] > _UNRENEWED)

    def _take_pod(self, before: Json | None, raw: Json | None) -> None:
        if raw:
            self._note("pod", uid(raw), is_ready(raw))
            self._note("controlled", uid(raw), bool(controller(raw)))
        if before and not deleting(before) and (raw is None or deleting(raw)):
            self._parted = [(at, pod) for at, pod in self._parted if at > self.at - self.lag]
            self._parted.append((self.at, before))

    def _renewed(self, node: str, change: Change) -> None:
        before = change.before or {"spec": {}}
        if (change.after or {})["spec"].get("renewTime") != before["spec"].get("renewTime"):
            dark = self.blackout()
            self.renewals[node] = (change.at, self.renewals.get(node, (change.at, 0))[0])
            if dark and not self.blackout():
                self.fresh = change.at

    def _note(self, what: str, key: str, value: Any) -> None:
        past = self._past[what, key]
        if not past or past[-1][1] != value:
            past.append((self.at, value))

    # -- questions ------------------------------------------------------------------------------------------------

    def past(self, what: str, key: str) -> list[tuple[float, Any]]:
        """All values so far, each with when it began."""
        return self._past[what, key]

    def lately(self, what: str, key: str, seconds: float = 0.0) -> list[Any]:
        """The value now, and those that ended less than `lag` or so many seconds ago; none where it never had one."""
        past = self._past[what, key]
        ends = [*(begin for begin, _ in past[1:]), float("inf")]
        since = self.at - max(self.lag, seconds)
        return [value for (_, value), end in zip(past, ends, strict=False) if end > since]

    def since(self, what: str, key: str, values: Collection[Any]) -> float:
        """From when, until now, the value was one of these without a break; infinity where it is none."""
        found = float("inf")
        for begin, value in reversed(self._past[what, key]):
            if value not in values:
                break
            found = begin
        return found

    def blackout(self, more: float = 0.0) -> bool:
        """Whether most Leases have fallen silent together, for `more` seconds longer than it takes."""
        ends = sorted(last for last, _ in self.renewals.values() if self.at - last >= SILENCE + more)
        least = max(LEAST, ceil(SHARE * len(self.renewals)))
        return any(sum(first <= end < first + TOGETHER for end in ends) >= least for first in ends)

    def all(self, resource: str, namespace: str = "") -> Iterator[Json]:
        """Objects of a resource."""
        return (raw for key, raw in self.objects[resource].items() if not namespace or key[0] == namespace)

    def node(self, called: str) -> Json | None:
        return self.objects["nodes"].get(("", called))

    def drain(self, called: str) -> Json | None:
        """The NodeDrain of a node."""
        return self.objects["nodedrains"].get(("", called))

    def pods_on(self, node: str) -> list[Json]:
        return [pod for pod in self.all("pods") if node_of(pod) == node]

    def room(self, but: str) -> int:
        """How many more pods all other nodes take that are open to new ones, as far as their numbers of pods tell."""
        pods = [p for p in self.all("pods") if not finished(p)]
        free = -sum(not node_of(p) and not deleting(p) for p in pods)
        for node in self.all("nodes"):
            closed = any(t["effect"] != "PreferNoSchedule" for t in node["spec"].get("taints") or ())
            if name(node) != but and is_ready(node) and not closed and not node["spec"].get("unschedulable"):
                there = sum(node_of(p) == name(node) for p in pods)
                free += max(0, int(node["status"].get("allocatable", {}).get("pods", 0)) - there)
        return free

    def policies(self, node: Json) -> list[ReschedulePolicy]:
        """The policy that decides for the node, now and as it was lately; none where none does."""
        found = []
        for then in self.lately("policies", ""):
            fits = [raw for raw in then if selects(raw["spec"].get("nodeSelector") or {}, labels(node))]
            ranked = sorted(fits, key=lambda raw: (-raw["spec"].get("priority", 0), name(raw)))
            found += [ReschedulePolicy.from_object(raw) for raw in ranked[:1]]
        return found

    def gives(self, node: Json) -> bool:
        """Whether single pods may be moved off the node: it is evened out, and no drain has anything on it."""
        drain = self.drain(name(node)) or {}
        record = (drain.get("status") or {}).get("node") or {}
        return not record.get("addedTaints") and any(p.spec.rebalance.enabled for p in self.policies(node))

    def released(self, pod: Json) -> bool:
        """Whether the operator released the pod, and has not returned it."""
        return released(pod) and uid(pod) in self.let_go

    def deployment_of(self, pod: Json) -> Json | None:
        """The Deployment that a pod belongs to, or from which it was released."""
        above = controller(pod)
        found = above.get("uid") if above.get("kind") == "Deployment" else None
        for rs in self.all("replicasets", pod["metadata"]["namespace"]):
            if uid(rs) == above.get("uid"):
                found = controller(rs).get("uid")
        return next((d for d in self.all("deployments") if uid(d) == found), None) if found else None

    def family(self, deployment: Json) -> list[Json]:
        """All its pods, released ones too, but for those that are Terminating."""
        found = self.all("pods", deployment["metadata"]["namespace"])
        return [p for p in found if not deleting(p) and self._is_of(p, deployment)]

    def parted(self, deployment: Json) -> list[Json]:
        """Those of them that were told to end lately, as they were before."""
        found = (pod for at, pod in self._parted if at > self.at - self.lag)
        return [p for p in found if self._is_of(p, deployment)]

    def _is_of(self, pod: Json, deployment: Json) -> bool:
        found = self.deployment_of(pod)
        return found is not None and uid(found) == uid(deployment)

    def failing(self, node: str, policy: ReschedulePolicy, slack: float) -> bool:
        """Whether a failure condition holds, or did lately, and has for its time; `slack` seconds less will do."""
        past = self.past("ready", node)
        ends = [begin for begin, _ in past[1:]] + [self.at]
        for match in policy.spec.failure.conditions:
            statuses = {*match.status, "Unknown"} if "False" in match.status else set(match.status)
            start = float("inf")
            for (begin, status), end in zip(past, ends, strict=True):
                start = min(start, begin) if status in statuses else float("inf")
                held = end - max(start, self.fresh)
                if status in match.status and end >= self.at - self.lag and held + slack >= _secs(match.for_):
                    return True
        return False

    def silence(self, node: str) -> float:
        """For how long the node's Lease has not been renewed, or had not been lately."""
        last, before = self.renewals.get(node, (self.at, self.at))
        return max(self.at - last, last - before if self.at - last <= self.lag else 0)

    def sick(self, node: Json, policy: ReschedulePolicy, cause: str) -> bool:
        """Whether everybody can have seen that the node is unhealthy, for its time or not, because Ready is this.

        A node that is Unknown and whose Lease is renewed is not unreachable.
        """
        drain, born = self.drain(name(node)), seconds(node["metadata"]["creationTimestamp"]) or 0
        starting = self.at - born < _secs(policy.spec.failure.startup_grace)
        if starting and self.born > born + 1 and not (drain and "Failure" in reasons(drain)):
            return False  # who began later cannot know that it was Ready once
        statuses = {status for match in policy.spec.failure.conditions for status in match.status}
        timeout = policy.spec.failure.lease_timeout
        silence = self.at - self.renewals.get(name(node), (self.at, 0))[0]
        if cause == "Unknown" and timeout and silence >= _secs(timeout) + self.lag:
            return True
        renewed = cause == "Unknown" and silence < RENEWED + self.lag
        return cause in statuses and self.lately("ready", name(node)) == [cause] and not renewed


def reasons(drain: Json) -> set[str]:
    """What asks for a drain."""
    return {request["reason"] for request in drain["spec"]["requests"]}


def _secs(span: timedelta) -> float:
    return span.total_seconds()
