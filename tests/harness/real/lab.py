"""The lab from inside: a control plane that real nodes reach, and the nodes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness import ControlPlane
from harness.clients import ControlPlaneError
from harness.identities import client_certificate
from harness.real import dns, images
from harness.waiting import until

GATEWAY, SERVER_ADDRESS = "10.200.0.1", "10.96.0.1"


@dataclass
class Lab:
    """A control plane with real nodes.

    Attributes:
        folder: the built programs, and a folder for each node.
        nodes: the outermost process of each node that is switched on.
    """

    plane: ControlPlane
    folder: Path
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def add(self, name: str) -> None:
        """Prepare the folder of a node, and switch the node on."""
        folder = self.folder / name
        folder.mkdir()
        self._kubeconfig(folder / "kubelet.kubeconfig", f"/O=system:nodes/CN=system:node:{name}")
        self._kubeconfig(folder / "kube-proxy.kubeconfig", "/CN=system:kube-proxy")
        self.power_on(name)

    def power_on(self, name: str) -> None:
        """Start a node in its own namespaces, and link it with the lab."""
        index = _index(name)
        command = ["unshare", "-m", "-n", "-p", "-f", "--mount-proc", "--propagation", "private", "--kill-child"]
        command += [sys.executable, "-m", "harness.real.node", "boot", str(self.folder / name), str(index)]
        with self._log(name).open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self.nodes[name] = process
        # The kernel removes the link of a node that was switched off a moment later.
        until(lambda: not Path(f"/sys/class/net/v{index}").exists(), f"the old link of {name} to be gone")
        _ip("link", "add", f"v{index}", "type", "veth", "peer", "name", "eth0", "netns", self._init(name))
        _ip("link", "set", f"v{index}", "master", "br0", "up")
        _ip("route", "replace", f"10.244.{index}.0/24", "via", f"10.200.0.{10 + index}")

    def power_off(self, name: str) -> None:
        """Kill all processes of a node at once."""
        process = self.nodes.pop(name)
        os.kill(int(self._init_of(process)), signal.SIGKILL)
        process.wait()

    def kill_services(self, name: str) -> None:
        """Kill the kubelet and containerd; the containers of the node go on."""
        for program in ("kubelet", "containerd"):
            self.run(name, "kill", "-KILL", (self.folder / name / f"{program}.pid").read_text())

    def start_services(self, name: str) -> None:
        """Start containerd and the kubelet again."""
        self.run(
            name, sys.executable, "-m", "harness.real.node", "services", str(self.folder / name), str(_index(name))
        )

    def cut_off(self, name: str) -> None:
        """Cut the network of a node; its containers go on."""
        _ip("link", "set", f"v{_index(name)}", "down")

    def connect(self, name: str) -> None:
        """Restore the network of a node."""
        _ip("link", "set", f"v{_index(name)}", "up")

    def run(self, name: str, *command: str) -> str:
        """Run a command in the namespaces of a node; return its output. Raises CalledProcessError."""
        with self._log(name).open("ab") as log:
            ended = subprocess.run([*self.inside(name), *command], check=True, stdout=subprocess.PIPE, stderr=log)
        return ended.stdout.decode()

    def inside(self, name: str) -> list[str]:
        """Return the start of a command that runs in the namespaces of a node."""
        # A change of the mount namespace would leave the command in /, where the modules of the harness are not found.
        return ["nsenter", "-t", self._init(name), "-m", "-p", "-n", "env", "-C", str(Path.cwd())]

    def network(self, name: str) -> list[str]:
        """Return the start of a command that runs in the network of a node; signals reach the command."""
        return ["nsenter", "-t", self._init(name), "-n"]

    @contextmanager
    def only(self, *names: str) -> Iterator[None]:
        """Let the scheduler use only these nodes for a while; all nodes if none is named."""
        others = [name for name in self.nodes if names and name not in names]
        for name in others:
            self.plane.kubectl("cordon", name)
        try:
            yield
        finally:
            for name in others:
                self.plane.kubectl("uncordon", name)

    def pods(self, namespace: str, node: str = "") -> list[dict[str, Any]]:
        """Return pods of a namespace that are not Terminating, on one node if it is named."""
        place = [f"--field-selector=spec.nodeName={node}"] if node else []
        found = self.plane.get("pods", "-n", namespace, *place)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def processes(self, pod: dict[str, Any]) -> list[Path]:
        """Return the folders in /proc of the processes of a pod's first container."""
        container = pod["status"]["containerStatuses"][0]["containerID"].rsplit("/", 1)[1]
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and container in (folder / "cgroup").read_text():
                    found.append(folder)
        return found

    def ready(self) -> bool:
        """Whether all nodes are Ready. Raises ControlPlaneError if a node ended."""
        for name, process in self.nodes.items():
            if process.poll() is not None:
                raise ControlPlaneError(f"node {name} ended:\n{self._log(name).read_text()[-2000:]}")
        said = self.plane.kubectl("get", "nodes", "--no-headers", check=False)
        return sum(" Ready" in line for line in said.splitlines()) == len(self.nodes)

    def _init(self, name: str) -> str:
        """Return the process ID of the first process of a node."""
        return self._init_of(self.nodes[name])

    def _init_of(self, process: subprocess.Popen[bytes]) -> str:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        return until(lambda: children.read_text().split(), "a node to start", every=0.02)[0]

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _kubeconfig(self, path: Path, subject: str) -> None:
        """Write a kubeconfig for a subject, with the address that nodes reach."""
        certificate, key = client_certificate(self.plane, subject)
        view = yaml.safe_load(self.plane.kubectl("config", "view", "--raw", "--flatten"))
        server = view["clusters"][0]["cluster"]
        server["server"] = f"https://{GATEWAY}:{server['server'].rsplit(':', 1)[1]}"
        view["users"][0]["user"] = {"client-certificate": str(certificate), "client-key": str(key)}
        path.write_text(yaml.safe_dump(view))


def _index(name: str) -> int:
    return int(name[1:])


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _network() -> None:
    """Make the network that joins the nodes."""
    _ip("link", "set", "lo", "up")
    _ip("link", "add", "br0", "type", "bridge")
    _ip("addr", "add", f"{GATEWAY}/24", "dev", "br0")
    _ip("link", "set", "br0", "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _images(folder: Path) -> None:
    """Lay the images for all nodes ready. The operator's image has a second tag, for an upgrade."""
    (folder / "images").mkdir()
    images.build(folder).rename(folder / "images" / "tests.tar")
    (folder / "images" / "operator.tar").symlink_to(os.environ[images.ARCHIVE])
    operator = images.operator_image()
    (folder / "tags.json").write_text(json.dumps({operator: f"{operator}-next"}))


@contextmanager
def real_nodes(count: int, folder: Path) -> Iterator[Lab]:
    """Yield a control plane with real nodes, kube-proxy and DNS; call it inside the lab's namespaces."""
    _network()
    _images(folder)
    flags = {
        "bind-address": "0.0.0.0",
        "advertise-address": GATEWAY,
        "service-cluster-ip-range": "10.96.0.0/16",
        "kubelet-preferred-address-types": "InternalIP",
    }
    with ControlPlane.start(
        audit=True, extra_args={"kube-apiserver": flags}, server_names=[GATEWAY, SERVER_ADDRESS]
    ) as plane:
        lab = Lab(plane, folder)
        try:
            for index in range(1, count + 1):
                lab.add(f"n{index}")
            until(lab.ready, f"{count} real nodes to be Ready", seconds=180)
            dns.install(plane)
            yield lab
        finally:
            for process in lab.nodes.values():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                process.wait()
