"""Two drains in a deadlock; after a restart they continue from their status."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import Site
from harness import ControlPlane, workloads
from harness.observer import Observer
from harness.operators import Operator, install
from harness.waiting import until

APART = {
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchExpressions": []}}
        ]
    }
}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """Yield a control plane whose operator the tests start after the preparation."""
    with ControlPlane.start() as made:
        yield made


@pytest.fixture(scope="module")
def identity(plane: ControlPlane) -> Path:
    return install(plane)


def ago(minutes: int) -> str:
    return f"{datetime.now(UTC) - timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"


def blocked(site: Site, node: str, budget: str, *, minutes: int) -> None:
    """Write the NodeDrain of a node that has been Blocked by this budget for nine minutes."""
    uid = site.observer.node(node)["metadata"]["uid"]
    body = {
        "apiVersion": "rescheduler.dev/v1alpha1",
        "kind": "NodeDrain",
        "metadata": {"name": node},
        "spec": {"nodeName": node, "requests": [{"reason": "Maintenance", "message": "test"}]},
    }
    site.plane.apply(body)
    pod = next(p for p in site.observer.pods(site.name, node=node))["metadata"]["name"]
    stands: dict[str, Any] = {"namespace": site.name, "pod": pod, "class": "BudgetExhausted", "since": ago(10)}
    status = {
        "phase": "Blocked",
        "startedAt": ago(minutes),
        "node": {"uid": uid, "cordonedByUs": True},
        "blockers": [{**stands, "pdb": budget}],
        "conditions": [
            {
                "type": "Blocked",
                "status": "True",
                "reason": "BudgetExhausted",
                "message": "as it was",
                "lastTransitionTime": ago(9),
            }
        ],
    }
    patch = json.dumps({"status": status})
    site.plane.kubectl("patch", "nd", node, "--subresource=status", "--type=merge", "-p", patch)


def test_the_younger_of_two_that_hold_each_other_up_steps_back(plane: ControlPlane, identity: Path) -> None:
    site = Site(plane, Observer(plane.kubeconfig), "standoff")
    plane.apply(workloads.namespace(site.name))
    older, younger = site.nodes(2)
    site.policy(maintenance={"maxConcurrent": 2})
    for app in ("p", "q"):
        apart = json.loads(json.dumps(APART))
        selector = apart["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]["labelSelector"]
        selector["matchExpressions"] = [{"key": "app", "operator": "In", "values": [app]}]
        site.deploy(
            workloads.stateful_set(app, 2, site.name, affinity=apart, **site.here()),
            workloads.budget(app, site.name, maxUnavailable=1),
        )
    for node in (older, younger):
        plane.kubectl("cordon", node)
    for app, node in (("q", older), ("p", younger)):
        pods = site.observer.pods(site.name, node=node)
        (name,) = [p["metadata"]["name"] for p in pods if p["metadata"]["labels"]["app"] == app]
        plane.kubectl("delete", "pod", "-n", site.name, name)
    until(lambda: len(site.left(older)) == 1 == len(site.left(younger)), "one pod on each")
    for node in (older, younger):
        site.annotate(node)
    blocked(site, older, "p", minutes=30)
    blocked(site, younger, "q", minutes=20)

    with Operator(identity, plane.workdir / "standoff.log"):
        site.phase(older, "Drained")
        site.says(younger, "SteppedBack")
        assert "SteppedBack" not in {event["reason"] for event in site.observer.events("Node", older)}
        until(lambda: site.observer.node(younger)["spec"].get("unschedulable"), "the younger to begin again")
        drain = site.observer.drain(younger)
        assert drain is not None
        assert "rescheduler.dev/stepped-back" not in drain["metadata"].get("annotations", {})
        for node in (older, younger):
            site.annotate(node, None)
            site.gone(node)
        assert not any(site.observer.node(node)["spec"].get("unschedulable") for node in (older, younger))


def test_a_restart_goes_on_from_what_the_status_says(plane: ControlPlane, identity: Path) -> None:
    site = Site(plane, Observer(plane.kubeconfig), "restart")
    plane.apply(workloads.namespace(site.name))
    empty, held = site.nodes(2)
    site.policy(maintenance={"maxConcurrent": 2})
    site.deploy(
        workloads.stateful_set("web", 1, site.name, nodeName=held),
        workloads.budget("web", site.name, minAvailable="100%"),
    )
    log = plane.workdir / "restart.log"
    with Operator(identity, log):
        for node in (empty, held):
            site.annotate(node)
        site.phase(empty, "Drained")
        until(lambda: (site.observer.drain(held) or {}).get("status", {}).get("blockers"), "the blocker")
    patch = json.dumps({"status": {"startedAt": ago(30)}})
    plane.kubectl("patch", "nd", held, "--subresource=status", "--type=merge", "-p", patch)
    with Operator(identity, log):
        site.phase(held, "Blocked")
    before = {node: site.observer.drain(node) for node in (empty, held)}
    with Operator(identity, plane.workdir / "again.log") as process:
        until(lambda: '"leader.working"' in process.log.read_text(), "the operator to work")
        plane.kubectl("annotate", "nd", held, "touched=yes")
        site.annotate(empty, "again")
        until(lambda: "again" in json.dumps(site.observer.drain(empty)), "the operator to see all")
        for node, drain in before.items():
            now = site.observer.drain(node)
            assert now is not None
            assert drain is not None
            for key in ("phase", "drainedAt", "startedAt", "blockers"):
                assert now["status"].get(key) == drain["status"].get(key), key
            times = [{c["type"]: c["lastTransitionTime"] for c in d["status"]["conditions"]} for d in (now, drain)]
            assert times[0] == times[1]


def test_a_restart_does_not_forget_that_no_replacement_came_up(plane: ControlPlane, identity: Path) -> None:
    site = Site(plane, Observer(plane.kubeconfig), "quota")
    plane.apply(workloads.namespace(site.name))
    held, empty = site.nodes(2)
    site.policy(drain={"replacement": "Required"}, maintenance={"maxConcurrent": 2})
    plane.kubectl("cordon", empty)
    site.deploy(workloads.deployment("web", 1, site.name, **site.here()))
    plane.kubectl("create", "quota", "full", "-n", site.name, "--hard=pods=1")
    until(lambda: "1" in plane.kubectl("get", "quota", "full", "-n", site.name, "-o=jsonpath={.status.used.pods}"), "")
    log = plane.workdir / "quota.log"

    with Operator(identity, log) as process:
        site.annotate(held)
        until(lambda: site.classes(held) == {"ReplacementNotReady"}, "the blocker")
        assert 'way="Release"' in process.metrics()
        process.kill()
    with Operator(identity, log) as process:
        site.annotate(empty)
        site.phase(empty, "Drained")
        assert site.classes(held) == {"ReplacementNotReady"}
        assert 'way="Release"' not in process.metrics()
