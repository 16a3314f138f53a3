"""Processes of control planes, and ports for them."""

import os
import secrets
import socket
from pathlib import Path

from harness import binaries

_PORTS = range(20000, 30000)


def free_port() -> int:
    """Return a free port below those that the kernel assigns, so that no connection takes it meanwhile."""
    while True:
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port


def has_listener(port: int) -> bool:
    """Whether a process of this machine listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def of(workdir: Path) -> list[int]:
    """Return programs of a control plane whose command line names this working directory."""
    # With the slash: otherwise `dev` would match `dev2` too.
    found, mine = [], f"{workdir}/".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            called = Path(line.split(b"\0", 1)[0].decode(errors="replace")).name
            if mine in line and called in {p.name for p in binaries.PROGRAMS}:
                found.append(int(entry.name))
    return found


def program(pid: int) -> str:
    """Return the program of a process; empty if the process is gone."""
    try:
        return Path(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0", 1)[0].decode()).name
    except OSError:
        return ""


def ended(pid: int) -> bool:
    """Whether all threads have ended: a zombie keeps its ports until then."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state in "ZX" and len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1
    except OSError:
        return True


def kill(pid: int, number: int) -> None:
    """Send a signal to a process; ignore a process that is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
