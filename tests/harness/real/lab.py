"""The lab from inside: a control plane that real nodes reach, and the nodes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from harness import ControlPlane
from harness.clients import ControlPlaneError
from harness.real import images
from harness.waiting import until

GATEWAY = "10.200.0.1"


@dataclass
class Lab:
    """A control plane with real nodes.

    Attributes:
        folder: the built programs, and the state of the nodes.
    """

    plane: ControlPlane
    folder: Path
    nodes: list[str] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add(self, index: int, archive: Path) -> None:
        """Start a node in its own namespaces, and link it with the lab."""
        folder = self.folder / f"n{index}"
        command = ["unshare", "-m", "-n", "-p", "-f", "--mount-proc", "--propagation", "private", "--kill-child"]
        command += [sys.executable, "-m", "harness.real.node", str(folder), str(index)]
        with (self.folder / f"n{index}.log").open("wb") as log:
            process = subprocess.Popen([*command, str(self._kubeconfig()), str(archive)], stdout=log, stderr=log)
        self.processes.append(process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        init = until(lambda: children.read_text().split(), f"node n{index} to start", every=0.02)[0]
        _ip("link", "add", f"v{index}", "type", "veth", "peer", "name", "eth0", "netns", init)
        _ip("link", "set", f"v{index}", "master", "br0", "up")
        _ip("route", "add", f"10.244.{index}.0/24", "via", f"10.200.0.{10 + index}")
        self.nodes.append(f"n{index}")

    def _kubeconfig(self) -> Path:
        """Return the administrator's kubeconfig for nodes; the certificate names the server as localhost."""
        path = self.folder / "kubeconfig"
        if not path.exists():
            view = yaml.safe_load(self.plane.kubectl("config", "view", "--raw", "--flatten"))
            server = view["clusters"][0]["cluster"]
            server["server"] = f"https://{GATEWAY}:{server['server'].rsplit(':', 1)[1]}"
            server["tls-server-name"] = "localhost"
            path.write_text(yaml.safe_dump(view))
        return path

    def ready(self) -> bool:
        """Whether all nodes are Ready. Raises ControlPlaneError if a node ended."""
        for process, name in zip(self.processes, self.nodes, strict=True):
            if process.poll() is not None:
                raise ControlPlaneError(f"node {name} ended:\n{(self.folder / f'{name}.log').read_text()[-2000:]}")
        said = self.plane.kubectl("get", "nodes", "--no-headers", check=False)
        return sum(" Ready " in line for line in said.splitlines()) == len(self.nodes)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@contextmanager
def real_nodes(count: int, folder: Path) -> Iterator[Lab]:
    """Yield a control plane with real nodes; call it inside the lab's namespaces."""
    _ip("link", "set", "lo", "up")
    _ip("link", "add", "br0", "type", "bridge")
    _ip("addr", "add", f"{GATEWAY}/24", "dev", "br0")
    _ip("link", "set", "br0", "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    archive = images.build(folder)
    everywhere = {"kube-apiserver": {"bind-address": "0.0.0.0", "advertise-address": GATEWAY}}
    with ControlPlane.start(audit=True, extra_args=everywhere) as plane:
        lab = Lab(plane, folder)
        try:
            for index in range(1, count + 1):
                lab.add(index, archive)
            until(lab.ready, f"{count} real nodes to be Ready", seconds=90)
            yield lab
        finally:
            for process in lab.processes:
                process.kill()
                process.wait()
