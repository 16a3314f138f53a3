"""Record the history of a real cluster: every revision of its objects, and which of them the operator wrote.

The watches show the changes, and the audit log shows their requests. The resourceVersion joins the two.
"""

import json
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path

import requests

from harness import ControlPlane
from harness.observer import Observer
from harness.operators import NAMESPACE
from harness.watches import watch_events
from invariants.objects import deleting, uid
from invariants.records import Answer, Call, Change, Place
from rescheduler.core.model.raw import RawObject

_WATCHED = (
    "/api/v1/nodes",
    "/api/v1/pods",
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/replicasets",
    "/apis/apps/v1/statefulsets",
    "/apis/policy/v1/poddisruptionbudgets",
    "/apis/rescheduler.dev/v1alpha1/nodedrains",
    "/apis/rescheduler.dev/v1alpha1/reschedulepolicies",
    "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
    f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases",
)
_TOLD = {path.rsplit("/", 1)[1] for path in _WATCHED} - {"leases"}
_TOGETHER = 2.0  # seconds between a request's end and the observed change
_VERBS = ("create", "update", "patch", "delete")


def _session(plane: ControlPlane) -> requests.Session:
    """Return an HTTP session with the administrator's rights."""
    opened: requests.Session = Observer(plane.kubeconfig).api.session
    return opened


