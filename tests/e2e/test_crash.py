"""Killed between any two writes and restarted, a drain and a cleanup end as without a crash.

`make test-crash` kills at every write; otherwise a seeded sample does.
"""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import ControlPlane, workloads
from harness.min_ready import lowest_ready
from harness.observer import Observer
from harness.operators import NAMESPACE, Operator, install
from harness.proxy import Proxy
from harness.waiting import until

SPACE = "crash"
EVERY = bool(os.environ.get("CRASH_AT_EVERY_WRITE"))
_MOST = 200  # writes of a drain, annotation to Drained: about 40, more on a slow machine
_ENOUGH = 3  # drains in a row that ended before the write was reached: there are no more writes
MIN_READY = {"single": 1, "web": 7, "never": 2}
"""Apps with budgets, and the number of Ready pods that each budget needs."""
_unhurt: list[int] = []
SAMPLE = range(1, _MOST) if EVERY else sorted(random.Random(8).sample(range(1, 38), 10))


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane.start(audit=True) as made:
        yield made


@pytest.fixture(scope="module")
def identity(plane: ControlPlane) -> Path:
    found = install(plane)
    plane.apply(workloads.namespace(SPACE), workloads.policy(drain={"unmanaged": "Evict"}))
    return found


@pytest.fixture(scope="module")
def observer(plane: ControlPlane) -> Observer:
    return Observer(plane.kubeconfig)


def fill(plane: ControlPlane, observer: Observer, node: str, others: list[str]) -> None:
    """Deploy twenty pods of all kinds on one node."""
    here: dict[str, Any] = {"nodeSelector": {"crash": "here"}}
    plane.kubectl("cordon", *others)
    plane.apply(
        workloads.deployment("single", 1, SPACE, **here),
        workloads.budget("single", SPACE, minAvailable=1),
        workloads.deployment("web", 8, SPACE, **here),
        workloads.budget("web", SPACE, maxUnavailable=1),
        workloads.deployment("never", 3, SPACE, annotations={"rescheduler.dev/replacement": "Never"}, **here),
        workloads.budget("never", SPACE, maxUnavailable=1),
        workloads.stateful_set("db", 3, SPACE, **here),
        workloads.replica_set("set", 2, SPACE, volumes=[{"name": "scratch", "emptyDir": {}}], **here),
        workloads.bare_pod("alone", SPACE, **here),
        workloads.job("done", SPACE, **here),
        workloads.daemon_set("log", SPACE, **here),
    )
    until(lambda: running(observer, node) == 19 and len(observer.pods(SPACE, node=node)) == 20, "the pods to run")
    until(lambda: observer.counted(SPACE), "the budgets to be observed")
    plane.kubectl("uncordon", *others)


def running(observer: Observer, node: str) -> int:
    return sum(p.get("status", {}).get("phase") == "Running" for p in observer.pods(SPACE, node=node))


def audited(plane: ControlPlane) -> list[str]:
    assert plane.audit_log is not None
    return plane.audit_log.read_text().splitlines()


def evicted(lines: list[str]) -> Counter[str]:
    """Return the number of accepted evictions and deletes by the operator for each pod."""
    counts: Counter[str] = Counter()
    for line in lines:
        event = json.loads(line)
        reference = event.get("objectRef", {})
        if reference.get("resource") != "pods" or "rescheduler" not in event["user"]["username"]:
            continue
        if event["responseStatus"]["code"] >= 300 or "dryRun" in event["requestURI"]:
            continue
        if reference.get("subresource") == "eviction" or event["verb"] == "delete":
            counts[reference["name"]] += 1
    return counts


def released(observer: Observer) -> list[dict[str, Any]]:
    pods = observer.pods(SPACE)
    return [
        p for p in pods if workloads.is_released(p) or "rescheduler.dev/move" in p["metadata"].get("annotations", {})
    ]


