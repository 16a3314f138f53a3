"""Helm upgrades a release of an older chart while a drain is in flight, and uninstalls in the middle of one.

`charts/crds-in-folder.tgz` is the chart of an earlier commit. It has its CRDs in the folder `crds`, which helm installs
once and never upgrades.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import ControlPlane, workloads
from harness.clients import ControlPlaneError
from harness.etcd import stored_versions
from harness.observer import Observer
from harness.operators import CHART, NAMESPACE, Operator, helm
from harness.waiting import until

OLD_CHART = Path(__file__).parent / "charts" / "crds-in-folder.tgz"
SPACE = "shop"
KINDS = ("reschedulepolicies", "namespacepools", "nodedrains")
JOB = "rescheduler-storage"
RIGHTS = ("job", "serviceaccount", "clusterrole", "clusterrolebinding")
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
    version = plane.get("crd", "nodedrains.rescheduler.dev")["spec"]["versions"][0]
    return set(version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"])


def status(observer: Observer, node: str) -> dict[str, Any]:
    found: dict[str, Any] = (observer.drain(node) or {}).get("status", {})
    return found


def outdated(observer: Observer, node: str) -> str:
    """Return the message of the condition `CRDsOutdated`; empty without it."""
    conditions = status(observer, node).get("conditions", [])
    return next((str(c["message"]) for c in conditions if c["type"] == "CRDsOutdated"), "")


def hooks(plane: ControlPlane) -> dict[tuple[str, str], Any]:
    """Return the hooks of the release by kind and name."""
    made = [hook for hook in yaml.safe_load_all(run_helm(plane, "get", "hooks", "rescheduler")) if hook]
    return {(hook["kind"], hook["metadata"]["name"]): hook for hook in made}


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
    pod = hooks(plane)["Job", "drainer-cleanup"]["spec"]["template"]["spec"]
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


def migrate_storage(kubeconfig: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rescheduler", "migrate-storage"]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def storing(folder: Path, version: str) -> str:
    """Return a copy of the chart whose CRDs store another version, as the next minor version does."""
    shutil.copytree(CHART, folder)
    for file in (folder / "templates" / "crds").iterdir():
        head, *versions = file.read_text().split("\n  - name: ")
        changed = [
            text.replace("storage: true", "storage: false")
            if not text.startswith(version)
            else text.replace("storage: false", "storage: true")
            for text in versions
        ]
        file.write_text("\n  - name: ".join([head, *changed]))
    hook = folder / "templates" / "storage.yaml"
    hook.write_text(hook.read_text().replace('$storage := "v1alpha1"', f'$storage := "{version}"'))
    return str(folder)


def storage_identity(plane: ControlPlane) -> Path:
    """Return a kubeconfig of the ServiceAccount of the Job. Helm has run the Job and has deleted its rights."""
    rights = [hook for (kind, name), hook in hooks(plane).items() if name == JOB and kind != "Job"]
    plane.apply(*rights)
    account = hooks(plane)["Job", JOB]["spec"]["template"]["spec"]["serviceAccountName"]
    identity = plane.identity_kubeconfig(NAMESPACE, account)
    last = ("auth", "can-i", "patch", "crd/nodedrains.rescheduler.dev", "--subresource=status")
    until(lambda: plane.kubectl(*last, check=False, kubeconfig=identity).startswith("yes"), "the rights of the Job")
    return identity


def job_events(plane: ControlPlane) -> str:
    return str(hooks(plane)["Job", JOB]["metadata"]["annotations"]["helm.sh/hook"])


def stored(plane: ControlPlane) -> set[str]:
    """Return the versions of all objects in etcd, and of the CRDs `status.storedVersions` if those differ."""
    listed = [plane.get("crd", f"{kind}.rescheduler.dev")["status"]["storedVersions"] for kind in KINDS]
    return {version for kind in KINDS for version in stored_versions(plane, kind)}.union(*listed)


def test_the_job_of_the_chart_stores_all_objects_in_the_version_of_the_crds_and_back(
    plane: ControlPlane, tmp_path: Path
) -> None:
    """A simulated node cannot run the image of the hook, so the test runs its command with its ServiceAccount."""
    plane.add_nodes(1, prefix="job-")
    run_helm(plane, "upgrade", "rescheduler", "--install", str(CHART), "--create-namespace")
    plane.apply(workloads.pool("stored", namespaces=["x"], nodeSelector={"matchLabels": {"disk": "ssd"}}))
    drain = {"apiVersion": "rescheduler.dev/v1beta1", "kind": "NodeDrain", "metadata": {"name": "absent"}}
    plane.apply({**drain, "spec": {"nodeName": "absent", "requests": [{"reason": "Manual"}]}})
    assert stored(plane) == {"v1alpha1"}
    assert job_events(plane) == "post-rollback"

    run_helm(plane, "upgrade", "rescheduler", storing(tmp_path / "next", "v1beta1"))
    assert job_events(plane) == "post-upgrade,post-rollback"
    assert all("NotFound" in plane.kubectl("get", kind, JOB, "-n", NAMESPACE, check=False) for kind in RIGHTS)
    identity = storage_identity(plane)
    done = migrate_storage(identity)
    assert done.returncode == 0, done.stdout + done.stderr
    assert stored(plane) == {"v1beta1"}
    assert migrate_storage(identity).stdout.count(": all objects are stored as v1beta1\n") == len(KINDS)
    refused = migrate_storage(plane.identity_kubeconfig(NAMESPACE, "rescheduler"))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("the rights do not suffice: GET /apis/apiextensions.k8s.io/")
    older = plane.get("crd", "nodedrains.rescheduler.dev")
    older["metadata"].pop("resourceVersion")
    older["spec"]["versions"] = [{**older["spec"]["versions"][0], "storage": True}]
    with pytest.raises(ControlPlaneError, match='"v1beta1": missing from spec'):
        plane.kubectl("replace", "--dry-run=server", "-f", "-", input=json.dumps(older))

    run_helm(plane, "rollback", "rescheduler")
    assert stored(plane) == {"v1alpha1", "v1beta1"}
    done = migrate_storage(storage_identity(plane))
    assert done.returncode == 0, done.stdout + done.stderr
    assert stored(plane) == {"v1alpha1"}
    plane.kubectl("replace", "--dry-run=server", "-f", "-", input=json.dumps(older))
