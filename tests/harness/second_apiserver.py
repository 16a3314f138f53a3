"""A second API server on the etcd of a control plane, whose link to etcd may freeze: its view is then old."""

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import requests

from harness import processes
from harness.controlplane import ControlPlane
from harness.waiting import until


class Link:
    """Connections to one server, which freeze and thaw together.

    Attributes:
        frozen: set while no byte gets through.
    """

    def __init__(self, target: str) -> None:
        address = urlsplit(target)
        self._target = (address.hostname or "", address.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.frozen = threading.Event()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._open += (client, server)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                while self.frozen.is_set():
                    time.sleep(0.05)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close all connections."""
        self.frozen.clear()
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextmanager
def second_apiserver(plane: ControlPlane) -> Iterator[tuple[str, Link]]:
    """Run a second API server; yield its address and its link to etcd."""
    (pid,) = [p for p in processes.of(plane.workdir) if processes.program(p) == "kube-apiserver"]
    command = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    port = processes.free_port()
    (etcd,) = [word.partition("=")[2] for word in command if word.startswith("--etcd-servers=")]
    link = Link(etcd)
    changed = {"--secure-port": str(port), "--etcd-servers": link.address}
    words = [f"{key}={changed[key]}" if (key := word.partition("=")[0]) in changed else word for word in command]
    address = f"https://127.0.0.1:{port}"
    with (plane.workdir / "kube-apiserver-second.log").open("ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: _is_ready(plane, address), "the second API server", seconds=120)
        yield address, link
    finally:
        process.kill()
        process.wait()
        link.close()


def _is_ready(plane: ControlPlane, address: str) -> bool:
    pair = (str(plane.pki / "admin.crt"), str(plane.pki / "admin.key"))
    try:
        answer = requests.get(f"{address}/readyz", cert=pair, verify=str(plane.pki / "ca.crt"), timeout=5)
    except requests.RequestException:
        return False
    return answer.ok
