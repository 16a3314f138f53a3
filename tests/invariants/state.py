"""The cluster at one revision of its record, and a short history.

No client sees a change at once: the operator may fault on values that were true within the last `lag` seconds.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from datetime import timedelta
from math import ceil
from typing import Any

from invariants.objects import (
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
from rescheduler.core.model.raw import RawObject

MAINTENANCE = "rescheduler.dev/maintenance"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
SILENCE, TOGETHER, SHARE, LEAST = 20.0, 60.0, 0.6, 3
"""A blackout: seconds of silence, seconds between the first and the last silent Lease, their share and least number."""
RENEWED = 11.0
"""Seconds within which a running kubelet renews its Lease."""
_OWNED = ("ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted")
_UNRENEWED = 10.0  # seconds without a renewal, after which the Lease may have expired
_WAVE = 3600.0  # seconds after which the operator forgets that a replacement found a place
_SAME_SECOND = 1.0  # a creation time has whole seconds
_OUTAGE = 15.0
"""Seconds without any write, after which the API server counts as away."""


class RecordedState:
    """Objects by resource and (namespace, name).

    Attributes:
        at: seconds of the epoch.
        fresh: the time from which the view of the nodes is reliable; a blackout ended then.
        renewals: by node, the times of the last renewal of its Lease and of the one before.
        born: when an operator process last started.
        cordoned: by node, whether the operator made its last cordon.
        released_uids: uids of all pods that the operator ever released.
        acted: by node, when the operator last wrote to it or to a pod on it.
        led: since when one operator has held the Lease without a break.
        first_released: by uid of a Deployment, when the operator first released a pod of it.
        returned: uids of Deployments of which the operator returned a released pod.
        refused: by namespace and name of a pod, when a patch of the operator was last refused.
        lost: by uid of a Deployment, when others last removed a released pod of it, and the record of that pod.
    """

    def __init__(self, lag: float) -> None:
        self.lag, self.at, self.fresh, self.born = lag, 0.0, 0.0, 0.0
        self.objects: dict[str, dict[tuple[str, str], RawObject]] = defaultdict(dict)
        self.renewals: dict[str, tuple[float, float]] = {}
        self.cordoned: dict[str, bool] = {}
        self.released_uids: set[str] = set()
        self.acted: dict[str, float] = {}
        self.led = 0.0
        self.first_released: dict[str, float] = {}
        self._placed: dict[str, list[float]] = defaultdict(list)  # by uid of a controller, when it got a node for a pod
        self.returned: set[str] = set()
        self.refused: dict[tuple[str, str], float] = {}
        self.lost: dict[str, tuple[float, RawObject]] = {}
        self._lease = ("", 0.0)  # holder, and time of the last renewal
        self._past: dict[tuple[str, str], list[tuple[float, Any]]] = defaultdict(list)
        self._deleted: list[tuple[float, RawObject]] = []

    def advance(self, change: Change) -> None:
        """Advance to this revision."""
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

    def _take_node(self, raw: RawObject) -> None:
        self._note("ready", name(raw), condition(raw, "Ready").get("status", "Unknown"))
        self._note("cordoned", name(raw), bool(raw["spec"].get("unschedulable")))
        self._note("owned", name(raw), any(has_taint(raw, key) for key in _OWNED))
        self._note("maintenance", name(raw), annotations(raw).get(MAINTENANCE))

    def _take_lease(self, place: Place, change: Change, spec: RawObject) -> None:
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
        """Whether the operator's Lease has no known holder."""
        return self._lease[1] > 0 and (not self._lease[0] or self.at - self._lease[1] > _UNRENEWED)

    def _take_pod(self, before: RawObject | None, raw: RawObject | None) -> None:
        if raw:
            self._note("pod", uid(raw), is_ready(raw))
            self._note("controlled", uid(raw), bool(controller(raw)))
            if before and node_of(raw) and not node_of(before):
                self._placed[controller(raw).get("uid", "")].append(self.at)
        if before and not deleting(before) and (raw is None or deleting(raw)):
            self._deleted = [(at, pod) for at, pod in self._deleted if at > self.at - self.lag]
            self._deleted.append((self.at, before))

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
        """Return all values so far, each with the time from which it held."""
        return self._past[what, key]

    def recent_values(self, what: str, key: str, seconds: float = 0.0) -> list[Any]:
        """Return the current value, and those that ended within `lag` or `seconds`; empty if there was never a value."""
        past = self._past[what, key]
        ends = [*(begin for begin, _ in past[1:]), float("inf")]
        since = self.at - max(self.lag, seconds)
        return [value for (_, value), end in zip(past, ends, strict=False) if end > since]

    def since(self, what: str, key: str, values: Collection[Any]) -> float:
        """Return the time since which the value is one of these without a break; infinity if it is none of them."""
        found = float("inf")
        for begin, value in reversed(self._past[what, key]):
            if value not in values:
                break
            found = begin
        return found

    def blackout(self, more: float = 0.0) -> bool:
        """Whether most Leases stopped together; `more`: seconds on top of the limit."""
        ends = sorted(last for last, _ in self.renewals.values() if self.at - last >= SILENCE + more)
        least = max(LEAST, ceil(SHARE * len(self.renewals)))
        return any(sum(first <= end < first + TOGETHER for end in ends) >= least for first in ends)

    def all(self, resource: str, namespace: str = "") -> Iterator[RawObject]:
        """Yield objects of a resource."""
        return (raw for key, raw in self.objects[resource].items() if not namespace or key[0] == namespace)

    def node(self, called: str) -> RawObject | None:
        return self.objects["nodes"].get(("", called))

    def drain(self, called: str) -> RawObject | None:
        """Return the NodeDrain of a node."""
        return self.objects["nodedrains"].get(("", called))

    def pods_on(self, node: str) -> list[RawObject]:
        return [pod for pod in self.all("pods") if node_of(pod) == node]

    def room(self, but: str) -> int:
        """Return how many more pods the other open nodes take, by their numbers of pods only.

        A node that waits for its own drain is closed: pods that move there would move again.
        """
        pods = [p for p in self.all("pods") if not finished(p)]
        free = -sum(not node_of(p) and not deleting(p) for p in pods)
        for node in self.all("nodes"):
            closed = any(t["effect"] != "PreferNoSchedule" for t in node["spec"].get("taints") or ())
            closed |= self.drain(name(node)) is not None
            if name(node) != but and is_ready(node) and not closed and not node["spec"].get("unschedulable"):
                there = sum(node_of(p) == name(node) for p in pods)
                free += max(0, int(node["status"].get("allocatable", {}).get("pods", 0)) - there)
        return free

    def policies(self, node: RawObject) -> list[ReschedulePolicy]:
        """Return the policies that decide for the node, now or recently; empty if there are none."""
        found = []
        for then in self.recent_values("policies", ""):
            fits = [raw for raw in then if selects(raw["spec"].get("nodeSelector") or {}, labels(node))]
            ranked = sorted(fits, key=lambda raw: (-raw["spec"].get("priority", 0), name(raw)))
            found += [ReschedulePolicy.from_object(raw) for raw in ranked[:1]]
        return found

    def may_migrate(self, node: RawObject) -> bool:
        """Whether single pods may be moved off the node: no drain holds it, and it is rebalanced or has a chain move."""
        drain = self.drain(name(node)) or {}
        record = (drain.get("status") or {}).get("node") or {}
        has_chain_move = any(
            move["node"] == name(node) and move["state"] == "Moving"
            for drain in self.all("nodedrains")
            for move in (drain.get("status") or {}).get("chainMoves") or ()
        )
        is_rebalanced = any(p.spec.rebalance.enabled for p in self.policies(node))
        return not record.get("addedTaints") and (is_rebalanced or has_chain_move)

    def released(self, pod: RawObject) -> bool:
        """Whether the operator released the pod, and has not returned it."""
        return released(pod) and uid(pod) in self.released_uids

    def placements(self, deployment: RawObject) -> int:
        """Return how many pods of a Deployment found a place within the last hour, since its first release."""
        first = self.first_released.get(uid(deployment), self.at)
        since = max(self.at - _WAVE - self.lag, first - _SAME_SECOND)
        owned = (rs for rs in self.all("replicasets") if controller(rs).get("uid") == uid(deployment))
        return sum(at > since for rs in owned for at in self._placed[uid(rs)])

    def deployment_of(self, pod: RawObject) -> RawObject | None:
        """Return the Deployment that owns a pod, or from which the pod was released."""
        above = controller(pod)
        found = above.get("uid") if above.get("kind") == "Deployment" else None
        for rs in self.all("replicasets", pod["metadata"]["namespace"]):
            if uid(rs) == above.get("uid"):
                found = controller(rs).get("uid")
        return next((d for d in self.all("deployments") if uid(d) == found), None) if found else None

    def family(self, deployment: RawObject) -> list[RawObject]:
        """Return all pods of a Deployment, released ones included, except those that are Terminating."""
        found = self.all("pods", deployment["metadata"]["namespace"])
        return [p for p in found if not deleting(p) and self._is_of(p, deployment)]

    def recently_deleted(self, deployment: RawObject) -> list[RawObject]:
        """Return pods of a Deployment that were deleted recently, in their state before."""
        found = (pod for at, pod in self._deleted if at > self.at - self.lag)
        return [p for p in found if self._is_of(p, deployment)]

    def _is_of(self, pod: RawObject, deployment: RawObject) -> bool:
        found = self.deployment_of(pod)
        return found is not None and uid(found) == uid(deployment)

    def failing(self, node: str, policy: ReschedulePolicy, slack: float) -> bool:
        """Whether a failure condition holds for its time, now or recently; `slack`: seconds less that are enough."""
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
        """Return for how many seconds the Lease of the node is silent, now or recently."""
        last, before = self.renewals.get(node, (self.at, self.at))
        return max(self.at - last, last - before if self.at - last <= self.lag else 0)

    def unhealthy(self, node: RawObject, policy: ReschedulePolicy, cause: str) -> bool:
        """Whether every observer can know that the node is unhealthy because of this status of Ready, `for` or not.

        A node that is Unknown and whose Lease is renewed is not unreachable.
        """
        drain, born = self.drain(name(node)), seconds(node["metadata"]["creationTimestamp"]) or 0
        starting = self.at - born < _secs(policy.spec.failure.startup_grace)
        if starting and self.born > born + 1 and not (drain and "Failure" in reasons(drain)):
            return False  # an observer that began later cannot know that the node was Ready once
        statuses = {status for match in policy.spec.failure.conditions for status in match.status}
        timeout = policy.spec.failure.lease_timeout
        silence = self.at - self.renewals.get(name(node), (self.at, 0))[0]
        if cause == "Unknown" and timeout and silence >= _secs(timeout) + self.lag:
            return True
        renewed = cause == "Unknown" and silence < RENEWED + self.lag
        return cause in statuses and self.recent_values("ready", name(node)) == [cause] and not renewed


def reasons(drain: RawObject) -> set[str]:
    """Return the requests of a drain."""
    return {request["reason"] for request in drain["spec"]["requests"]}


def _secs(span: timedelta) -> float:
    return span.total_seconds()