@pytest.mark.parametrize("write", SAMPLE)
def test_killed_right_after_a_write_it_goes_on(
    plane: ControlPlane, identity: Path, observer: Observer, tmp_path: Path, write: int
) -> None:
    if len(_unhurt) >= _ENOUGH:
        pytest.skip(f"a drain has fewer than {write} writes")
    nodes = plane.add_nodes(3, prefix=f"c{write}-", labels={"crash": "here"})
    try:
        fill(plane, observer, nodes[0], nodes[1:])
        before = len(audited(plane))
        with lowest_ready(observer, SPACE, *MIN_READY, every=0.1) as lowest, Proxy(plane) as proxy:
            operator = Operator(proxy.kubeconfig(identity, tmp_path / "config"), tmp_path / "operator.log")
            proxy.after = lambda count: operator.kill() if count == write else None
            operator.start()
            plane.kubectl("annotate", "node", nodes[0], "rescheduler.dev/maintenance=crash")
            until(lambda: not operator.running or observer.phase(nodes[0]) == "Drained", "the crash", seconds=150)
            assert write < _MOST - 1 or operator.running, f"there are more writes than the {_MOST} that are tried"
            assert operator.running or len(proxy.writes) >= write, f"it ended by itself: {operator.tail(20)}"
            if EVERY:
                _unhurt[:] = [*_unhurt, write] if operator.running else []
            operator.kill()
            with Operator(identity, tmp_path / "operator.log"):
                until(lambda: observer.phase(nodes[0]) == "Drained", "the drain to end", seconds=150)
                assert not released(observer)
                assert max(evicted(audited(plane)[before:]).values()) == 1
                plane.kubectl("annotate", "node", nodes[0], "rescheduler.dev/maintenance-")
                until(lambda: observer.drain(nodes[0]) is None, "the node to be restored")
        assert {app: lowest[app] >= floor for app, floor in MIN_READY.items()} == dict.fromkeys(MIN_READY, True), lowest
        node = observer.node(nodes[0])
        assert not node["spec"].get("unschedulable")
        # The node controller removes the taint of the cordon a moment later.
        until(lambda: "taints" not in observer.node(nodes[0])["spec"], "no taint to be left")
        assert "CordonedAgain" not in {e["reason"] for e in observer.events("Node", nodes[0])}
    finally:
        clear(plane, nodes)


def clear(plane: ControlPlane, nodes: list[str]) -> None:
    for kind in ("deploy", "rs", "sts", "ds", "job", "pdb"):
        plane.kubectl("delete", kind, "--all", "-n", SPACE, "--wait=false")
    plane.kubectl("delete", "pods", "--all", "-n", SPACE, "--force", "--grace-period=0", check=False)
    plane.kubectl("delete", "node", *nodes, "--ignore-not-found")


def clean_up(plane: ControlPlane) -> list[dict[str, Any]]:
    """Run `rescheduler cleanup` to its end; return its log."""
    command = [sys.executable, "-m", "rescheduler", "cleanup", "--namespace", NAMESPACE, "--log-format", "json"]
    cleaner = plane.identity_kubeconfig(NAMESPACE, "rescheduler-cleanup")
    environment = {**os.environ, "KUBECONFIG": str(cleaner)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in (done.stdout + done.stderr).splitlines() if line.startswith("{")]


