"""Helm upgrades a release, goes back, and uninstalls, while drains, pools and released pods are in flight.

`charts/previous.tar.xz` has the operator and the chart of the previous version. CONTRIBUTING.md says how to replace it.
`charts/crds-in-folder.tgz` is a chart that has its CRDs in the folder `crds`, which helm installs once and never
upgrades.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import ControlPlane, workloads
from harness.clients import ControlPlaneError
from harness.etcd import stored_versions
from harness.min_ready import lowest_ready
from harness.observer import Observer
from harness.operators import CHART, NAMESPACE, Operator, helm
from harness.waiting import until

CHARTS = Path(__file__).parent / "charts"
SPACE = "shop"
KINDS = ("reschedulepolicies", "namespacepools", "nodedrains")
JOB = "rescheduler-storage"
RIGHTS = ("job", "serviceaccount", "clusterrole", "clusterrolebinding")


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane.start() as made:
        yield made


@pytest.fixture(scope="module")
def observer(plane: ControlPlane) -> Observer:
    return Observer(plane.kubeconfig)


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the previous version: its `operator` and its `manifests/chart`."""
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(CHARTS / "previous.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


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


def test_an_upgrade_takes_over_the_crds_of_an_older_chart(plane: ControlPlane) -> None:
    run_helm(plane, "install", "rescheduler", str(CHARTS / "crds-in-folder.tgz"), "--create-namespace")
    plane.kubectl("patch", "rsp", "default", "--type=merge", "-p", '{"spec":{"maintenance":{"maxConcurrent":3}}}')
    assert "cameBack" not in status_fields(plane)
    refused = helm("upgrade", "rescheduler", str(CHART), "-n", NAMESPACE, kubeconfig=plane.kubeconfig)
    assert "invalid ownership metadata" in refused.stderr
    run_helm(plane, "upgrade", "rescheduler", str(CHART), "--take-ownership")
    assert "cameBack" in status_fields(plane)
    assert plane.get("rsp", "default")["spec"]["maintenance"]["maxConcurrent"] == 3
    run_helm(plane, "upgrade", "rescheduler", str(CHART))
    run_helm(plane, "uninstall", "rescheduler", "--no-hooks")


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


def release_pods(plane: ControlPlane, observer: Observer) -> dict[str, str]:
    """Annotate two nodes whose pods find no room elsewhere; return the released pod of each by node.

    The other node of each pair is cordoned, so that no replacement starts.
    """
    nodes = {}
    for side in ("left", "right"):
        nodes[side], other = plane.add_nodes(2, prefix=f"{side}-", labels={"side": side})
        plane.kubectl("cordon", other)
        plane.apply(workloads.deployment(side, 2, SPACE, nodeSelector={"side": side}))
    until(lambda: {observer.ready(SPACE, side) for side in nodes} == {2}, "the pods to run")
    plane.kubectl("annotate", "node", *nodes.values(), "rescheduler.dev/maintenance=upgrade")
    until(lambda: set(released(observer)) == set(nodes), "a pod of each node to be released")
    return {node: released(observer)[side] for side, node in nodes.items()}


def released(observer: Observer) -> dict[str, str]:
    """Return the UID of the released pod of each Deployment."""
    pods = [pod["metadata"] for pod in observer.pods(SPACE) if workloads.is_released(pod)]
    return {pod["labels"]["app"]: pod["uid"] for pod in pods}


def refresh_discovery(plane: ControlPlane) -> None:
    """Let kubectl forget which versions were served before a way back: it remembers them for hours."""
    plane.kubectl("api-resources")


def finish_drain(plane: ControlPlane, observer: Observer, node: str) -> None:
    """Let the replacements start, await the end of the drain, and withdraw the request."""
    plane.kubectl("uncordon", node.removesuffix("1") + "2")
    until(lambda: observer.phase(node) == "Drained", lambda: f"the drain to end ({observer.drain(node)})")
    plane.kubectl("annotate", "node", node, "rescheduler.dev/maintenance-")
    until(lambda: observer.drain(node) is None, "the NodeDrain to be gone")
    assert not observer.node(node)["spec"].get("unschedulable")


def assert_pool_holds(plane: ControlPlane, observer: Observer, node: str) -> None:
    """Assert that the pool still has its node and its namespace."""
    assert [taint["key"] for taint in observer.node(node)["spec"]["taints"]] == ["rescheduler.dev/pool"]
    assert observer.namespace("pooled")["metadata"]["labels"]["rescheduler.dev/pool"] == "held"
    assert plane.get("nsp", "held")["status"]["nodes"] == 1


def test_an_upgrade_and_the_way_back_keep_drains_pools_and_released_pods(
    plane: ControlPlane, observer: Observer, previous: Path, tmp_path: Path
) -> None:
    """One drain begins before the upgrade and ends after it; the other one ends after the downgrade."""
    package = previous / "operator"
    run_helm(plane, "install", "rescheduler", str(previous / "manifests" / "chart"), "--create-namespace")
    identity = plane.identity_kubeconfig(NAMESPACE, "rescheduler")
    refresh_discovery(plane)
    limits = {"spec": {"maintenance": {"maxConcurrent": 2, "maxUnavailable": "100%"}}}
    plane.kubectl("patch", "rsp", "default", "--type=merge", "-p", json.dumps(limits))
    (pooled,) = plane.add_nodes(1, prefix="pooled-", labels={"side": "pool"})
    plane.add_nodes(1, prefix="free-")  # without it, the taint of the pool would leave no place to other pods
    plane.apply(workloads.namespace(SPACE), workloads.namespace("pooled"))
    selector = {"matchLabels": {"side": "pool"}}
    pool = workloads.pool("held", namespaces=["pooled"], nodeSelector=selector, exclusive=True)
    with Operator(identity, tmp_path / "before.log", previous=package):
        plane.apply(pool)
        until(lambda: observer.node(pooled)["spec"].get("taints"), lambda: f"the taint ({observer.pool('held')})")
        pods = release_pods(plane, observer)
        left, right = pods
    uids = {node: plane.get("nodedrain", node)["metadata"]["uid"] for node in pods}
    with lowest_ready(observer, SPACE, "left", "right", every=0.2) as lowest:
        with Operator(identity, tmp_path / "after.log"):
            # The operator is newer than the CRDs for a while: it works, and says so.
            until(lambda: "lacks version v1beta1" in outdated(observer, left), "the missing version to be reported")
            run_helm(plane, "upgrade", "rescheduler", str(CHART))
            assert set(released(observer).values()) == set(pods.values())
            assert_pool_holds(plane, observer, pooled)
            finish_drain(plane, observer, left)
            listed = reschedule(package, plane, "status", "-o", "name")
            assert listed == f"nodedrain.rescheduler.dev/{right}", "the older plugin and the newer operator"
            plane.apply({**pool, "apiVersion": "rescheduler.dev/v1beta1"})
            run_helm(plane, "rollback", "rescheduler", "1")
        refresh_discovery(plane)
        assert len(plane.get("crd", "nodedrains.rescheduler.dev")["spec"]["versions"]) == 1
        assert plane.get("nodedrain", right)["metadata"]["uid"] == uids[right]
        assert released(observer) == {"right": pods[right]}
        with pytest.raises(ControlPlaneError, match=r"invalid group/version: rescheduler\.dev/v1beta1"):
            plane.apply(pool)
        assert migrate_storage(plane.kubeconfig).returncode == 0
        plane.apply(pool)
        with Operator(identity, tmp_path / "back.log", previous=package):
            finish_drain(plane, observer, right)
            assert_pool_holds(plane, observer, pooled)
        assert not released(observer)
        assert {pod["status"]["phase"] for pod in observer.pods(SPACE)} == {"Running"}
    assert lowest == {"left": 2, "right": 2}
    for log in ("before", "after", "back"):
        text = (tmp_path / f"{log}.log").read_text()
        assert "Traceback" not in text
        assert "object.unreadable" not in text
        assert ("crd.outdated" in text) == (log == "after"), "the older operator fits its CRDs"


def reschedule(package: Path, plane: ControlPlane, *arguments: str) -> str:
    """Run the plugin of the previous version."""
    command = [sys.executable, "-c", "from rescheduler.cli.plugin import run; run()", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(package), "KUBECONFIG": str(plane.kubeconfig)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


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


def writers(plane: ControlPlane) -> set[str]:
    """Return the versions in which clients wrote the objects: an entry of a version that ends breaks applies."""
    items = [item for kind in KINDS for item in plane.get(kind, "--show-managed-fields")["items"]]
    versions = {entry["apiVersion"] for item in items for entry in item["metadata"]["managedFields"]}
    return {version.partition("/")[2] for version in versions}


def test_the_job_of_the_chart_stores_all_objects_in_the_version_of_the_crds_and_back(
    plane: ControlPlane, tmp_path: Path
) -> None:
    """A simulated node cannot run the image of the hook, so the test runs its command with its ServiceAccount."""
    plane.add_nodes(1, prefix="job-")
    run_helm(plane, "upgrade", "rescheduler", "--install", str(CHART), "--create-namespace")
    plane.apply(workloads.pool("stored", namespaces=["x"], nodeSelector={"matchLabels": {"disk": "ssd"}}))
    drain = {"apiVersion": "rescheduler.dev/v1beta1", "kind": "NodeDrain", "metadata": {"name": "absent"}}
    plane.apply({**drain, "spec": {"nodeName": "absent", "requests": [{"reason": "Manual"}]}})
    assert (stored(plane), writers(plane)) == ({"v1alpha1"}, {"v1alpha1", "v1beta1"})
    assert job_events(plane) == "post-rollback"

    run_helm(plane, "upgrade", "rescheduler", storing(tmp_path / "next", "v1beta1"))
    assert job_events(plane) == "post-upgrade,post-rollback"
    assert all("NotFound" in plane.kubectl("get", kind, JOB, "-n", NAMESPACE, check=False) for kind in RIGHTS)
    identity = storage_identity(plane)
    done = migrate_storage(identity)
    assert done.returncode == 0, done.stdout + done.stderr
    assert stored(plane) == writers(plane) == {"v1beta1"}
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
    assert stored(plane) == writers(plane) == {"v1alpha1"}
    plane.kubectl("replace", "--dry-run=server", "-f", "-", input=json.dumps(older))
