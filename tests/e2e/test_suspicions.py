"""Silent kubelets: replacements start early and nothing is deleted; silence of many is a blackout."""

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import Site
from harness import ControlPlane, workloads
from harness.observer import Observer
from harness.operators import Operator, install
from harness.waiting import until

GRACE, LEASE = "30s", 20  # a Lease is renewed every 5 s, and suspected long before the node is Unknown
TIMEOUT = "13s"
LASTS = 5  # seconds that a node may be Unknown
_COUNT = itertools.count(1)


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane.start(audit=True, node_monitor_grace_period=GRACE, lease_seconds=LEASE) as made:
        install(made)
        yield made


@pytest.fixture(scope="module")
def running(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    identity: Path = plane.identity_kubeconfig("rescheduler-system", "rescheduler")
    with Operator(identity, tmp_path_factory.mktemp("suspicions") / "operator.log") as process:
        yield process


@pytest.fixture
def own(plane: ControlPlane, running: Operator) -> Iterator[Site]:
    name = f"s{next(_COUNT)}"
    plane.apply(workloads.namespace(name))
    yield Site(plane, Observer(plane.kubeconfig), name)
    plane.kubectl("delete", "rsp", "--all")
    plane.kubectl("delete", "namespace", name, "--wait=false")
    assert running.running, running.tail(40)


def deleted(site: Site) -> list[dict[str, Any]]:
    return [p for p in site.observer.pods(site.name) if "deletionTimestamp" in p["metadata"]]


def reason(site: Site, node: str) -> str:
    return site.observer.progressing(node) or ""


def test_a_silent_node_has_its_replacements_early_and_a_false_alarm_is_undone(own: Site) -> None:
    first, *others = own.nodes(4, own_kwok=True)
    failure = {"leaseTimeout": TIMEOUT, "conditions": [{"type": "Ready", "status": ["Unknown"], "for": "2s"}]}
    own.policy(failure=failure)
    apps = (workloads.deployment("web", 4, own.name, **own.here()), workloads.budget("web", own.name, maxUnavailable=1))
    own.on_first(first, others, *apps)
    before = own.uids()

    own.plane.pause_node(first)
    until(lambda: reason(own, first) == "Suspected", "the suspicion")
    until(lambda: len(own.released()) == 4, "all to be let go at once")
    assert own.observer.node(first)["spec"]["unschedulable"]
    assert not deleted(own)
    own.plane.resume_node(first)
    own.gone(first)
    assert "unschedulable" not in own.observer.node(first)["spec"]
    until(lambda: own.uids() == before, "every original pod, and no other")
    assert not own.released()

    own.plane.fail_node(first)
    until(lambda: reason(own, first) == "Suspected", "the suspicion")
    until(lambda: own.observer.ready(own.name, "web") >= 8, "the replacements, Ready beside the old pods")
    assert not deleted(own)
    until(lambda: {p["metadata"]["uid"] for p in deleted(own)} == before, "the old ones to go once it is Unknown")
    assert own.observer.ready(own.name, "web") == 4
    until(
        lambda: "Ready is Unknown" in (own.observer.drain(first) or {})["spec"]["requests"][0]["message"],
        "the suspicion to be a failure",
    )


def test_when_most_nodes_fall_silent_nothing_is_done_and_every_time_starts_anew(own: Site, running: Operator) -> None:
    """The other nodes of this control plane are gone by now, or their silence would be older."""
    own.plane.kubectl("delete", "nodes", "--all")
    own.plane.kubectl("delete", "leases", "--all", "-n", "kube-node-lease")
    nodes = own.nodes(4, own_kwok=True)
    own.policy(failure={"conditions": [{"type": "Ready", "status": ["Unknown"], "for": f"{LASTS}s"}]})
    own.deploy(workloads.deployment("web", 8, own.name, **own.here()))
    before = {node: own.uids(node) for node in nodes[:3]}
    for node in nodes[:3]:
        own.plane.pause_node(node)
    until(lambda: '"view.blackout"' in running.log.read_text(), "the blackout to be seen")
    own.annotate(nodes[3])
    until(lambda: reason(own, nodes[3]) == "StaleView", "the freeze to be said")
    until(lambda: all(unknown(own, node) > LASTS for node in nodes[:3]), "them to be Unknown for long enough")
    for node in nodes[:3]:
        own.plane.resume_node(node)
    until(lambda: '"view.recovered"' in running.log.read_text(), "the blackout to end")
    own.phase(nodes[3], "Draining", "Drained")
    touched = [n for n in nodes[:3] if own.observer.drain(n) or own.observer.node(n)["spec"].get("unschedulable")]
    assert not touched
    assert {node: own.uids(node) for node in nodes[:3]} == before
    lines = [json.loads(line) for line in running.log.read_text().splitlines() if line.startswith("{")]
    assert not [e for e in lines if e["event"] == "node.cordoned" and e["node"] in nodes[:3]]


def unknown(site: Site, node: str) -> float:
    """Return for how many seconds the node has been Unknown."""
    conditions = site.observer.node(node)["status"]["conditions"]
    since = [c["lastTransitionTime"] for c in conditions if (c["type"], c["status"]) == ("Ready", "Unknown")]
    return (datetime.now(UTC) - datetime.fromisoformat(since[0])).total_seconds() if since else 0
