"""Helm upgrades a release of an older chart while a drain is in flight, and uninstalls in the middle of one.

`charts/crds-in-folder.tgz` is the chart of an earlier commit. It has its CRDs in the folder `crds`, which helm installs
once and never upgrades.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import ControlPlane, workloads
from harness.observer import Observer
from harness.operators import CHART, NAMESPACE, Operator, helm
from harness.waiting import until

OLD_CHART = Path(__file__).parent / "charts" / "crds-in-folder.tgz"
SPACE = "shop"
_ACCOUNT = f"--serviceaccount={NAMESPACE}:rescheduler"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane.start() as made:
        yield made


@pytest.fixture(scope="module")
def observer(plane: ControlPlane) -> Observer:
    return Observer(plane.kubeconfig)


def run_helm(plane: ControlPlane, *arguments: str) -> str:
    result = helm(*arguments, "-n", NAMESPACE, kubeconfig=plane.kubeconfig)
    assert result.returncode == 0, result.stderr
    return result.stdout


def status_fields(plane: ControlPlane) -> set[str]:
    (version,) = plane.get("crd", "nodedrains.rescheduler.dev")["spec"]["versions"]
    return set(version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"])


def status(observer: Observer, node: str) -> dict[str, Any]:
    found: dict[str, Any] = (observer.drain(node) or {}).get("status", {})
    return found


def outdated(observer: Observer, node: str) -> str:
    """Return the message of the condition `CRDsOutdated`; empty without it."""
    conditions = status(observer, node).get("conditions", [])
    return next((str(c["message"]) for c in conditions if c["type"] == "CRDsOutdated"), "")


def start_drain(plane: ControlPlane, observer: Observer, prefix: str) -> str:
    """Annotate a node with a pod that nothing recreates; return the node when this pod blocks its drain."""
    node, _ = plane.add_nodes(2, prefix=f"{prefix}-")
    plane.apply(workloads.namespace(SPACE), workloads.bare_pod("unmanaged", SPACE, nodeName=node))
    until(lambda: observer.ready(SPACE, "unmanaged") == 1, "the pod to run")
    plane.kubectl("annotate", "node", node, "rescheduler.dev/maintenance=upgrade")
    until(lambda: status(observer, node).get("blockersTotal"), lambda: f"a blocker ({observer.drain(node)})")
    return str(node)


def test_an_upgrade_takes_over_the_crds_of_an_older_chart_in_the_middle_of_a_drain(
    plane: ControlPlane, observer: Observer, tmp_path: Path
) -> None:
    run_helm(plane, "install", "rescheduler", str(OLD_CHART), "--create-namespace")
    # The operator of today may need rights that the older chart does not grant.
    plane.kubectl("create", "clusterrolebinding", "older", "--clusterrole=cluster-admin", _ACCOUNT)
    plane.kubectl("patch", "rsp", "default", "--type=merge", "-p", '{"spec":{"maintenance":{"maxConcurrent":3}}}')
    assert "cameBack" not in status_fields(plane)
    identity = plane.identity_kubeconfig(NAMESPACE, "rescheduler")
    with Operator(identity, tmp_path / "older.log"):
        node = start_drain(plane, observer, "upgrade")
        until(lambda: outdated(observer, node), "the older CRDs to be reported")
        before: Any = plane.get("nodedrain", node)
        refused = helm("upgrade", "rescheduler", str(CHART), "-n", NAMESPACE, kubeconfig=plane.kubeconfig)
        assert "invalid ownership metadata" in refused.stderr
        run_helm(plane, "upgrade", "rescheduler", str(CHART), "--take-ownership")
    assert "cameBack" in status_fields(plane)
    assert plane.get("rsp", "default")["spec"]["maintenance"]["maxConcurrent"] == 3
    plane.kubectl("delete", "clusterrolebinding", "older")
    with Operator(identity, tmp_path / "newer.log"):
        assert plane.get("nodedrain", node)["metadata"]["uid"] == before["metadata"]["uid"]
        assert observer.node(node)["spec"]["unschedulable"]
        until(lambda: not outdated(observer, node), "the report to end")
        plane.kubectl("delete", "pod", "unmanaged", "-n", SPACE)
        until(lambda: observer.phase(node) == "Drained", lambda: f"the drain to end ({observer.drain(node)})")
        plane.kubectl("annotate", "node", node, "rescheduler.dev/maintenance-")
        until(lambda: observer.drain(node) is None, "the NodeDrain to be gone")
    assert "crd.outdated" in (tmp_path / "older.log").read_text()
    assert "crd.outdated" not in (tmp_path / "newer.log").read_text()
    assert not observer.node(node)["spec"].get("unschedulable")
    run_helm(plane, "upgrade", "rescheduler", str(CHART))
    run_helm(plane, "uninstall", "rescheduler", "--timeout=60s")
    plane.kubectl("delete", "namespace", SPACE)


def test_an_uninstall_in_the_middle_of_a_drain_restores_the_node_with_whatever_names(
    plane: ControlPlane, observer: Observer, tmp_path: Path
) -> None:
    """A simulated node cannot run the image of the hook, so the test runs its command with its ServiceAccount."""
    names = ("--set", "fullnameOverride=drainer,serviceAccount.name=mine")
    run_helm(plane, "install", "rescheduler", str(CHART), "--create-namespace", *names)
    hooks = yaml.safe_load_all(run_helm(plane, "get", "hooks", "rescheduler"))
    (pod,) = [hook["spec"]["template"]["spec"] for hook in hooks if hook and hook["kind"] == "Job"]
    cleaner = plane.identity_kubeconfig(NAMESPACE, pod["serviceAccountName"])
    with Operator(plane.identity_kubeconfig(NAMESPACE, "mine"), tmp_path / "operator.log") as operator:
        node = start_drain(plane, observer, "uninstall")
        command = [sys.executable, "-m", "rescheduler", *pod["containers"][0]["args"]]
        with (tmp_path / "cleanup.log").open("w") as log:
            environment = {**os.environ, "KUBECONFIG": str(cleaner)}
            cleanup = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        until(lambda: plane.get("deployment", "drainer", "-n", NAMESPACE)["spec"]["replicas"] == 0, "the scale-down")
        operator.stop()  # as its pod ends
        assert cleanup.wait(250) == 0, (tmp_path / "cleanup.log").read_text()
    run_helm(plane, "uninstall", "rescheduler", "--timeout=60s")
    assert observer.drain(node) is None
    assert not observer.node(node)["spec"].get("unschedulable")
    assert plane.get("crd", "nodedrains.rescheduler.dev")
    plane.kubectl("delete", "namespace", NAMESPACE, SPACE, "--timeout=60s")
    plane.kubectl("delete", "node", node, "--timeout=30s")
