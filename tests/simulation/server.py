"""The API server: objects, one resourceVersion for all, preconditions, finalizers, and watches that expire.

A stored object is never changed in place: a client that holds an object keeps its old state.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from invariants.objects import copied, name, stamp
from invariants.records import Answer, Call, Change, Place
from rescheduler.core.model.raw import RawObject
from simulation import evictions
from simulation.admission import Policy
from simulation.patches import merged, strategic
from simulation.refusals import RefusedError

_KINDS = (
    *(
        "nodes",
        "pods",
        "namespaces",
        "services",
        "events",
        "leases",
        "configmaps",
        "deployments",
        "replicasets",
        "statefulsets",
    ),
    *("daemonsets", "poddisruptionbudgets", "networkpolicies", "persistentvolumeclaims", "persistentvolumes"),
    *("volumeattachments", "reschedulepolicies", "nodedrains", "namespacepools"),
)
_REMEMBERED = 3000
"""Revisions that a watch may resume from."""
_LONGEST_GRACE = 10**9
_NAMES = {"reschedulepolicies": "ReschedulePolicy", "nodedrains": "NodeDrain", "pods": "Pod", "nodes": "Node"}


def _over(before: RawObject | None, after: RawObject) -> bool:
    """Whether an object that is being deleted has lost its last finalizer."""
    ends = "deletionTimestamp" in after["metadata"] and before is not None
    return bool(ends and (before or {})["metadata"].get("finalizers")) and not after["metadata"].get("finalizers")


@dataclass(slots=True, eq=False)
class Stream:
    """A watch: the changes since the last read."""

    fits: Callable[[RawObject], bool]
    place: Place
    waiting: deque[tuple[str, RawObject]] = field(default_factory=deque)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, change: Change) -> None:
        """Add a change; an object that begins to match is added, and one that stops matching is deleted."""
        place, mine = change.place, self.place
        if place.resource != mine.resource or (mine.namespace and mine.namespace != place.namespace):
            return
        was = change.before is not None and self.fits(change.before)
        fits = change.after is not None and self.fits(change.after)
        if not was and not fits:
            return
        kind = "DELETED" if not fits else "MODIFIED" if was else "ADDED"
        gone = {**(change.before or {})}
        gone["metadata"] = {**gone.get("metadata", {}), "resourceVersion": str(change.revision)}
        self.waiting.append((kind, (change.after or gone) if fits else gone))
        self.news.set()

    def take(self) -> list[tuple[str, RawObject]]:
        """Return the changes so far, and forget them."""
        taken = list(self.waiting)
        self.waiting.clear()
        return taken


class Server:
    """The API server in memory.

    Attributes:
        checkers: called with every request before the server reads it, and with every change.
        policies: admission of others.
        answered: called with each answer to a client's write, dry runs included.
        never: what requests of dead processes wait for; it is never set.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.version, self.away = 1, False
        self.checkers: list[Any] = []
        self.never = asyncio.Event()
        self.policies: list[Policy] = []
        self.answered: list[Callable[[Answer], None]] = []
        self.listeners: dict[str, list[Callable[[Change], None]]] = {}
        self._objects: dict[str, dict[tuple[str, str], RawObject]] = {resource: {} for resource in _KINDS}
        self._history: deque[Change] = deque(maxlen=_REMEMBERED)
        self._streams: dict[Stream, None] = {}  # ordered: a seed must make the same run each time
        self._born = 0

    # -- for controllers ------------------------------------------------------------------------------------------

    def all(self, resource: str, namespace: str = "") -> list[RawObject]:
        """Return the stored objects, which must not be changed."""
        found = self._objects[resource]
        return [raw for key, raw in found.items() if not namespace or key[0] == namespace]

    def find(self, resource: str, name: str, namespace: str = "") -> RawObject | None:
        """Return an object; None if it does not exist."""
        return self._objects[resource].get((namespace, name))

    def make(self, resource: str, body: RawObject, *, user: str = "kube") -> RawObject:
        """Create an object."""
        meta = body["metadata"]
        place = Place(resource, meta.get("namespace", ""), meta["name"])
        return self._create(Call(user, "create", place, body))

    def edit(
        self, resource: str, raw: RawObject, change: Callable[[dict[str, Any]], object], *, user: str = "kube"
    ) -> RawObject | None:
        """Change an object in its current state; None if it is gone, or if a policy refuses."""
        place = Place(resource, raw["metadata"].get("namespace", ""), name(raw))
        now = self._objects[resource].get((place.namespace, place.name))
        if now is None or now["metadata"]["uid"] != raw["metadata"]["uid"]:
            return None
        after = copied(now)
        change(after)
        try:
            return self._commit(Call(user, "update", place), now, after)
        except RefusedError:
            return None

    def remove(self, resource: str, raw: RawObject, *, grace: int | None = None, user: str = "kube") -> None:
        """Delete an object; a pod on a node only becomes Terminating, unless grace is 0."""
        place = Place(resource, raw["metadata"].get("namespace", ""), name(raw))
        options: RawObject = {} if grace is None else {"gracePeriodSeconds": grace}
        now = self.find(resource, place.name, place.namespace)
        if now and now["metadata"]["uid"] == raw["metadata"]["uid"]:
            with contextlib.suppress(RefusedError):
                self._delete(Call(user, "delete", place, options), now)

    # -- for clients ----------------------------------------------------------------------------------------------

    def request(self, user: str, method: str, target: str, query: Mapping[str, Any], body: Any, kind: str) -> RawObject:
        """Answer a request of a client at once. Raises RefusedError."""
        path, _, more = target.partition("?")
        place, body = Place.parse(path), json.loads(json.dumps(body)) if body is not None else {}
        if method == "GET" and not place.resource:
            return {"resources": []}  # a group that this server does not have
        if place.resource not in _KINDS:
            raise RefusedError(404, "the server could not find the requested resource")
        if method == "GET":
            return copied(self._existing(place)) if place.name else self._list(place, query)
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[method]
        call = Call(user, "evict" if place.subresource == "eviction" else verb, place, body, "dryRun" in more)
        if not call.dry:
            for checker in self.checkers:
                checker.call(call)
        try:
            answer = self._written(call, kind)
        except RefusedError as no:
            self._answered(call, no.refusal.code)
            raise
        self._answered(call, 200)
        reply: RawObject = copied(answer)
        return reply

    def _answered(self, call: Call, code: int) -> None:
        for each in self.answered:
            each(Answer(self.now().timestamp(), call, code))

    def _written(self, call: Call, kind: str) -> RawObject:
        if call.verb == "create":
            place = replace(call.place, name=call.body["metadata"]["name"])
            return self._create(replace(call, place=place))
        now = self._existing(call.place)
        if call.verb == "evict":
            return self._evict(call, now)
        if call.verb == "delete":
            return self._delete(call, now)
        meta = call.body.get("metadata") or {}
        if meta.get("resourceVersion", now["metadata"]["resourceVersion"]) != now["metadata"]["resourceVersion"]:
            raise RefusedError(409, f"Operation cannot be fulfilled on {call.place}: the object has been modified")
        if meta.get("uid", now["metadata"]["uid"]) != now["metadata"]["uid"]:
            raise RefusedError(409, f"Precondition failed: UID in precondition: {meta['uid']}")
        if call.verb == "update":
            after = copied(call.body)
        else:
            after = strategic(now, call.body) if "strategic" in kind else merged(now, call.body)
        if call.place.subresource == "status":
            after = {**copied(now), "status": after.get("status", {})}
        elif call.place.resource == "nodedrains":
            after["status"] = copied(now.get("status", {}))
        return self._commit(call, now, after)

    def _existing(self, place: Place) -> RawObject:
        found = self._objects[place.resource].get((place.namespace, place.name))
        if found is None:
            raise RefusedError(404, f"{place} not found")
        return found

    def _list(self, place: Place, query: Mapping[str, Any]) -> RawObject:
        fits = selector_filter(query)
        items = [raw for raw in self.all(place.resource, place.namespace) if fits(raw)]
        return {"metadata": {"resourceVersion": str(self.version)}, "items": items}

    def open(self, path: str, query: Mapping[str, Any], version: int) -> Stream:
        """Open a watch from a version on. Raises RefusedError (410) if the version is too old."""
        stream = Stream(selector_filter(query), Place.parse(path))
        if self._history and version < self._history[0].revision - 1:
            raise RefusedError(410, "too old resource version")
        for change in self._history:
            if change.revision > version:
                stream.offer(change)
        self._streams[stream] = None
        return stream

    def close(self, stream: Stream) -> None:
        """Close the watch."""
        self._streams.pop(stream, None)

    # -- writes ---------------------------------------------------------------------------------------------------

    def _create(self, call: Call) -> RawObject:
        place = call.place
        if (place.namespace, place.name) in self._objects[place.resource]:
            raise RefusedError(409, f"{place} already exists")
        body, self._born = copied(call.body), self._born + 1
        meta = {"creationTimestamp": stamp(self.now()), "generation": 1, **body["metadata"]}
        meta |= {"namespace": place.namespace} if place.namespace else {}
        body.setdefault("status", {})
        body["metadata"] = {**meta, "uid": f"{place.resource}-{place.name}-{self._born}"}
        return self._commit(replace(call, place=place), None, body)

    def _delete(self, call: Call, now: RawObject) -> RawObject:
        wanted, meta = call.body.get("preconditions") or {}, now["metadata"]
        for key in ("uid", "resourceVersion"):
            if wanted.get(key, meta[key]) != meta[key]:
                raise RefusedError(409, f"Precondition failed: {key} in precondition: {wanted[key]}")
        after = copied(now)
        if call.place.resource == "pods" and now["spec"].get("nodeName"):
            own = now["spec"].get("terminationGracePeriodSeconds", 30)
            grace = min(call.body.get("gracePeriodSeconds", own), _LONGEST_GRACE)
            if grace and ("deletionTimestamp" not in meta or grace < meta["deletionGracePeriodSeconds"]):
                ends = self.now() + timedelta(seconds=grace)
                after["metadata"] |= {"deletionTimestamp": stamp(ends), "deletionGracePeriodSeconds": grace}
            if grace:
                return self._commit(call, now, after)
        elif meta.get("finalizers"):
            after["metadata"].setdefault("deletionTimestamp", stamp(self.now()))
            return self._commit(call, now, after)
        self._commit(call, now, None)
        return {"kind": "Status", "status": "Success"}

    def _evict(self, call: Call, pod: RawObject) -> RawObject:
        self._admit(call, pod, None)
        budget = evictions.budget_to_spend(pod, self.all("poddisruptionbudgets", call.place.namespace))
        if not call.dry:
            if budget:
                self.edit("poddisruptionbudgets", budget, lambda raw: self._spend(raw, pod), user="apiserver")
            place = replace(call.place, subresource="")
            self._delete(replace(call, place=place, body=call.body.get("deleteOptions") or {}), pod)
        return {"kind": "Status", "status": "Success"}

    def _spend(self, budget: RawObject, pod: RawObject) -> None:
        budget["status"]["disruptionsAllowed"] -= 1
        budget["status"].setdefault("disruptedPods", {})[name(pod)] = stamp(self.now())

    def _commit(self, call: Call, before: RawObject | None, after: dict[str, Any] | None) -> RawObject:
        place = replace(call.place, subresource="")
        if after is not None:
            if after == before:
                if call.verb in ("evict", "delete"):
                    self._report_change(Change(self.version, self.now().timestamp(), place, before, after, call))
                return after
            after = None if _over(before, after) else after
        if call.verb != "evict":
            self._admit(call, before, after)
        if call.dry:
            return after or {"kind": "Status", "status": "Success"}
        self.version += 1
        key = (place.namespace, place.name)
        if after is None:
            del self._objects[place.resource][key]
        else:
            after["metadata"]["resourceVersion"] = str(self.version)
            if before and before.get("spec") != after.get("spec"):
                after["metadata"]["generation"] = before["metadata"]["generation"] + 1
            after.setdefault("kind", _NAMES.get(place.resource, place.resource))
            self._objects[place.resource][key] = after
        change = Change(self.version, self.now().timestamp(), place, before, after, call)
        self._history.append(change)
        self._report_change(change)
        for stream in list(self._streams):
            stream.offer(change)
        for listener in self.listeners.get(place.resource, ()):
            listener(change)
        return after or {"kind": "Status", "status": "Success"}

    def _admit(self, call: Call, before: RawObject | None, after: RawObject | None) -> None:
        for policy in self.policies:
            policy(call, before, after)

    def _report_change(self, change: Change) -> None:
        for checker in self.checkers:
            checker.change(change)


