"""All parts of an installation are deleted in any order; `rescheduler cleanup` then leaves nothing behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness import ControlPlane, workloads
from harness.observer import Observer
from harness.operators import NAMESPACE, Operator, install
from harness.waiting import until

SPACE = "leaving"
_HERE: dict[str, Any] = {"nodeSelector": {"leaving": "drained"}}
_OURS = ("rescheduler.dev/", "rescheduler.node-restriction.kubernetes.io/", "cluster-autoscaler.kubernetes.io/")
_CONDITIONS = {"DrainInProgress", "Drained", "MaintenanceInProgress"}
_NO_FINALIZERS = '{"metadata":{"finalizers":null}}'


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane.start() as made:
        yield made


@pytest.fixture(scope="module")
def observer(plane: ControlPlane) -> Observer:
    return Observer(plane.kubeconfig)


def released(observer: Observer) -> bool:
    return any(workloads.is_released(pod) for pod in observer.pods(SPACE))


def written(thing: dict[str, Any]) -> set[str]:
    """Return what Rescheduler writes on nodes, namespaces and pods, if the object has it."""
    meta, spec, status = thing["metadata"], thing.get("spec", {}), thing.get("status", {})
    keys = {*meta.get("labels", {}), *meta.get("annotations", {}), *meta.get("finalizers", [])}
    keys |= {taint["key"] for taint in spec.get("taints", [])}
    found = {key for key in keys if key.startswith(_OURS)} - {"rescheduler.dev/maintenance"}
    return found | (_CONDITIONS & {c["type"] for c in status.get("conditions", [])})


def delete_crds(plane: ControlPlane) -> None:
    """Delete the CRDs. Without an operator they stay Terminating, because of the finalizers of NodeDrains."""
    crds = [f"{plural}.rescheduler.dev" for plural in ("nodedrains", "namespacepools", "reschedulepolicies")]
    plane.kubectl("delete", "crd", *crds, "--wait=false")


def force_crds(plane: ControlPlane) -> None:
    """Delete the CRDs, and remove the finalizers by force, as people do if the deletion hangs."""
    delete_crds(plane)
    for name in plane.kubectl("get", "nodedrains", "-o", "name", check=False).split():
        plane.kubectl("patch", name, "--type=merge", "-p", _NO_FINALIZERS, check=False)
    until_no_crds(plane)


def until_no_crds(plane: ControlPlane) -> None:
    until(lambda: "rescheduler.dev" not in plane.kubectl("get", "crd", "-o", "name"), "the CRDs to be gone")


def remove_rights(plane: ControlPlane) -> None:
    ours = ("-l", "app.kubernetes.io/name=rescheduler")
    plane.kubectl("delete", "clusterrole,clusterrolebinding", *ours)
    plane.kubectl("delete", "role,rolebinding", "-A", *ours)


def remove_policies(plane: ControlPlane) -> None:
    kinds = [f"{kind}admissionpolic{end}" for kind in ("mutating", "validating") for end in ("ybindings", "ies")]
    plane.kubectl("delete", ",".join(kinds), "-l", "app.kubernetes.io/name=rescheduler")


def remove_namespace(plane: ControlPlane) -> None:
    plane.kubectl("delete", "namespace", NAMESPACE)


_STEPS: dict[str, Callable[[ControlPlane], None]] = {
    "crds": delete_crds,
    "crds by force": force_crds,
    "rights": remove_rights,
    "policies": remove_policies,
    "namespace": remove_namespace,
}


@pytest.mark.parametrize(
    "order",
    [
        ("deployment", "crds", "rights", "namespace", "policies"),
        ("crds", "deployment", "policies"),
        ("rights", "policies", "crds by force", "deployment"),
        ("namespace", "deployment", "crds by force"),
    ],
    ids="-".join,
)
def test_cleanup_leaves_nothing_in_whatever_order_the_parts_were_deleted(
    plane: ControlPlane, observer: Observer, tmp_path: Any, order: tuple[str, ...]
) -> None:
    identity = install(plane)
    plane.apply(
        workloads.namespace(SPACE), workloads.policy(maintenance={"maxConcurrent": 2, "maxUnavailable": "100%"})
    )
    full, frozen, other = plane.add_nodes(3, prefix="leave-", labels={"leaving": "drained"})
    (pooled,) = plane.add_nodes(1, prefix="pooled-", labels={"leaving": "pooled"})
    try:
        plane.kubectl("cordon", frozen, other)
        plane.apply(workloads.deployment("web", 4, SPACE, **_HERE))
        until(lambda: observer.ready(SPACE, "web") == 4, "the pods to run")
        uids = {pod["metadata"]["uid"] for pod in observer.pods(SPACE)}
        with Operator(identity, tmp_path / "operator.log") as operator:
            plane.apply(workloads.namespace("leaving-pool"))
            selector = {"matchLabels": {"leaving": "pooled"}}
            plane.apply(workloads.pool("leaving", namespaces=["leaving-pool"], nodeSelector=selector))
            until(lambda: "rescheduler.dev/pool" in written(observer.node(pooled)), "the taint of the pool")
            plane.kubectl("annotate", "node", frozen, full, "rescheduler.dev/maintenance=leave")
            until(lambda: observer.phase(frozen) == "Drained", "the empty node to be drained")
            until(lambda: released(observer), lambda: f"a pod to be released ({observer.drain(full)})")
            for step in order:
                if step == "deployment":
                    operator.stop()
                else:
                    _STEPS[step](plane)
        said = clean_up(plane)
        until_no_crds(plane)
        for node in (full, frozen, other, pooled):
            assert not written(observer.node(node)), (node, said)
            assert observer.node(node)["spec"].get("unschedulable", False) is (node in (frozen, other)), (node, said)
        assert not any(written(observer.namespace(name)) for name in (SPACE, "leaving-pool"))
        until(lambda: len(observer.pods(SPACE)) == 4, "four pods")
        assert not any(written(pod) for pod in observer.pods(SPACE))
        assert not released(observer)
        assert {pod["metadata"]["uid"] for pod in observer.pods(SPACE)} <= uids
    finally:
        plane.kubectl("delete", "namespace", SPACE, "leaving-pool", "--wait=false", check=False)
        plane.kubectl("delete", "pods", "--all", "-n", SPACE, "--force", "--grace-period=0", check=False)
        plane.kubectl("delete", "node", full, frozen, other, pooled)
        until(lambda: SPACE not in plane.kubectl("get", "namespace", "-o", "name"), "the namespaces to be gone")


def clean_up(plane: ControlPlane) -> list[dict[str, Any]]:
    """Run `rescheduler cleanup` with the rights of the administrator; return its log."""
    command = [sys.executable, "-m", "rescheduler", "cleanup", "--namespace", NAMESPACE, "--log-format", "json"]
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in (done.stdout + done.stderr).splitlines() if line.startswith("{")]