def test_leaving_leaves_no_taint_but_one_that_must_stay_and_names_it(
    plane: ControlPlane, identity: Path, observer: Observer
) -> None:
    """Put two nodes out of service: one has a new boot since, the other still has the boot that is attested as dead."""
    taint = {"key": "node.kubernetes.io/out-of-service", "effect": "NoSchedule"}
    dead, _ = nodes = plane.add_nodes(2, prefix="out-", labels={"crash": "here"})
    plane.kubectl("annotate", "node", dead, "cluster/not-ready=true")
    for name in nodes:
        plane.kubectl("cordon", name)
        plane.kubectl("taint", "node", name, "node.kubernetes.io/out-of-service:NoSchedule")
        node = observer.node(name)
        record = {"uid": node["metadata"]["uid"], "cordonedByUs": True, "addedTaints": [taint]}
        record["bootID"] = node["status"]["nodeInfo"]["bootID"] if name == dead else "before"
        meta = {"name": name, "finalizers": ["rescheduler.dev/restore"]}
        spec = {"nodeName": name, "requests": [{"reason": "Failure"}]}
        plane.apply({"apiVersion": "rescheduler.dev/v1alpha1", "kind": "NodeDrain", "metadata": meta, "spec": spec})
        status = {"status": {"node": record, "startedAt": "2026-01-01T00:00:00Z", "phase": "Draining"}}
        plane.kubectl("patch", "nd", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))
    until(lambda: "False" in {c["status"] for c in observer.node(dead)["status"]["conditions"]}, "it to be ill")
    left = [line for line in clean_up(plane) if line["event"] == "cleanup.taint_left"]
    assert [(line["node"], line["taint"]) for line in left] == [(dead, "node.kubernetes.io/out-of-service:NoSchedule")]
    for name in nodes:
        spec = observer.node(name)["spec"]
        assert observer.drain(name) is None
        assert not spec.get("unschedulable")
        ours = [t for t in spec.get("taints", []) if t["key"] == taint["key"]]
        assert ours == ([taint] if name == dead else [])
    clear(plane, nodes)


def test_leaving_in_the_middle_gives_everything_back(
    plane: ControlPlane, identity: Path, observer: Observer, tmp_path: Path
) -> None:
    nodes = plane.add_nodes(2, prefix="leave-", labels={"crash": "here"})
    here: dict[str, Any] = {"nodeSelector": {"crash": "here"}}
    plane.kubectl("cordon", nodes[1])
    plane.apply(workloads.deployment("web", 4, SPACE, **here))
    until(lambda: running(observer, nodes[0]) == 4, "the pods to run")
    uids = {p["metadata"]["uid"] for p in observer.pods(SPACE, node=nodes[0])}
    with Operator(identity, tmp_path / "operator.log"):
        plane.kubectl("annotate", "node", nodes[0], "rescheduler.dev/maintenance=leave")
        until(lambda: released(observer), "a pod to be released")
    clean_up(plane)
    until(lambda: len(observer.pods(SPACE)) == 4, "four pods")
    assert {p["metadata"]["uid"] for p in observer.pods(SPACE)} == uids
    assert not released(observer)
    assert observer.drain(nodes[0]) is None
    node = observer.node(nodes[0])
    assert not node["spec"].get("unschedulable")
    assert "rescheduler.dev/cancelled" not in node["metadata"]["annotations"]
    clear(plane, nodes)