class Recorder:
    """Record until stopped, also over restarts of the API server."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane, self._stopped = plane, threading.Event()
        self._seen: list[tuple[int, float, str, Place, RawObject]] = []  # revision, time, type, place, object
        self._last: dict[str, dict[Place, RawObject]] = {}  # by path: existing objects
        for path in _WATCHED:
            threading.Thread(target=self._follow, args=(path,), daemon=True).start()

    def stop(self) -> None:
        """Stop recording."""
        self._stopped.set()

    def _follow(self, path: str) -> None:
        with _session(self._plane) as session:
            self._follow_with(session, path)

    def _follow_with(self, session: requests.Session, path: str) -> None:
        version = ""
        while not self._stopped.is_set():
            try:
                version = version or self._list(session, path)
                url = f"{self._plane.server}{path}"
                for event in watch_events(session, url, version=version):
                    if event["type"] == "ERROR":  # the watch cannot resume: list all objects again
                        version = ""
                        break
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self._note(event["type"], path, event["object"])
            except (requests.RequestException, KeyError, ValueError):
                time.sleep(0.2)  # the API server is away: the next list shows what was missed

    def _list(self, session: requests.Session, path: str) -> str:
        found = session.get(f"{self._plane.server}{path}", timeout=10).json()
        version, gone = str(found["metadata"]["resourceVersion"]), dict(self._last.get(path, {}))
        kind_fields = {"apiVersion": found["apiVersion"], "kind": found["kind"].removesuffix("List")}
        for item in found["items"]:
            raw = kind_fields | item  # a watch names the kind of each object, a list only once
            gone.pop(self._note("ADDED", path, raw), None)
        for place, raw in gone.items():  # deleted while there was no watch
            self._seen.append((int(version), time.time(), "DELETED", place, raw))
            del self._last[path][place]
        return version

    def _note(self, kind: str, path: str, raw: RawObject) -> Place:
        meta, resource = raw["metadata"], path.rsplit("/", 1)[1]
        place = Place(resource, meta.get("namespace", ""), meta["name"])
        self._seen.append((int(meta["resourceVersion"]), time.time(), kind, place, raw))
        self._last.setdefault(path, {}).pop(place, None)
        if kind != "DELETED":
            self._last[path][place] = raw
        return place

    def changes(self, user: str) -> Iterator[Change | Call | Answer]:
        """Yield the record in order; each request of the user comes before its change, or at its refusal.

        The answer to a request follows it. A dry run has only its answer.
        """
        calls = list(_calls(self._plane.audit_log, user))
        by_revision = {call.revision: call for call in calls if call.revision}
        seen = {revision for revision, *_ in self._seen}
        # A watch may be refused after an outage of the API server: only the next list shows the writes of others.
        missed = [call.row for call in calls if call.place.resource in _TOLD and call.revision not in seen | {0}]
        ends = [call for call in calls if call.ends]
        before: dict[Place, RawObject] = {}
        refused = iter(sorted((call.at, index) for index, call in enumerate(calls)))
        due = next(refused, None)
        for revision, at, kind, place, raw in sorted(self._seen + missed, key=lambda row: row[:2]):
            while due and due[0] <= at:
                yield from calls[due[1]].outcome()
                due = next(refused, None)
            was, now = before.get(place), None if kind == "DELETED" else raw
            if was is not None and now is not None and was["metadata"]["resourceVersion"] == str(revision):
                continue
            found = by_revision.get(revision)
            if found is None or found.place != place:
                call = _ended(ends, place, was, now, at)
            else:
                call = None if found.saw_more_than(was) else found.call
            yield Change(revision, at, place, was, now, call)
            if now is None:
                before.pop(place, None)
            else:
                before[place] = now


class _Audited:
    """A request of the operator, and its result."""

    def __init__(self, event: RawObject) -> None:
        reference, body = event["objectRef"], event.get("requestObject") or {}
        place = Place(
            reference["resource"],
            reference.get("namespace", ""),
            reference.get("name", ""),
            reference.get("subresource", ""),
        )
        answer = event.get("responseObject") or {}
        verb = "evict" if place.subresource == "eviction" else event["verb"]
        if verb == "create" and not place.name:
            place = Place(place.resource, place.namespace, (body.get("metadata") or {}).get("name", ""))
        self.place, self.answer = Place(place.resource, place.namespace, place.name), answer
        dry = "dryRun" in event["requestURI"]
        self.call, self.at = (
            Call(event["user"]["username"], verb, place, body, dry),
            datetime.fromisoformat(event["stageTimestamp"]).timestamp(),
        )
        self.code = int(event["responseStatus"]["code"])
        self.granted = self.code < 300 and not dry
        version = (answer.get("metadata") or {}).get("resourceVersion", "")
        unchanged = (body.get("metadata") or {}).get("resourceVersion") == version  # a patch that changed nothing
        self.revision = int(version) if self.granted and version and verb != "delete" and not unchanged else 0
        options = (body.get("deleteOptions") if verb == "evict" else body) or {}
        self.uid = (options.get("preconditions") or {}).get("uid", "")

    def outcome(self) -> Iterator[Call | Answer]:
        """Yield the record of the request for a checker."""
        if not self.call.dry:
            yield self.call
        yield Answer(self.at, self.call, self.code)

    @property
    def row(self) -> tuple[int, float, str, Place, RawObject]:
        """Return the result of the request in the form of a watch event."""
        return self.revision, self.at, "MODIFIED", self.place, self.answer

    def saw_more_than(self, was: RawObject | None) -> bool:
        """Whether another client wrote in between: the change is not only from this request."""
        version = (self.call.body.get("metadata") or {}).get("resourceVersion", "")
        return was is not None and version not in ("", was["metadata"]["resourceVersion"])

    @property
    def ends(self) -> bool:
        """Whether the request removes the object."""
        return self.granted and self.call.verb in ("evict", "delete")


def _calls(log: Path | None, user: str) -> Iterator[_Audited]:
    for line in (log.read_text() if log else "").splitlines():
        event = json.loads(line)
        mine = event["user"]["username"] == user and event["verb"] in _VERBS and event["stage"] == "ResponseComplete"
        if mine and not _asks(event):
            yield _Audited(event)


def _asks(event: RawObject) -> bool:
    """Whether it is an access review, which writes nothing."""
    return bool(event["objectRef"]["resource"] == "selfsubjectaccessreviews")


def _ended(ends: list[_Audited], place: Place, was: RawObject | None, now: RawObject | None, at: float) -> Call | None:
    """Return the operator's eviction or delete that caused this change."""
    if was is None or deleting(was) or (now is not None and not deleting(now)):
        return None
    for index, audited in zip(count(), ends, strict=False):
        there = audited.call.place
        same = (there.resource, there.namespace, there.name) == (place.resource, place.namespace, place.name)
        if same and audited.uid in ("", uid(was)) and abs(at - audited.at) < _TOGETHER:
            return ends.pop(index).call
    return None
