"""End a control plane whose owner died: by SIGTERM, by SIGKILL, or because the test runner did not wait.

Its standard input is a pipe that only the owner holds open, so the kernel closes it at every kind of death.
"""

import sys
from pathlib import Path

from harness.controlplane import ControlPlane


def main(workdir: Path, name: str) -> None:
    """Wait for the owner to end, then end its control plane."""
    sys.stdin.read()
    if workdir.exists():
        ControlPlane(workdir, name).stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