_FIELDS = ("spec.nodeName", "status.phase", "metadata.name")


def selector_filter(query: Mapping[str, Any]) -> Callable[[RawObject], bool]:
    """Return the filter of a list or watch.

    It supports `key=value` and `key!=value`, in field selectors only for node, phase and name. Nothing else.
    """
    fields, wanted_labels = _selector_terms(query, "fieldSelector"), _selector_terms(query, "labelSelector")
    if any(key not in _FIELDS for key, _, _ in fields):
        raise NotImplementedError(query)

    def fits(raw: RawObject) -> bool:
        for key, value, differs in fields:
            part, _, field = key.partition(".")
            if ((raw.get(part) or {}).get(field, "") == value) is differs:
                return False
        found = raw["metadata"].get("labels") or {}
        return all((found.get(key) == value) is not differs for key, value, differs in wanted_labels)

    return fits


def _selector_terms(query: Mapping[str, Any], parameter: str) -> list[tuple[str, str, bool]]:
    """Return key and value of each term of a selector, and whether the value must differ."""
    terms = [term for term in query.get(parameter, "").split(",") if term]
    if any("=" not in term or "(" in term for term in terms):
        raise NotImplementedError(query)
    parts = [term.partition("=") for term in terms]
    return [(key.removesuffix("!"), value, key.endswith("!")) for key, _, value in parts]
