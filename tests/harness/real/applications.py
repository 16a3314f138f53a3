"""Applications on real nodes: an HTTP service, a client of it, and a program that writes to a volume."""

import json
import signal
import subprocess
from collections import Counter
from typing import Any

from harness import workloads
from harness.real.images import PAUSE, SERVER, WRITER
from harness.real.lab import Lab
from harness.real.node import VOLUME_DRIVER
from harness.waiting import until

RATE = 50  # requests a second


def service(
    lab: Lab, space: str, *, replicas: int = 1, budget: dict[str, Any] | None = None, nodes: tuple[str, ...] = ()
) -> None:
    """Deploy an HTTP service, and wait until it is Ready. The app starts in 2 s, and waits for 3 s in its preStop hook.

    `nodes`: schedule the first pods only there.
    """
    container = {
        "name": "app",
        "image": SERVER,
        "imagePullPolicy": "Never",
        "args": ["-startup=2s", "-work=10ms"],
        "ports": [{"containerPort": 8080, "name": "http"}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
        # The request is the share of a busy machine: with 10m the app answers too late while another node starts.
        "resources": {"requests": {"cpu": "200m", "memory": "16Mi"}},
    }
    app = workloads.deployment(
        "web", replicas, space, grace=20, containers=[container], automountServiceAccountToken=False
    )
    http = workloads.service("web", space)
    http["spec"]["ports"] = [{"port": 80, "targetPort": "http", "name": "http"}]
    lab.plane.apply(workloads.namespace(space))
    with lab.only(*nodes):
        lab.plane.apply(app, http)
        if budget:
            lab.plane.apply(workloads.budget("web", space, **budget))
        lab.plane.kubectl("rollout", "status", "deploy/web", "-n", space, "--timeout=90s")


def held(lab: Lab, space: str, node: str) -> None:
    """Deploy a pod on this node that its budget holds there, and wait until it runs: a drain stays in its middle."""
    container = {"name": "app", "image": PAUSE, "imagePullPolicy": "Never"}
    owner = workloads.stateful_set("held", 1, space, containers=[container], automountServiceAccountToken=False)
    lab.plane.apply(workloads.namespace(space))
    with lab.only(node):
        lab.plane.apply(owner, workloads.budget("held", space, maxUnavailable=0))
        lab.plane.kubectl("rollout", "status", "statefulset/held", "-n", space, "--timeout=90s")


def let_go(lab: Lab, space: str) -> None:
    """Delete the budget that holds a pod."""
    lab.plane.kubectl("delete", "pdb", "held", "-n", space)


class Client:
    """A client that sends requests at a steady rate, a new connection each, none repeated.

    It follows the EndpointSlices of the Service, and gets each change `lag` later. With `node` it runs on that node, and
    sends all requests to the cluster IP of the Service.
    """

    def __init__(self, lab: Lab, space: str, *, lag: str = "0s", node: str = "") -> None:
        command = [str(lab.folder / "load"), "-rate", str(RATE)]
        if node:
            address = lab.plane.get("service", "web", "-n", space)["spec"]["clusterIP"]
            command = [*lab.network(node), *command, "-target", f"{address}:80"]
            until(
                lambda: not _failed(subprocess.check_output([*command, "-count", "1"])),
                "kube-proxy to know the Service",
            )
        else:
            command += ["-server", lab.plane.server, "-pki", str(lab.plane.pki), "-lag", lag]
            command += ["-namespace", space, "-service", "web"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def end(self) -> list[dict[str, Any]]:
        """Return all requests: when each began, and its error."""
        self._process.send_signal(signal.SIGTERM)
        output, _ = self._process.communicate(timeout=60)
        return list(json.loads(output))


def failures(requests: list[dict[str, Any]]) -> Counter[str]:
    """Return the failed requests by target and error."""
    return Counter(f"{request['target']}: {request['error']}" for request in requests if request["error"])


def _failed(output: bytes) -> bool:
    return any(request["error"] for request in json.loads(output))


def fullest(lab: Lab, space: str) -> str:
    """Return the node with most of the pods that are not Terminating."""
    where: list[str] = [pod["spec"]["nodeName"] for pod in lab.pods(space)]
    return max(sorted(set(where)), key=where.count)


class Writer:
    """A StatefulSet of one pod that writes to a volume, which can follow it to every node.

    Attributes:
        disk: folder of the volume on the host.
    """

    def __init__(self, lab: Lab, space: str, node: str) -> None:
        """Deploy it on this node, and wait until it writes."""
        self.disk = lab.folder / f"disk-{space}"
        self.disk.mkdir()
        self.disk.chmod(0o777)
        lab.plane.apply(workloads.namespace(space))
        with lab.only(node):
            lab.plane.apply(*self._objects(space))
            until(self.journal, "the writer to write")

    def journal(self) -> list[str]:
        """Return who wrote, line by line: node and UID of the pod."""
        file = self.disk / "journal"
        return file.read_text().splitlines() if file.exists() else []

    def writers(self) -> list[str]:
        """Return the nodes of the writers, in the order of their turns. A node that wrote in two turns is there twice."""
        turns: list[str] = []
        for line in self.journal():
            if not turns or turns[-1] != line:
                turns.append(line)
        return [turn.split("/")[0] for turn in turns]

    def conflicts(self) -> str:
        """Return which writers found another writer at work; empty if there was never more than one."""
        file = self.disk / "conflicts"
        return file.read_text() if file.exists() else ""

    def _objects(self, space: str) -> tuple[dict[str, Any], ...]:
        size, modes = {"storage": "1Gi"}, ["ReadWriteOnce"]
        name = f"{space}-disk"
        volume: dict[str, Any] = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}}
        volume["spec"] = {
            "capacity": size,
            "accessModes": modes,
            "storageClassName": "",
            "flexVolume": {"driver": VOLUME_DRIVER, "options": {"folder": str(self.disk)}},
            "claimRef": {"namespace": space, "name": "disk"},
        }
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "disk", "namespace": space}}
        wanted = {"accessModes": modes, "resources": {"requests": size}, "volumeName": name, "storageClassName": ""}
        container = {
            "name": "writer",
            "image": WRITER,
            "imagePullPolicy": "Never",
            "args": ["/data"],
            "env": [
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                {"name": "WRITER", "value": "$(NODE)/$(POD)"},
            ],
            "volumeMounts": [{"name": "disk", "mountPath": "/data"}],
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        }
        volumes = [{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}]
        owner = workloads.stateful_set(
            "writer", 1, space, containers=[container], volumes=volumes, automountServiceAccountToken=False
        )
        return volume, {**claim, "spec": wanted}, owner


def remove(lab: Lab, space: str) -> None:
    """Delete the namespace of an application, and its volumes."""
    lab.plane.kubectl("delete", "namespace", space, "--wait=false")
    lab.plane.kubectl("delete", "pv", f"{space}-disk", "--ignore-not-found", "--wait=false")
