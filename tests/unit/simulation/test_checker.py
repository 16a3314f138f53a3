"""The checker finds violations in a record, and none in a correct record."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from invariants.checker import Checker
from invariants.objects import MOVE, stamp
from invariants.records import Answer, Call, Change, Place
from invariants.state import RecordedState
from rescheduler.core.model.raw import RawObject

BEGAN = datetime(2026, 1, 5, 10, tzinfo=UTC).timestamp()
OURS = "operator-a"
DEPLOYMENT = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": True}
SET = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-rs", "uid": "r", "controller": True}
RECORD = {"deploymentUID": "d", "replicaSetUID": "r", "ready": 3, "since": "2026-01-05T10:00:00+00:00"}
GENERIC = {"type": "Progressing", "status": "True", "reason": "Draining", "message": "pods are being moved"}


class Record:
    """A record that a checker reads while it is written."""

    def __init__(self) -> None:
        self.checker, self.at = Checker(RecordedState(2.0), frozenset((OURS,))), BEGAN
        self._objects: dict[Place, RawObject] = {}
        self.put("reschedulepolicies", "default", {"spec": {}})
        self.put("deployments", "web", {"spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}}}, uid="d")
        self.put("replicasets", "web-rs", {"spec": {"replicas": 3}}, uid="r", ownerReferences=[DEPLOYMENT])
        self.put("nodes", "n1", {"spec": {"unschedulable": True}, "status": {"conditions": []}})

    @property
    def broken(self) -> str:
        return "\n".join(self.checker.broken)

    def put(self, resource: str, name: str, body: RawObject, *, user: str = "kube", **meta: Any) -> None:
        """Write the current state of an object."""
        space = "shop" if resource in ("pods", "replicasets", "deployments", "poddisruptionbudgets") else ""
        place, began = Place(resource, space, name), stamp(datetime.fromtimestamp(BEGAN, UTC))
        meta = {"name": name, "namespace": space, "uid": name, "creationTimestamp": began, **meta}
        before, after = self._objects.get(place), {**body, "metadata": meta}
        self._objects[place] = after
        self.checker.change(Change(1, self.at, place, before, after, Call(user, "patch", place)))

    def pod(
        self, name: str, *, user: str = "kube", owner: RawObject | None = SET, move: Any = None, **meta: Any
    ) -> None:
        """Write a Ready pod on the node."""
        given = {MOVE: move if isinstance(move, str) else json.dumps(move)} if move else {}
        meta = {"labels": {"app": "web"}, "annotations": given, **meta}
        ready = {"type": "Ready", "status": "True"}
        body = {"spec": {"nodeName": "n1"}, "status": {"phase": "Running", "conditions": [ready]}}
        self.put("pods", name, body, user=user, ownerReferences=[owner] if owner else [], **meta)

    def release(self, name: str, **more: Any) -> None:
        self.pod(name, user=OURS, owner=DEPLOYMENT, move=RECORD, **more)

    def end(self, name: str, user: str, verb: str = "delete") -> None:
        """Delete a pod."""
        place = Place("pods", "shop", name)
        before = self._objects[place]
        after = {**before, "metadata": {**before["metadata"], "deletionTimestamp": "2026-01-05T10:00:30Z"}}
        self._objects[place] = after
        self.checker.change(Change(1, self.at, place, before, after, Call(user, verb, place)))

    def drain(self, progressing: RawObject = GENERIC, *blockers: RawObject, phase: str = "Draining") -> None:
        status = {"phase": phase, "startedAt": "2026-01-05T10:00:00Z", "conditions": [progressing]}
        spec = {"requests": [{"reason": "Manual"}]}
        self.put("nodedrains", "n1", {"spec": spec, "status": {**status, "blockers": list(blockers)}})

    def wait(self, seconds: float) -> None:
        """Let time pass in which only kubelets write."""
        for _ in range(int(seconds / 5)):
            self.at += 5
            self.put("leases", "n1", {"spec": {"renewTime": str(self.at)}})

    def answer(self, code: int, *, dry: bool = False) -> None:
        call = Call(OURS, "evict", Place("pods", "shop", "web-1", "eviction"), dry=dry)
        self.checker.answer(Answer(self.at, call, code))


def held(reason: str) -> RawObject:
    return {"type": "Progressing", "status": "False", "reason": reason, "message": "because"}


def blocker(class_: str) -> RawObject:
    return {"namespace": "shop", "pod": "web-1", "class": class_, "message": "because", "hint": "do"}


def budget(record: Record, allowed: int) -> None:
    spec = {"selector": {"matchLabels": {"app": "web"}}}
    record.put("poddisruptionbudgets", "web", {"spec": spec, "status": {"disruptionsAllowed": allowed}})


def test_a_drain_that_waits_for_more_than_a_minute_and_names_no_cause_is_found() -> None:
    record = Record()
    record.drain()
    record.wait(60)
    assert record.broken == ""
    record.wait(60)
    assert "NodeDrain n1 waits without a reported reason" in record.broken


def test_a_drain_with_a_pod_on_its_way_is_not_silent() -> None:
    record = Record()
    record.pod("web-1")
    record.drain()
    record.release("web-1")
    record.wait(300)  # twice the replacementTimeout is 10 minutes
    assert record.broken == ""
    record.wait(600)
    assert "waits without a reported reason" in record.broken


def test_a_cause_in_a_condition_or_a_blocker_will_do() -> None:
    for status in ((held("Gated"),), (GENERIC, blocker("ReplacementNotReady"))):
        record = Record()
        record.pod("web-1")
        record.drain(*status)
        record.wait(600)
        assert record.broken == ""


def test_a_drain_of_which_nobody_could_write_the_status_is_not_silent() -> None:
    record = Record()
    record.drain()
    for _ in range(20):
        record.wait(30)
        record.checker.answer(Answer(record.at, Call(OURS, "patch", Place("nodedrains", "", "n1", "status")), 500))
    assert record.broken == ""


@pytest.mark.parametrize("reason", ["NoPolicy", "Suspended", "Audit", "MaxConcurrent", "OwnedElsewhere", "Storm"])
def test_a_reason_that_is_not_so_is_found(reason: str) -> None:
    record = Record()
    record.drain(held(reason))
    record.wait(120)
    assert f"names {reason}, which is not true" in record.broken


@pytest.mark.parametrize("class_", ["BudgetExhausted", "Unmanaged", "AdmissionDenied", "DoNotDisrupt", "NoRoomInPool"])
def test_a_blocker_that_is_none_is_found(class_: str) -> None:
    record = Record()
    record.pod("web-1")
    budget(record, 1)
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"pods": "10"}}
    record.put("nodes", "n2", {"spec": {}, "status": ready})
    record.drain(GENERIC, blocker(class_))
    record.wait(200)
    assert f"names a blocker {class_} that does not block" in record.broken


def test_a_blocker_of_a_pod_that_was_never_released_holds_no_restore() -> None:
    record = Record()
    record.pod("web-1")
    budget(record, 0)
    record.drain(GENERIC, blocker("BudgetExhausted"), phase="Restoring")
    record.wait(200)
    assert "names a blocker that holds no restore" in record.broken


def test_a_blocker_that_is_one_is_not() -> None:
    record = Record()
    record.pod("web-1")
    budget(record, 0)
    record.drain(GENERIC, blocker("BudgetExhausted"))
    record.wait(200)
    assert record.broken == ""


def test_what_is_refused_may_be_tried_fast_at_first_and_twice_a_minute_then() -> None:
    record = Record()
    for pause in (0, 0, 5, 5, 5, 5, 15, 15, *([30] * 20)):
        record.wait(pause)
        record.answer(429)
    assert record.broken == ""
    for _ in range(2):
        record.wait(10)
        record.answer(429)
    assert "is refused 4 times within a minute" in record.broken


def test_what_is_asked_hot_is_found_though_it_is_only_asked() -> None:
    record = Record()
    for _ in range(41):
        record.answer(201, dry=True)
    assert "is sent 41 times within 10 s" in record.broken


@pytest.mark.parametrize("forged", [RECORD, {**RECORD, "ready": "x"}, "[" * 5000])
def test_a_record_that_somebody_else_wrote_lets_no_pod_go(forged: Any) -> None:
    record = Record()
    record.pod("web-1", owner=DEPLOYMENT, move=forged)
    record.end("web-1", OURS, "evict")
    assert "ends a pod of a node without a drain" in record.broken


def test_a_pod_may_be_handed_to_the_deployment_of_its_set_and_back() -> None:
    record = Record()
    record.pod("web-1")
    record.drain()
    record.release("web-1")
    record.pod("web-1", user=OURS, move=RECORD)
    assert record.broken == ""


@pytest.mark.parametrize("owner", [None, {**DEPLOYMENT, "uid": "another"}, {**SET, "uid": "another"}])
def test_a_pod_may_be_handed_to_nobody_else(owner: RawObject | None) -> None:
    record = Record()
    record.pod("web-1")
    record.drain()
    record.pod("web-1", user=OURS, owner=owner, move=RECORD)
    assert "changes metadata.ownerReferences" in record.broken


def test_a_pod_that_was_never_released_is_not_written() -> None:
    record = Record()
    record.pod("web-1", move=RECORD)
    record.pod("web-1", user=OURS)
    assert "writes on a pod that it never released" in record.broken


def test_no_second_pod_is_released_after_one_that_somebody_else_took_away() -> None:
    record = Record()
    for name in ("web-1", "web-2", "web-3"):
        record.pod(name)
    record.drain()
    record.release("web-1")
    record.end("web-1", "reaper")
    record.wait(10)
    record.release("web-2")
    assert "releases a pod while 2 are Ready, and 3 were at the first release" in record.broken


def test_after_an_eviction_of_ours_the_next_may_be_released() -> None:
    record = Record()
    for name in ("web-1", "web-2", "web-3"):
        record.pod(name)
    record.drain()
    record.release("web-1")
    record.pod("web-4")
    record.end("web-1", OURS, "evict")
    record.wait(10)
    record.release("web-2")
    assert record.broken == ""


def test_records_are_told_apart_by_user() -> None:
    record = Record()
    for _ in range(100):
        call = Call("somebody", "evict", Place("pods", "shop", "web-1", "eviction"))
        record.checker.answer(Answer(record.at, call, 429))
    assert record.broken == ""
