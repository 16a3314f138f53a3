"""Problems of drains: the worst first, and those that many drains share only once."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rescheduler.cli.operator_lease import Leader
from rescheduler.cli.problems import Problem, find_problems, holds_slot, slot_lines
from rescheduler.core.eligibility.concurrency import BLOCKED_KEEPS_SLOT_FOR
from rescheduler.core.model.raw import RawObject
from unit.builders import raw_drain

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LEADER = [Leader("rescheduler-system", "pod-0", current=True)]


def ago(**span: float) -> str:
    return (NOW - timedelta(**span)).strftime("%Y-%m-%dT%H:%M:%SZ")


def drain(
    name: str, phase: str, reason: str = "", message: str = "m", since: str = ago(minutes=4), **status: Any
) -> RawObject:
    progressing = {"type": "Progressing", "status": "False", "reason": reason or phase, "message": message}
    blocked = {"type": "Blocked", "status": str(phase == "Blocked"), "lastTransitionTime": since}
    conditions = [{**progressing, "lastTransitionTime": since}, blocked]
    found = {"phase": phase, "observedGeneration": 1, "policy": {"name": "p"}, "conditions": conditions, **status}
    raw = raw_drain(requests=[{"reason": "Manual"}], status=found)
    meta = {**raw["metadata"], "name": name, "generation": 1, "creationTimestamp": ago(hours=1)}
    return {**raw, "metadata": meta, "spec": {**raw["spec"], "nodeName": name}}


def blocker(pod: str, **span: float) -> dict[str, Any]:
    return {"namespace": "shop", "pod": pod, "class": "Unmanaged", "message": "m", "since": ago(**span), "hint": "h"}


def texts(*drains: RawObject) -> list[str]:
    return [problem.text for problem in find_problems(drains, LEADER, NOW)]


def test_the_oldest_blockers_come_first_and_drains_that_wait_after_them() -> None:
    one = drain("a", "Blocked", blockers=[blocker("young", minutes=1)], blockersTotal=1)
    two = drain("b", "Blocked", blockers=[blocker("old", hours=2)], blockersTotal=1)
    queue = [drain(f"q{number}", "Waiting", "MaxConcurrent", "2 is taken by a, b") for number in range(3)]
    window = drain("w", "Waiting", "Window", "opens later", since=ago(hours=3))
    assert texts(*queue, one, window, two) == [
        "b: shop/old cannot leave: Unmanaged for 2h: m",
        "a: shop/young cannot leave: Unmanaged for 1m: m",
        "w: waits for 3h: Window: opens later",
        "q0, q1, q2: wait for 4m: MaxConcurrent: 2 is taken by a, b",
    ]


def test_many_blockers_are_counted() -> None:
    found = texts(drain("a", "Blocked", blockers=[blocker(f"p{n}", minutes=n) for n in range(50)], blockersTotal=70))
    assert len(found) == 11
    assert "shop/p49" in found[0]
    assert found[-1] == "60 more pods are blocked"


def test_an_operator_that_does_not_work_is_the_worst_problem() -> None:
    unread = drain("a", "", observedGeneration=0)
    found = find_problems([unread], [Leader("x", "y", current=False)], NOW)
    assert [problem.severe for problem in found] == [True, True]
    assert found[0].text.startswith("no operator is running")
    assert found[1].text == "a: the operator has not read the NodeDrain"
    assert find_problems([], None, NOW) == []


def test_a_drain_that_waits_for_a_gate_names_the_command() -> None:
    (found,) = find_problems([drain("a", "Waiting", "Gated", "x is not True")], LEADER, NOW)
    assert found == Problem(
        "a: waits for 4m: Gated: x is not True",
        "if the drain may begin, approve its gate: kubectl reschedule approve a GATE",
    )


def test_restores_timeouts_and_pods_that_wait_for_their_node_are_problems() -> None:
    restoring = drain("r", "Restoring", "Restoring", "the node is not restored yet: x")
    restoring["metadata"]["deletionTimestamp"] = ago(minutes=2)
    fresh = drain("f", "Restoring", "Restoring")
    fresh["metadata"]["deletionTimestamp"] = ago(seconds=5)
    late = drain("t", "Draining", "TimedOut", "the timeout has passed")
    waiting = drain("d", "Drained", waitsForNode=["rook/osd-0"])
    assert texts(restoring, fresh, late, waiting) == [
        "r: is being restored for 2m: the node is not restored yet: x",
        "t: TimedOut: the timeout has passed",
        "d: 1 pod can run on this node only, and its new pod waits for the node: rook/osd-0",
    ]


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        (drain("a", "Draining", startedAt=ago(minutes=1)), True),
        (drain("a", "Draining"), False),
        (drain("a", "Waiting", "MaxConcurrent", startedAt=ago(minutes=1)), False),
        (drain("a", "Drained", startedAt=ago(minutes=1), drainedAt=ago()), False),
        (drain("a", "Blocked", startedAt=ago(hours=1), since=ago(seconds=299)), True),
        (drain("a", "Blocked", startedAt=ago(hours=1), since=ago(seconds=300)), False),
    ],
)
def test_a_drain_holds_a_slot_from_its_start_until_it_is_drained_or_gives_up(found: RawObject, holds: bool) -> None:
    assert BLOCKED_KEEPS_SLOT_FOR.total_seconds() == 300
    assert holds_slot(found, NOW) is holds


def test_a_drain_of_a_failed_node_takes_no_slot() -> None:
    found = drain("a", "Draining", startedAt=ago(minutes=1))
    found["spec"]["requests"] = [{"reason": "Failure"}]
    assert not holds_slot(found, NOW)


def test_slots_name_their_holders_and_the_queue() -> None:
    drains = [
        drain("b", "Draining", startedAt=ago(minutes=1)),
        drain("a", "Draining", startedAt=ago(minutes=2)),
        drain("q", "Waiting", "MaxConcurrent"),
        drain("w", "Waiting", "Window"),
    ]
    assert slot_lines(drains, NOW) == ["slots of ReschedulePolicy p: held by a (2m), b (1m); waiting for one: q"]
