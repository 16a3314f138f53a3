"""The control plane of the other tests: nodes fail and recover like real ones, and no process is left."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from harness import ControlPlane, workloads
from harness.clients import ControlPlaneError
from harness.processes import has_listener
from harness.waiting import until

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane.start() as made:
        yield made


def ready(plane: ControlPlane, node: str) -> dict[str, Any]:
    conditions = plane.get("node", node)["status"]["conditions"]
    return next(dict(condition) for condition in conditions if condition["type"] == "Ready")


def until_status(plane: ControlPlane, node: str, status: str) -> None:
    until(lambda: ready(plane, node)["status"] == status, f"{node} to be Ready={status}")


def processes(workdir: Path) -> list[str]:
    """Return command lines of running processes of a control plane, its guard included."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{workdir}/" in line or f"{workdir} " in line:
            found.append(line)
    return found


def listens(server: str) -> bool:
    return has_listener(int(urlsplit(server).port or 0))


def test_a_deployment_runs(plane: ControlPlane) -> None:
    plane.add_nodes(2, prefix="run-", labels={"for": "run"}, zones=("a", "b"))
    plane.apply(workloads.deployment("run", 4, nodeSelector={"for": "run"}), workloads.service("run"))
    plane.kubectl("rollout", "status", "deploy/run", "--timeout=60s")


def test_a_job_completes(plane: ControlPlane) -> None:
    plane.add_nodes(1, prefix="job-", labels={"for": "job"})
    plane.apply(workloads.job("work", nodeSelector={"for": "job"}))
    plane.kubectl("wait", "--for=condition=Complete", "job/work", "--timeout=60s")


def test_a_pod_that_is_never_ready_runs(plane: ControlPlane) -> None:
    plane.add_nodes(1, prefix="never-", labels={"for": "never"})
    plane.apply(workloads.bare_pod("never", annotations={"cluster/never-ready": "true"}, nodeSelector={"for": "never"}))
    plane.kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/never", "--timeout=60s")
    conditions = plane.get("pod", "never")["status"]["conditions"]
    assert next(c["status"] for c in conditions if c["type"] == "Ready") == "False"


def test_a_dead_node_ends_no_pods_until_it_is_back(plane: ControlPlane) -> None:
    dead, alive = plane.add_nodes(2, prefix="die-", own_kwok=True)
    plane.apply(workloads.bare_pod("lost", nodeSelector={"kubernetes.io/hostname": dead}))
    plane.kubectl("wait", "--for=condition=Ready", "pod/lost", "--timeout=60s")
    before, boot = ready(plane, dead), plane.get("node", dead)["status"]["nodeInfo"]["bootID"]

    plane.fail_node(dead)
    until_status(plane, dead, "Unknown")
    assert ready(plane, alive)["status"] == "True"
    plane.kubectl("delete", "pod", "lost", "--wait=false")
    with pytest.raises(ControlPlaneError):
        plane.kubectl("wait", "--for=delete", "pod/lost", "--timeout=3s")  # a living node deletes it in 1 s
    assert "deletionTimestamp" in plane.get("pod", "lost")["metadata"]

    plane.recover_node(dead)
    until_status(plane, dead, "True")
    assert ready(plane, dead)["lastTransitionTime"] > before["lastTransitionTime"]
    assert plane.get("node", dead)["status"]["nodeInfo"]["bootID"] != boot
    plane.kubectl("wait", "--for=delete", "pod/lost", "--timeout=90s")


def test_a_rack_fails_and_recovers_as_one(plane: ControlPlane) -> None:
    nodes = plane.add_nodes(2, prefix="rack-", rack="rack")
    plane.fail_rack("rack")
    for node in nodes:
        until_status(plane, node, "Unknown")
    plane.recover_rack("rack")
    for node in nodes:
        until_status(plane, node, "True")


def test_the_api_server_goes_and_comes_back_with_its_data_and_all_works_again_at_once(plane: ControlPlane) -> None:
    plane.apply(workloads.namespace("kept"))
    for _ in range(2):
        plane.stop_apiserver()
        assert not listens(plane.server)
        plane.start_apiserver()
    plane.kubectl("get", "namespace", "kept")
    plane.add_nodes(1, prefix="after")
    plane.apply(workloads.deployment("after", 1))
    until(lambda: plane.get("deployment", "after")["status"].get("readyReplicas"), "the pod to run")


def test_two_at_once_are_apart_and_stopping_one_leaves_nothing_of_it(plane: ControlPlane) -> None:
    with ControlPlane.start(open_limits=True, extra_args={"etcd": {"max-txn-ops": "256"}}) as other:
        assert other.server != plane.server
        other.apply(workloads.namespace("other"))
        assert "NotFound" in plane.kubectl("get", "namespace", "other", check=False)
        assert processes(other.workdir)
    assert processes(other.workdir) == []
    assert not listens(other.server)
    assert not other.workdir.exists()
    plane.kubectl("get", "--raw", "/readyz")


def test_a_failed_start_leaves_nothing(tmp_path: Path) -> None:
    workdir = tmp_path / "bad"
    with pytest.raises(ControlPlaneError, match="no-such-flag"):
        # The last component to start: all others run by then.
        ControlPlane.start(workdir=workdir, extra_args={"kube-scheduler": {"no-such-flag": "1"}})
    assert processes(workdir) == []
    assert not workdir.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_owner_that_dies_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    workdir = tmp_path / "owned"
    # A background process of a shell ignores Ctrl-C, and these tests may run in the background.
    code = "import pathlib, signal, sys, time; from harness import ControlPlane\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "with ControlPlane.start(workdir=pathlib.Path(sys.argv[1])): print('up', flush=True); time.sleep(600)"
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(workdir)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == b"up\n"
        owner.send_signal(number)
    until(lambda: not processes(workdir) and not workdir.exists(), "all of it to end")
