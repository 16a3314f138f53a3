"""The history of a drain, and the records of finished drains."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api.conditions import Condition
from rescheduler.api.drains import (
    Blocker,
    BlockerClass,
    NodeDrain,
    NodeDrainStatus,
    NodeRecord,
    PolicyRef,
    RequestReason,
)
from rescheduler.api.field_writers import FieldWriter
from rescheduler.api.history import (
    MAX_RECORDED_PODS,
    BlockedPod,
    DrainHistory,
    DrainRecord,
    Force,
    Move,
    MoveWay,
    Outcome,
)
from rescheduler.api.scalars import dump
from rescheduler.core.drain import history
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision, RequiredProof
from rescheduler.core.model.pods import Owner
from unit import builders
from unit.builders import NOW, pod, release_record

EVICT, DELETE = PodDecision(PodAction.EVICT), PodDecision(PodAction.DELETE)


def blocker(name: str, seconds: int, class_: BlockerClass = BlockerClass.BUDGET_EXHAUSTED) -> Blocker:
    return Blocker(namespace="s", pod=name, class_=class_, since=NOW - timedelta(seconds=seconds))


def drain(**status: Any) -> NodeDrain:
    return builders.drain("n1").model_copy(update={"uid": "d1", "status": NodeDrainStatus(**status)})


def observe(before: NodeDrain, **after: Any) -> DrainHistory:
    conditions = after.pop("conditions", ())
    moves = after.pop("moves", None)
    node = replace(builders.node("n1"), maintenance_writer=FieldWriter("kubectl-annotate", NOW))
    status = before.status.model_copy(update=after)
    return history.observe(status, before, node, conditions=conditions, moves=moves, now=NOW)


def test_history_keeps_the_first_writer_of_each_request() -> None:
    first = observe(drain())
    (requester,) = first.requested_by
    assert (requester.reason, requester.manager, requester.time) == ("Maintenance", "kubectl-annotate", NOW)
    again = history.observe(NodeDrainStatus(), drain(history=first), None, conditions=(), moves=None, now=NOW)
    assert again.requested_by == first.requested_by


def test_blocker_that_ends_is_kept_with_its_duration() -> None:
    before = drain(blockers=(blocker("a", 90), blocker("b", 30)), history=DrainHistory(blocked_seconds=10))
    found = observe(before, blockers=(blocker("b", 30),))
    assert found.blocked == (BlockedPod(namespace="s", pod="a", class_="BudgetExhausted", seconds=90),)
    assert found.blocked_seconds == 100


def test_history_outlives_drained_and_the_proof() -> None:
    fenced = Condition(
        type="Fenced", status="True", reason="Annotation", message="power is off", last_transition_time=NOW
    )
    found = observe(drain(), conditions=(fenced,), drained_at=NOW, started_at=NOW)
    assert (found.proof, found.drained_at) == ("Annotation: power is off", NOW)
    later = observe(drain(history=found), drained_at=None, started_at=None)
    assert (later.proof, later.drained_at, later.started_at) == (found.proof, NOW, NOW)


def test_moves_stay_while_the_pods_are_unknown() -> None:
    moves = (Move(namespace="s", pod="a", way=MoveWay.EVICTED, left_at=NOW),)
    found = observe(drain(), moves=(moves, 7))
    assert (found.moves, found.moves_total) == (moves, 7)
    assert observe(drain(history=found)).moves == moves


@pytest.mark.parametrize(
    ("changes", "sent", "way"),
    [
        ({"released": True}, EVICT, MoveWay.REPLACED_FIRST),
        ({}, EVICT, MoveWay.EVICTED),
        ({"released": True}, DELETE, MoveWay.DELETED),
        ({"evicted": True}, None, MoveWay.EVICTED),
        ({"evicted": True, "released": True}, None, MoveWay.REPLACED_FIRST),
        ({"released": True}, None, MoveWay.LEFT),
        ({}, None, MoveWay.LEFT),
    ],
)
def test_way_is_what_was_asked_for(changes: dict[str, Any], sent: PodDecision | None, way: MoveWay) -> None:
    assert history.way_of(replace(pod(), **changes), sent) is way


@pytest.mark.parametrize(
    ("sent", "force"),
    [
        (EVICT, None),
        (replace(EVICT, required_proof=RequiredProof.BOOT_DEAD), None),
        (replace(DELETE, forced=True), Force.TIMEOUT),
        (replace(DELETE, only_if_unchanged=True), Force.NOT_READY),
        (
            replace(DELETE, required_proof=RequiredProof.NODE_UNREACHABLE, only_if_unchanged=True),
            Force.NODE_UNREACHABLE,
        ),
        (replace(DELETE, required_proof=RequiredProof.BOOT_DEAD, forced=True), Force.BOOT_DEAD),
        (DELETE, Force.SURPLUS),
    ],
)
def test_each_delete_past_a_budget_names_its_force(sent: PodDecision, force: Force | None) -> None:
    assert history.force_of(sent, sent) is force


def test_a_terminating_pod_of_a_dead_boot_is_forced() -> None:
    waits = PodDecision(PodAction.WAIT_TERMINATING, required_proof=RequiredProof.BOOT_DEAD)
    assert history.force_of(None, waits) is Force.BOOT_DEAD
    assert history.force_of(None, PodDecision(PodAction.WAIT_TERMINATING)) is None


def test_owner_is_the_deployment_of_a_replica_set() -> None:
    in_rollout = replace(pod(owner=Owner("ReplicaSet", "web-7d9", "r")), labels={"pod-template-hash": "7d9"})
    assert history.owner_text(in_rollout) == "Deployment/web"
    assert history.owner_text(pod(release_record=release_record())).startswith("Deployment/")
    assert history.owner_text(pod(owner=Owner("ReplicaSet", "bare", "r"))) == "ReplicaSet/bare"
    assert history.owner_text(pod(owner=None)) == ""


def test_blocked_time_of_a_pod_adds_ended_and_present_blockers() -> None:
    ended = BlockedPod(namespace="s", pod="p", class_="Throttled", seconds=5)
    other = BlockedPod(namespace="t", pod="p", class_="Throttled", seconds=50)
    status = NodeDrainStatus(history=DrainHistory(blocked=(ended, ended, other)), blockers=(blocker("p", 20),))
    assert history.blocked_by(pod(), status, NOW) == {"Throttled": 10, "BudgetExhausted": 20}


@pytest.mark.parametrize(
    ("status", "node", "outcome"),
    [
        ({}, "n1", Outcome.NOT_STARTED),
        ({"started_at": NOW}, "n1", Outcome.CANCELLED),
        ({"history": DrainHistory(started_at=NOW)}, "n1", Outcome.CANCELLED),
        ({"history": DrainHistory(started_at=NOW, drained_at=NOW)}, "n1", Outcome.DRAINED),
        ({"started_at": NOW}, "", Outcome.NODE_GONE),
        ({"started_at": NOW, "node": NodeRecord(uid="another")}, "n1", Outcome.NODE_GONE),
    ],
)
def test_outcome_says_how_the_drain_ended(status: dict[str, Any], node: str, outcome: Outcome) -> None:
    assert history.record(drain(**status), builders.node(node) if node else None, NOW).outcome is outcome


def finished(**changes: Any) -> DrainRecord:
    history_so_far = DrainHistory(started_at=NOW)
    status = {"history": history_so_far, "policy": PolicyRef(name="default"), "blockers": (blocker("a", 60),)}
    return history.record(drain(**status), builders.node("n1"), NOW + timedelta(minutes=1)).model_copy(update=changes)


def test_record_counts_the_blockers_that_were_left() -> None:
    assert [pod.seconds for pod in finished().blocked] == [120]
    assert finished().blocked_seconds == 120


def test_a_record_is_one_line_and_is_read_again() -> None:
    text = history.record_text(finished())
    assert "\n" not in text
    assert {"node": "n1", "drainUID": "d1", "policy": "default"}.items() <= json.loads(text).items()
    key = history.record_key(finished())
    assert key == history.record_key(finished(ended_at=NOW + timedelta(hours=1)))  # written again after a crash
    assert history.parse_records({key: text, "README": "x", "20260101T000000Z.bad": "{"}) == [finished()]
    assert history.parse_records({key: text}, nodes=["n2"]) == []


def test_a_record_that_is_there_is_not_written_again() -> None:
    key, text = history.record_key(finished()), history.record_text(finished())
    assert history.changes({}, {key: text}) == {key: text}
    assert history.changes({key: text}, {key: text}) == {}


KEYS = st.datetimes().map(lambda time: f"{time:%Y%m%dT%H%M%SZ}.u") | st.text(max_size=20)


@given(
    st.dictionaries(KEYS, st.text(max_size=8)),
    st.dictionaries(KEYS.filter(lambda key: key.endswith(".u")), st.text(max_size=8)),
)
def test_the_limits_hold_and_foreign_data_stays(data: dict[str, str], added: dict[str, str]) -> None:
    limits = history.MAX_RECORDS, history.MAX_RECORDS_SIZE
    history.MAX_RECORDS, history.MAX_RECORDS_SIZE = 3, 16
    try:
        changed = history.changes(data, added)
    finally:
        history.MAX_RECORDS, history.MAX_RECORDS_SIZE = limits
    after = {key: text for key, text in {**data, **changed}.items() if text is not None}
    ours = {key: text for key, text in after.items() if history._is_record_key(key)}
    assert {key: after.get(key) for key in added} == added
    if changed and ours.keys() - changed.keys():
        assert len(ours) <= 3
        assert sum(map(len, ours.values())) <= 16
    removed = [key for key, text in changed.items() if text is None]
    assert all(history._is_record_key(key) for key in removed)
    kept_old = (ours.keys() & data.keys()) - added.keys()
    assert all(gone < kept for gone in removed for kept in kept_old)


def test_the_largest_record_fits() -> None:
    move = Move(
        namespace="n" * 253,
        pod="p" * 253,
        owner="o" * 571,
        newPod="x" * 253,
        newNode="y" * 253,
        way=MoveWay.REPLACED_FIRST,
        left_at=NOW,
    )
    blocked = BlockedPod(namespace="n" * 253, pod="p" * 253, class_="c" * 63, seconds=10**9)
    largest = finished(moves=(move,) * MAX_RECORDED_PODS, blocked=(blocked,) * MAX_RECORDED_PODS)
    key, text = history.record_key(largest), history.record_text(largest)
    assert history.changes({}, {key: text}) == {key: text}
    assert DrainRecord.model_validate(dump(largest)) == largest


def test_stages_of_a_failover_are_reached_once() -> None:
    failure = builders.drain("n1", age=20, reasons=(RequestReason.FAILURE,))
    after = NodeDrainStatus(history=DrainHistory(started_at=NOW))
    assert history.failover_stages(failure, after, NOW) == [("Started", 20.0)]
    known = failure.model_copy(update={"status": after})
    assert history.failover_stages(known, after, NOW) == []
    assert history.failover_stages(builders.drain("n1", age=20), after, NOW) == []
