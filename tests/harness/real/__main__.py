"""Run a command in its own lab: `python -m harness.real pytest tests/real`.

Prints the reason if real nodes cannot run here.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from harness import binaries
from harness.real import images

_PROGRAMS = ("unshare", "nsenter", "ip", "mount", "go", "openssl", "nft")
_CGROUPS = Path("/sys/fs/cgroup")


def missing() -> str:
    """Return the reason why real nodes cannot run; empty if they can."""
    if not sys.platform.startswith("linux"):
        return "real nodes need Linux"
    if os.geteuid() != 0:
        return "real nodes need root: namespaces, mounts and cgroups"
    if not images.operator_archive():
        return f"real nodes need an image of the operator: set {images.ARCHIVE} to an archive of it"
    if gone := [name for name in _PROGRAMS if not shutil.which(name)]:
        return f"real nodes need {', '.join(gone)}, which this machine has not"
    if (
        "overlay" not in Path("/proc/filesystems").read_text()
        and subprocess.run(["modprobe", "overlay"], check=False).returncode
    ):
        return "real nodes need overlayfs, which this kernel has not"
    tried = subprocess.run(
        ["unshare", "-m", "-p", "-n", "-f", "--mount-proc", "true"], check=False, capture_output=True
    )
    return "" if tried.returncode == 0 else f"real nodes need namespaces: {tried.stderr.decode().strip()}"


def _remove_cgroups() -> None:
    """Remove the cgroups that containerd makes at the root of the hierarchies, except those of another lab."""
    for root in [*_CGROUPS.glob("k8s.io"), *_CGROUPS.glob("*/k8s.io")]:
        folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
        for folder in sorted(folders, key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):  # it has processes
                folder.rmdir()


def main(command: list[str]) -> int:
    """Return the exit code of the command; 0 with a message if real nodes cannot run."""
    if why := missing():
        sys.stderr.write(f"skipped: {why}\n")
        return 0
    binaries.ensure()
    binaries.ensure([program.name for program in binaries.NODE_PROGRAMS])
    lab = ["unshare", "-m", "-p", "-n", "-f", "--mount-proc", "--propagation", "private", "--kill-child"]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the lab gets the signal too, and ends first
    process = subprocess.Popen([*lab, *command])
    signal.signal(signal.SIGTERM, lambda *_: process.kill())  # unshare blocks SIGTERM: the lab would live on
    try:
        return process.wait()
    finally:
        _remove_cgroups()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