def test_a_released_pod_without_its_drain_is_given_back(
    plane: ControlPlane, identity: Path, observer: Observer, tmp_path: Path
) -> None:
    nodes = plane.add_nodes(2, prefix="stray-", labels={"crash": "here"})
    plane.kubectl("cordon", nodes[1])
    plane.apply(workloads.deployment("web", 2, SPACE, nodeSelector={"crash": "here"}))
    until(lambda: running(observer, nodes[0]) == 2, "the pods to run")
    uids = {p["metadata"]["uid"] for p in observer.pods(SPACE)}
    with Operator(identity, tmp_path / "operator.log") as operator:
        plane.kubectl("annotate", "node", nodes[0], "rescheduler.dev/maintenance=stray")
        until(lambda: released(observer), "a pod to be released")
        operator.kill()
        plane.kubectl("annotate", "node", nodes[0], "rescheduler.dev/maintenance-")
        plane.kubectl("patch", "nd", nodes[0], "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        plane.kubectl("delete", "nd", nodes[0], "--ignore-not-found")
    with Operator(identity, tmp_path / "operator.log"):
        until(lambda: not released(observer), "the pod to be given back")
        until(lambda: {p["metadata"]["uid"] for p in observer.pods(SPACE)} == uids, "the old pods alone")
    clear(plane, nodes)


def conditions(observer: Observer) -> set[tuple[str, str]]:
    """Return types and reasons of the pool's conditions."""
    return {(c["type"], c["reason"]) for c in (observer.pool("crash") or {}).get("conditions", [])}


def test_a_pool_in_the_middle_of_a_move_goes_on_after_a_crash_and_leaves_nothing_behind(
    plane: ControlPlane, identity: Path, observer: Observer, tmp_path: Path
) -> None:
    """Except the node label that running pods select; no pool begins before admission enforces it."""
    before = len(audited(plane))
    binding = "rescheduler-pool-pods.rescheduler.dev"
    bound = plane.get("mutatingadmissionpolicybinding", binding)
    plane.kubectl("delete", "mutatingadmissionpolicybinding", binding)
    home, away = (plane.add_nodes(1, prefix=f"{name}-", labels={"crash": name})[0] for name in ("home", "away"))
    plane.kubectl("cordon", home)
    slow = {"cluster/ready-after": "3s"}
    plane.apply(workloads.deployment("web", 2, SPACE, annotations=slow), workloads.budget("web", SPACE, minAvailable=2))
    until(lambda: observer.ready(SPACE, "web") == 2 and running(observer, away) == 2, "the pods to run", seconds=60)
    plane.kubectl("uncordon", home)
    old = {pod["metadata"]["uid"] for pod in observer.pods(SPACE)}
    selector = {"matchLabels": {"crash": "home"}}
    with Operator(identity, tmp_path / "operator.log") as operator:
        plane.apply(workloads.pool("crash", namespaces=[SPACE], nodeSelector=selector, existingPods="Move"))
        until(lambda: (observer.pool("crash") or {}).get("podsOutside") == 2, "both to be outside")
        said = {("Enforced", "PoliciesMissing"), ("TaintHeldBack", "NotEnforced")}
        until(lambda: said <= conditions(observer), "it to be said that nothing is enforced")
        until(
            lambda: observer.namespace(SPACE)["metadata"]["labels"].get("rescheduler.dev/pool") == "crash", "its label"
        )
        assert "taints" not in observer.node(home)["spec"]
        plane.apply({key: bound[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": binding}})
        until(lambda: released(observer), "a pod to be released")
        operator.kill()
    assert observer.node(away)["spec"]["taints"]
    with Operator(identity, tmp_path / "operator.log"):
        until(lambda: running(observer, home) == 2 and len(observer.pods(SPACE)) == 2, "all to be home", seconds=90)
        until(lambda: "taints" not in observer.node(away)["spec"], "the source to be as it was")
        until(lambda: (observer.pool("crash") or {}).get("podsOutside") == 0, "none to be outside")
    assert set(evicted(audited(plane)[before:]).values()) == {1}
    assert not old & {pod["metadata"]["uid"] for pod in observer.pods(SPACE)}

    def clean() -> str:
        command = [sys.executable, "-m", "rescheduler", "cleanup", "--namespace", NAMESPACE]
        cleaner = plane.identity_kubeconfig(NAMESPACE, "rescheduler-cleanup")
        environment = {**os.environ, "KUBECONFIG": str(cleaner)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    label = "rescheduler.node-restriction.kubernetes.io/pool"
    told = clean()
    assert "cleanup.label_kept" in told
    assert f"{SPACE}/web-" in told
    assert "rescheduler.dev/pool" not in observer.namespace(SPACE)["metadata"]["labels"]
    assert observer.node(home)["metadata"]["labels"][label] == "crash"
    assert "taints" not in observer.node(home)["spec"]
    plane.kubectl("delete", "nsp", "crash")
    clear(plane, [away])
    until(lambda: not observer.pods(SPACE), "the pods to be gone")
    clean()
    assert label not in observer.node(home)["metadata"]["labels"]
    plane.kubectl("delete", "node", home)
