"""Another drain tool, as the fourth way of the catalogue: a folder with its programs."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_ENDS_WITHIN = 10  # seconds after SIGTERM


@dataclass(frozen=True)
class Peer:
    """The programs of another drain tool, such as soft-drain. They find the cluster by KUBECONFIG.

    Attributes:
        folder: has `drain`, which gets names of nodes and ends with 0 when they are drained, and may have
            `controller`, which runs all the time.
        kubeconfig: of an admin.
    """

    folder: Path
    kubeconfig: Path

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run `controller`, if the folder has one. Raises ChildProcessError if it ended by itself."""
        program = self.folder / "controller"
        if not program.exists():
            yield
            return
        with subprocess.Popen([str(program)], env=self._environment, stdout=subprocess.DEVNULL) as process:
            try:
                yield
                if process.poll() is not None:
                    raise ChildProcessError(f"{program} ended with {process.returncode} before the catalogue did")
            finally:
                process.terminate()
                try:
                    process.wait(_ENDS_WITHIN)
                except subprocess.TimeoutExpired:
                    process.kill()

    def drain(self, nodes: Sequence[str], seconds: float) -> tuple[bool, tuple[str, ...]]:
        """Return whether the nodes are drained within the time limit, and the last lines of its errors."""
        command = [str(self.folder / "drain"), *nodes]
        try:
            ended = subprocess.run(
                command, env=self._environment, capture_output=True, text=True, check=False, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return False, ()
        return not ended.returncode, tuple(ended.stderr.splitlines()[-3:]) if ended.returncode else ()

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
