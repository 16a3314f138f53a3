"""Simulated machines: KWOK processes act as kubelets, one for each rack.

A killed KWOK process looks like a dead kubelet: no heartbeat, no pod started, no pod ended.
"""

import json
import secrets
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from harness import binaries, processes
from harness.clients import Clients
from harness.waiting import until

RACK = "cluster/rack"
"""Node label: the KWOK process that acts as its kubelet."""
MAIN = "main"
_STAGES = Path(__file__).parent / "stages"


def _usable(node: Mapping[str, Any]) -> bool:
    """Whether the scheduler may use the node, by the state that its kubelet reports."""
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", ()))
    return ready and all(t["key"] != "node.kubernetes.io/not-ready" for t in node["spec"].get("taints", ()))


class Machines(Clients):
    """The nodes of one control plane."""

    def __init__(self, workdir: Path, name: str) -> None:
        super().__init__(workdir, name)
        self._lease_seconds = 40
        self._racks: dict[str, subprocess.Popen[bytes]] = {}

    def add_nodes(
        self,
        count: int,
        *,
        prefix: str = "n",
        first: int = 1,
        labels: Mapping[str, str] | None = None,
        taints: Sequence[Mapping[str, str]] = (),
        cpu: str = "8",
        memory: str = "32Gi",
        pods: str = "250",
        zones: Sequence[str] = (),
        own_kwok: bool = False,
        rack: str | None = None,
    ) -> list[str]:
        """Add simulated nodes; wait until they are Ready and the scheduler may use them.

        Their names are the prefix with numbers from `first` on. With `own_kwok` each node has its own KWOK process. Nodes of a `rack` share one. Other nodes share the main one.
        """
        names = [f"{prefix}{first + index}" for index in range(count)]
        bodies: list[dict[str, Any]] = []
        for index, name in enumerate(names):
            where = name if own_kwok else rack or MAIN
            zone = {"topology.kubernetes.io/zone": zones[index % len(zones)]} if zones else {}
            body = _node(name, {**(labels or {}), **zone, RACK: where}, cpu, memory, pods)
            bodies.append(body | ({"spec": {"taints": [dict(taint) for taint in taints]}} if taints else {}))
        self.apply(*bodies)
        for where in {body["metadata"]["labels"][RACK] for body in bodies}:
            self._rack(where)
        until(
            lambda: set(names) <= {raw["metadata"]["name"] for raw in self._nodes() if _usable(raw)},
            lambda: f"{count} nodes to be Ready ({self._why_not_ready(names)})",
            seconds=180,
            every=0.2,
        )
        return names

    def _why_not_ready(self, names: Sequence[str]) -> str:
        """Return what the nodes show, and which programs of the control plane run, for the error of a wait."""
        nodes = [raw for raw in self._nodes() if raw["metadata"]["name"] in names]
        seen = {
            raw["metadata"]["name"]: (
                [taint["key"] for taint in raw["spec"].get("taints", ())],
                [f"{c['type']}={c['status']}" for c in raw.get("status", {}).get("conditions", ())],
            )
            for raw in nodes
        }
        running = sorted({processes.program(pid) for pid in processes.of(self.workdir) if not processes.ended(pid)})
        return f"nodes: {seen}; running: {', '.join(running)}"

    def _nodes(self) -> list[dict[str, Any]]:
        """Return all nodes.

        It sends a plain request: a kubectl for each read would take half the time of a small test.
        """
        pair = (str(self.pki / "admin.crt"), str(self.pki / "admin.key"))
        answer = requests.get(f"{self.server}/api/v1/nodes", cert=pair, verify=str(self.pki / "ca.crt"), timeout=30)
        answer.raise_for_status()
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    def _rack(self, name: str) -> None:
        running = self._racks.get(name)
        if running and running.poll() is None:
            return
        # KWOK manages nodes with the stock simulator's annotation; the label limits it to the rack.
        command = [
            str(binaries.path("kwok")),
            "--kubeconfig",
            str(self.kubeconfig),
            f"--manage-nodes-with-label-selector={RACK}={name}",
            f"--node-lease-duration-seconds={self._lease_seconds}",
            "--cidr=10.0.0.0/8",
            "--server-address=127.0.0.1:0",
            *(f"--config={file}" for file in sorted(_STAGES.glob("*.yaml"))),
        ]
        with (self.workdir / f"kwok-{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._racks[name] = process

    def fail_node(self, name: str) -> None:
        """Kill the kubelet of a node, which must have its own KWOK process."""
        self.fail_rack(name)

    def fail_rack(self, rack: str) -> None:
        """Kill the kubelets of all nodes of the rack."""
        process = self._racks[rack]
        process.kill()
        process.wait()

    def pause_node(self, name: str) -> None:
        """Pause the kubelet: it renews no Lease until it is resumed."""
        self._racks[name].send_signal(signal.SIGSTOP)

    def resume_node(self, name: str) -> None:
        """Resume the kubelet."""
        self._racks[name].send_signal(signal.SIGCONT)

    def recover_node(self, name: str, *, new_boot: bool = True) -> None:
        """Start the kubelet of the node again, after a reboot by default."""
        if new_boot:
            body = json.dumps({"status": {"nodeInfo": {"bootID": secrets.token_hex(16)}}})
            self.kubectl("patch", "node", name, "--subresource=status", "--type=strategic", "-p", body)
        self.recover_rack(name)

    def recover_rack(self, rack: str) -> None:
        """Start the kubelets of all nodes of the rack again."""
        # A new KWOK process would wait until the old Leases expire; a kubelet takes its own at once.
        nodes = self.kubectl("get", "nodes", "-l", f"{RACK}={rack}", "-o", "jsonpath={.items[*].metadata.name}").split()
        if nodes:
            self.kubectl("delete", "lease", "-n", "kube-node-lease", *nodes, "--ignore-not-found")
        self._rack(rack)
        for node in nodes:
            self._show_terminating(node)

    def _show_terminating(self, node: str) -> None:
        """Touch Terminating pods: KWOK may miss what it lists while it takes a node over, and sees the change."""
        lease = ("get", "lease", node, "-n", "kube-node-lease", "-o", "name", "--ignore-not-found")
        until(lambda: self.kubectl(*lease), f"KWOK to renew the Lease of {node}")
        for pod in self.get("pods", "-A", f"--field-selector=spec.nodeName={node}")["items"]:
            meta = pod["metadata"]
            if "deletionTimestamp" in meta:
                place = ("pod", meta["name"], "-n", meta["namespace"])
                self.kubectl("annotate", *place, "cluster/shown=again", "--overwrite", check=False)


def _node(name: str, labels: Mapping[str, str], cpu: str, memory: str, pods: str) -> dict[str, Any]:
    size = {"cpu": cpu, "memory": memory, "pods": pods}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **labels},
            "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
        },
        "status": {"allocatable": size, "capacity": size},
    }
