"""Stopped, killed and paused processes: operators, API server, etcd, and the controllers."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest

from harness.fault_lab import SPACE, USER, FaultLab
from harness.operators import NAMESPACE, Operator
from harness.waiting import until
from harness.wire_faults import FAULTS


def moved(lab: FaultLab, node: str) -> int:
    """Return how many pods the drain has moved."""
    status = (lab.observer.drain(node) or {}).get("status", {})
    return int(status.get("pods", {}).get("moved", 0))


def begin(lab: FaultLab) -> str:
    """Request the drain of the busiest node; return the node when a pod has left it."""
    node = lab.busiest()
    lab.annotate(node)
    until(lambda: moved(lab, node), lambda: lab.drain_status(node))
    return node


def holder(lab: FaultLab) -> str:
    lease = lab.plane.get("lease", "rescheduler", "-n", NAMESPACE)
    return str(lease["spec"].get("holderIdentity") or "")


@contextmanager
def paused(operator: Operator) -> Iterator[None]:
    os.kill(operator.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(operator.pid, signal.SIGCONT)


def test_sigterm_in_the_middle_ends_the_process_within_seconds_and_the_next_one_finishes(quiet: FaultLab) -> None:
    first = quiet.operator(name="first")
    with quiet.judged():
        node = begin(quiet)
        began = time.monotonic()
        assert first.stop() == 0
        assert time.monotonic() - began < 10
        assert holder(quiet) == ""
        quiet.operator(name="second")
        quiet.drained(node)
        quiet.restored(node)


def test_a_leader_that_was_paused_writes_nothing_after_another_one_leads(quiet: FaultLab) -> None:
    """The Lease expires while the leader is paused, in the middle of a drain; the zombie must notice that first."""
    first = quiet.operator(name="zombie")
    quiet.leads(first)
    second = quiet.operator(name="heir")
    with quiet.judged(first):
        node = begin(quiet)
        with paused(first):
            until(lambda: holder(quiet) == "heir", "the other one to lead", seconds=60)
            time.sleep(3)
        quiet.drained(node)
        until(lambda: '"leader.lost"' in first.log.read_text(), "the first one to notice")
        quiet.restored(node)
    assert second.running
    assert late_writes(quiet, "zombie", "heir") == []


def late_writes(lab: FaultLab, loser: str, winner: str) -> list[str]:
    """Return granted writes of the loser after the winner took the Lease; each operator has a token of its own."""
    assert lab.plane.audit_log is not None
    events = [json.loads(line) for line in lab.plane.audit_log.read_text().splitlines()]
    ours = [e for e in events if e["user"]["username"] == USER and e["verb"] in ("create", "update", "patch", "delete")]
    ours.sort(key=lambda event: event["requestReceivedTimestamp"])
    tokens: dict[str, str] = {}
    taken = float("inf")
    for event in ours:
        spec = (event.get("requestObject") or {}).get("spec") or {}
        if event["objectRef"].get("name") == "rescheduler" and event["responseStatus"]["code"] < 300:
            tokens[spec.get("holderIdentity", "")] = credential(event)
            if spec.get("holderIdentity") == winner:
                taken = min(taken, at(event["stageTimestamp"]))
    return [
        f"{event['verb']} {event['requestURI']}"
        for event in ours
        if credential(event) == tokens[loser]
        and event["objectRef"]["resource"] not in ("leases", "events", "selfsubjectaccessreviews")
        and event["responseStatus"]["code"] < 300
        and at(event["requestReceivedTimestamp"]) > taken
    ]


def credential(event: dict[str, object]) -> str:
    user = event["user"]
    assert isinstance(user, dict)
    return str(user.get("extra", {}).get("authentication.kubernetes.io/credential-id"))


def at(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


@pytest.mark.parametrize("program", ["kube-apiserver", "etcd"])
def test_a_server_that_hangs_costs_the_lease_and_ends_nothing(program: str, quiet: FaultLab) -> None:
    operator = quiet.operator(name=program)
    with quiet.judged(operator):
        node = begin(quiet)
        with quiet.plane.paused(program):
            until(lambda: '"leader.lost"' in operator.log.read_text(), "the Lease to run out", seconds=60)
        quiet.late = 60.0
        quiet.drained(node, seconds=180)
        quiet.restored(node)


@pytest.mark.parametrize("program", ["kube-controller-manager", "kube-scheduler"])
def test_without_controllers_or_a_scheduler_no_ready_pod_is_lost(program: str, quiet: FaultLab) -> None:
    operator = quiet.operator(name=program)
    with quiet.judged(operator):
        quiet.drain_during(quiet.plane.paused(program), lasts=15, seconds=180)


def test_an_operator_that_is_cut_off_is_replaced_by_the_other_one(quiet: FaultLab) -> None:
    proxy = quiet.proxy()
    cut = quiet.operator(proxy, name="cut")
    quiet.leads(cut)
    quiet.operator(name="other")
    with quiet.judged(cut):
        node = begin(quiet)
        with proxy.fault(FAULTS["partition"]):
            quiet.drained(node)
            assert holder(quiet) == "other"
        quiet.restored(node)
        until(lambda: cut.probe("readyz") == 200, "the other one to be ready again", seconds=120)
    assert [pod for pod in quiet.observer.pods(SPACE) if pod["metadata"]["labels"]["app"] == "single"]


def test_killed_again_and_again_it_ends_the_drain(quiet: FaultLab) -> None:
    operator = quiet.operator(name="killed")
    with quiet.judged():
        node = begin(quiet)
        for _ in range(4):
            operator.kill()
            quiet.start(operator)
            time.sleep(2)
        quiet.drained(node)
        quiet.restored(node)
