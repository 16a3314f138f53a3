"""Installation, upgrade and deletion without helm: `kubectl apply` and GitOps run no hooks."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from harness import ControlPlane, binaries, workloads
from harness.observer import Observer
from harness.operators import NAMESPACE, ROOT, Operator, serves_pools
from harness.waiting import until

SPACE, OTHER_SPACE = "shop", "other-shop"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that `make dist` makes."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, str(ROOT / "manifests" / "render.py"), "--dist", str(folder)]
    subprocess.run(command, env={**os.environ, "HELM": str(binaries.path("helm"))}, check=True, timeout=60)
    return folder


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane.start() as made:
        yield made


@pytest.fixture(scope="module")
def observer(plane: ControlPlane) -> Observer:
    return Observer(plane.kubeconfig)


def test_the_files_of_a_release_have_checksums_and_the_crds_come_first(dist: Path) -> None:
    lines = (line.split() for line in (dist / "SHA256SUMS").read_text().splitlines())
    sums = {name: checksum for checksum, name in lines}
    manifests = {"rescheduler.yaml", "rescheduler-without-pools.yaml", "default-policy.yaml"}
    assert sums.keys() == manifests | {"rescheduler-0.1.0.tgz"}
    assert all(hashlib.sha256((dist / name).read_bytes()).hexdigest() == checksum for name, checksum in sums.items())
    for name, pools in (("rescheduler.yaml", True), ("rescheduler-without-pools.yaml", False)):
        kinds = [d["kind"] for d in yaml.safe_load_all((dist / name).read_text())]
        assert kinds[:4] == [*["CustomResourceDefinition"] * 3, "Namespace"]
        assert kinds.count("CustomResourceDefinition") == 3
        assert "Job" not in kinds
        assert ("MutatingAdmissionPolicy" in kinds) == pools


@pytest.mark.every_version("installation")
def test_a_deletion_without_hooks_keeps_no_node_and_no_namespace_and_one_command_repairs_the_rest(
    plane: ControlPlane, observer: Observer, dist: Path, tmp_path: Path
) -> None:
    manifest = str(dist / ("rescheduler.yaml" if serves_pools(plane) else "rescheduler-without-pools.yaml"))
    plane.kubectl("apply", "-f", manifest)
    plane.kubectl("apply", "-f", str(dist / "default-policy.yaml"))
    node, gone, other = plane.add_nodes(3, prefix="plain-")
    plane.kubectl("cordon", gone, other)
    plane.apply(workloads.namespace(SPACE), workloads.namespace(OTHER_SPACE), workloads.bare_pod("unmanaged", SPACE))
    until(lambda: observer.ready(SPACE, "unmanaged") == 1, "the pod to run")
    plane.kubectl("uncordon", other)
    identity = plane.identity_kubeconfig(NAMESPACE, "rescheduler")
    with Operator(identity, tmp_path / "operator.log"):
        plane.kubectl("annotate", "node", node, "rescheduler.dev/maintenance=test")
        until(lambda: observer.node(node)["spec"].get("unschedulable"), "the cordon")
        uid = plane.get("nodedrain", node)["metadata"]["uid"]
        _upgrade(plane, manifest)
        assert plane.get("nodedrain", node)["metadata"]["uid"] == uid
    # The worst case: the operator ends before it sees the deletion of the NodeDrain.
    plane.kubectl("delete", "-f", manifest, "--wait=false")
    plane.kubectl("delete", "node", gone, "--timeout=30s")
    plane.kubectl("delete", "namespace", NAMESPACE, OTHER_SPACE, "--ignore-not-found", "--timeout=60s")
    # The NodeDrain is left with its finalizer, and the node is cordoned.
    assert observer.node(node)["spec"]["unschedulable"]
    assert plane.get("nodedrain", node)["metadata"]["deletionTimestamp"]
    command = [sys.executable, "-m", "rescheduler", "cleanup", "--namespace", NAMESPACE]
    done = subprocess.run(
        command,
        env={**os.environ, "KUBECONFIG": str(plane.kubeconfig)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: "rescheduler.dev" not in plane.kubectl("get", "crd", "-o", "name"), "the CRDs to be gone")
    assert not observer.node(node)["spec"].get("unschedulable")
    plane.kubectl("delete", "namespace", SPACE, "--timeout=60s")


def _upgrade(plane: ControlPlane, manifest: str) -> None:
    """Apply a manifest in which all objects have one more label, as GitOps does after a release."""
    changed = list(yaml.safe_load_all(Path(manifest).read_text()))
    for document in changed:
        document["metadata"].setdefault("labels", {})["release"] = "next"
    said = plane.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(changed))
    assert said.count("configured") == len(changed)
