"""The control plane itself: several at once, nodes that fail and come back, nothing left behind."""

import os
import socket
from pathlib import Path
from urllib.parse import urlparse

from cluster import ControlPlane, workloads
from cluster.controlplane import free_port
from cluster.observer import Observer
from cluster.waiting import until


def condition(observer: Observer, node: str) -> str:
    return next(c["status"] for c in observer.node(node)["status"]["conditions"] if c["type"] == "Ready")


def processes(workdir: Path) -> list[str]:
    """Command lines that name this directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_text()
            except OSError:
                continue
            if str(workdir) in line:
                found.append(line)
    return found


def test_two_at_once_know_nothing_of_each_other_and_leave_nothing() -> None:
    with ControlPlane.start() as one, ControlPlane.start() as other:
        one.add_nodes(2)
        assert other.get("nodes")["items"] == []
        ports = [urlparse(plane.server).port for plane in (one, other)]
        places = [one.workdir, other.workdir]
        assert all(processes(place) for place in places)
    assert not any(processes(place) for place in places)
    assert not any(place.exists() for place in places)
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port or 0)) != 0


def test_a_failed_node_is_unknown_starts_and_ends_no_pod_and_comes_back(control_plane: ControlPlane) -> None:
    observer = Observer(control_plane.kubeconfig)
    dead, alive = control_plane.add_nodes(2, prefix="c", labels={"part": "c"}, own_kwok=True)
    try:
        control_plane.apply(workloads.namespace("c"), workloads.deployment("web", 4, "c", nodeSelector={"part": "c"}))
        until(lambda: observer.ready("c", "web") == 4, "all pods to be Ready")
        boot = observer.node(dead)["status"]["nodeInfo"]["bootID"]
        control_plane.fail_node(dead)
        until(lambda: condition(observer, dead) == "Unknown", "the node to be Unknown", seconds=40)
        assert condition(observer, alive) == "True"
        control_plane.kubectl("delete", "pods", "-n", "c", "--all", "--wait=false")
        until(lambda: len(observer.pods("c", node=alive)) >= 4, "the replacements")
        assert all("deletionTimestamp" in pod["metadata"] for pod in observer.pods("c", node=dead))
        assert observer.pods("c", node=dead)
        control_plane.recover_node(dead)
        until(lambda: condition(observer, dead) == "True", "the node to be Ready")
        assert observer.node(dead)["status"]["nodeInfo"]["bootID"] != boot
        until(lambda: not observer.pods("c", node=dead), "its Terminating pods to end")
    finally:
        control_plane.kubectl("delete", "namespace", "c", "--wait=false")
        control_plane.kubectl("delete", "node", dead, alive)


def test_a_free_port_is_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free_port()))
