"""A control plane: etcd, API server, controllers and scheduler are real, nodes are simulated.

kwokctl launches it. No process of it outlives its owner.
"""

import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import yaml

from harness import binaries, processes, rights
from harness.clients import ControlPlaneError
from harness.machines import MAIN, Machines
from harness.waiting import until

_OPEN_LIMITS = {"kube-api-qps": "5000", "kube-api-burst": "10000"}
_TRIES = 3  # attempts to find free ports
_OURS: list[dict[str, Any]] = [
    {"level": "Metadata", "omitStages": ["RequestReceived"], "users": list(rights.ACCOUNTS)},
    {"level": "None"},
]
"""Rules of the audit policy without `audit`: requests of the chart's own accounts, for `rights`."""


def _starting() -> Path:
    """Return the lock file for the choice of ports: two starts at once would choose the same ones."""
    return Path(tempfile.gettempdir()) / f"rescheduler-starting-{os.getuid()}"


class ControlPlane(Machines):
    """A control plane; as a context manager it leaves no process and no file."""

    def __init__(self, workdir: Path, name: str) -> None:
        super().__init__(workdir, name)
        self.audit_log: Path | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._again: dict[str, subprocess.Popen[bytes]] = {}  # components that were restarted, by program
        self._apiserver: list[str] = []
        self._ports: IO[str] | None = None
        self._server_names: list[str] = []

    @classmethod
    def start(
        cls,
        *,
        name: str | None = None,
        workdir: Path | None = None,
        node_monitor_grace_period: str = "12s",
        lease_seconds: int | None = None,
        audit: bool = False,
        bodies_of: str = "",
        extra_args: Mapping[str, Mapping[str, str]] | None = None,
        server_names: Sequence[str] = (),
        open_limits: bool = False,
        keep: bool = False,
    ) -> "ControlPlane":
        """Start a control plane and wait until it is ready. Raises ControlPlaneError after a cleanup.

        It ends with this process, however that ends, unless `keep`. `lease_seconds`: duration of node Leases, which
        KWOK renews
        after a quarter of it. `bodies_of`: a user whose writes are audited with request and response. `server_names`:
        more names and addresses for the certificate of the API server.
        """
        binaries.ensure()
        binaries.cache().parent.mkdir(parents=True, exist_ok=True)
        workdir = workdir or Path(tempfile.mkdtemp(prefix="rescheduler-cluster-"))
        workdir.mkdir(parents=True, exist_ok=True)
        plane = cls(workdir, name or f"c{secrets.token_hex(4)}")
        plane._server_names = list(server_names)
        grace = _seconds(node_monitor_grace_period)
        # KWOK renews a Lease after a quarter of its duration. Three renewals must fit into the grace period, or a busy
        # machine makes healthy nodes Unknown.
        plane._lease_seconds = lease_seconds or max(4, min(40, int(grace * 4 / 3)))
        # Without leader election these components outlive an outage of the API server: nothing would restart them.
        common = {"bind-address": "127.0.0.1", "leader-elect": "false"}
        arguments = {
            "kube-controller-manager": {
                "node-monitor-grace-period": node_monitor_grace_period,
                "node-monitor-period": "1s" if grace < 20 else "5s",
                **common,
                **(_OPEN_LIMITS | {"concurrent-disruption-syncs": "16"} if open_limits else {}),
            },
            "kube-scheduler": {**common, **(_OPEN_LIMITS if open_limits else {})},
            "etcd": {"unsafe-no-fsync": "true"},
        }
        for component, more in (extra_args or {}).items():
            arguments.setdefault(component, {}).update(more)
        try:
            if not keep:
                plane._watch_over()
            with _starting().open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                plane._create_on_free_ports(arguments, _audited(bodies_of) if audit else _OURS)
            plane._rack(MAIN)
        except BaseException:
            plane.stop()
            raise
        return plane

    def _create_on_free_ports(
        self, arguments: Mapping[str, Mapping[str, str]], audited: Sequence[Mapping[str, Any]]
    ) -> None:
        """Create the control plane; if another process took a port meanwhile, retry on other ports."""
        for _ in range(_TRIES - 1):
            try:
                return self._create(arguments, audited)
            except ControlPlaneError as error:
                if "address already in use" not in str(error):
                    raise
                self._kill_components()
                shutil.rmtree(self.workdir / "clusters", ignore_errors=True)
        return self._create(arguments, audited)

    def _create(self, arguments: Mapping[str, Mapping[str, str]], audited: Sequence[Mapping[str, Any]]) -> None:
        config = {
            "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
            "kind": "KwokctlConfiguration",
            "options": {
                "bindAddress": "127.0.0.1",
                "disable": ["kwok-controller"],
                "kubeApiserverCertSANs": self._server_names,
            },
            # Not by --extra-args: with two flags for a second component kwokctl 0.8.0 mixes components up.
            "componentsPatches": [
                {"name": component, "extraArgs": [{"key": flag, "value": value} for flag, value in flags.items()]}
                for component, flags in arguments.items()
            ],
        }
        (self.workdir / "kwokctl.yaml").write_text(yaml.safe_dump(config))
        command = ["create", "cluster", "--runtime", "binary", "--timeout", "30s", "--heartbeat-factor", "1"]
        command += ["--kubeconfig", str(self.kubeconfig), "--disable", "kwok-controller"]
        for program in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
            command += [f"--{program}-binary", str(binaries.path(program))]
        command += ["--kwok-controller-binary", str(binaries.path("kwok"))]
        policy = self.workdir / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(audited)}))
        command += ["--kube-audit-policy", str(policy)]
        self.audit_log = self.workdir / "clusters" / self.name / "logs" / "audit.log"
        try:
            self._kwokctl(*command)
        except subprocess.TimeoutExpired as error:
            raise ControlPlaneError(f"kwokctl did not end: {(error.stderr or b'')[-2000:]!r}") from error
        view = yaml.safe_load(self.kubeconfig.read_text())
        self.server = view["clusters"][0]["cluster"]["server"]
        until(self._is_up, "the control plane to be ready", seconds=120)

    def _is_up(self) -> bool:
        """Whether all components are ready.

        Raises ControlPlaneError if a component ended, because kwokctl would wait on.
        """
        alive = {processes.program(pid) for pid in processes.of(self.workdir)}
        for program in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
            if program not in alive:
                log = self.logs().get(program)
                raise ControlPlaneError(f"{program} ended:\n{log.read_text()[-2000:] if log else ''}")
        return self._answers()

    def _kwokctl(self, *arguments: str) -> str:
        command = [str(binaries.path("kwokctl")), "--name", self.name, "-c", str(self.workdir / "kwokctl.yaml")]
        environment = {**os.environ, "KWOK_WORKDIR": str(self.workdir), "HOME": str(self.workdir)}
        result = subprocess.run(
            [*command, *arguments], env=environment, check=False, capture_output=True, text=True, timeout=180
        )
        if result.returncode:
            raise ControlPlaneError(f"kwokctl {arguments[0]} failed:\n{(result.stdout + result.stderr)[-3000:]}")
        return result.stdout

    def _watch_over(self) -> None:
        """Start a guard that ends the control plane if this process dies without a cleanup."""
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "harness.guard", str(self.workdir), self.name],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def stop(self) -> None:
        """Kill every process and remove every file: no state of a control plane is worth an orderly end."""
        self._kill_components()
        for process in (*self._racks.values(), *self._again.values()):
            process.wait()
        self._racks.clear()
        self._again.clear()
        if self.audit_log:
            rights.keep(self.name, self.audit_log)
        shutil.rmtree(self.workdir, ignore_errors=True)
        if self._guard and self._guard.stdin:
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None

    def _kill_components(self) -> None:
        deadline, killed = time.monotonic() + 30, set[int]()
        while (pids := processes.of(self.workdir)) or not all(map(processes.ended, killed)):
            if time.monotonic() > deadline:
                raise ControlPlaneError(f"processes {sorted({*pids, *killed})} do not end")
            for pid in pids:
                processes.kill(pid, signal.SIGKILL)
            killed.update(pids)
            time.sleep(0.05)

    def __enter__(self) -> "ControlPlane":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop_apiserver(self) -> None:
        """Kill the API server as a crash does; its port and data stay."""
        # A control plane that starts meanwhile would take the port.
        self._ports = _starting().open("w")
        fcntl.flock(self._ports, fcntl.LOCK_EX)
        self._apiserver = self._end("kube-apiserver")

    def start_apiserver(self) -> None:
        """Restart the API server and the components that depend on it, and wait until they are ready.

        Raises ControlPlaneError with the log of a component that ended.
        """
        try:
            self._start("kube-apiserver", self._apiserver)
            self.wait_ready()
            # Watches of other components back off up to a minute, KWOK's for longer: no pod would be created or run
            # until then.
            for program in ("kube-controller-manager", "kube-scheduler"):
                self._restart(program)
        finally:
            # Not earlier: a control plane that starts meanwhile would take the port of a component that was ended.
            if self._ports:
                self._ports.close()
        for rack in [name for name, process in self._racks.items() if process.poll() is None]:
            self.fail_rack(rack)
            self.recover_rack(rack)

    def _restart(self, program: str) -> None:
        """Restart a component, and wait until it listens on its port."""
        command = self._end(program)
        self._start(program, command)
        until(lambda: self._listens(program, command), f"{program} to be ready", seconds=60)

    def _listens(self, program: str, command: Sequence[str]) -> bool:
        """Whether a restarted component listens on its port. Raises ControlPlaneError if it ended."""
        if self._again[program].poll() is not None:
            raise ControlPlaneError(f"{program} ended:\n{self._log_again(program).read_text()[-2000:]}")
        (port,) = [argument.partition("=")[2] for argument in command if argument.startswith("--secure-port=")]
        return processes.has_listener(int(port))

    @contextmanager
    def paused(self, program: str) -> Iterator[None]:
        """Pause a component, as on a machine that is too busy."""
        (pid,) = [p for p in processes.of(self.workdir) if processes.program(p) == program and not processes.ended(p)]
        processes.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            processes.kill(pid, signal.SIGCONT)

    @contextmanager
    def stopped(self, *programs: str) -> Iterator[None]:
        """Stop components; they start again with all that was written meanwhile."""
        commands = {program: self._end(program) for program in programs}
        yield
        for program, command in commands.items():
            self._start(program, command)
            until(partial(self._listens, program, command), f"{program} to be ready", seconds=60)

    def _end(self, program: str) -> list[str]:
        """Kill a component; return its command line."""
        (pid,) = [p for p in processes.of(self.workdir) if processes.program(p) == program and not processes.ended(p)]
        command = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
        # Not SIGTERM: the component would wait a minute for watches to end.
        processes.kill(pid, signal.SIGKILL)
        until(lambda: processes.ended(pid), f"{program} to end", seconds=60)
        if again := self._again.pop(program, None):
            again.wait()
        return command

    def _start(self, program: str, command: Sequence[str]) -> None:
        with self._log_again(program).open("ab") as log:
            self._again[program] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def _log_again(self, program: str) -> Path:
        return self.workdir / f"{program}-again.log"

    def wait_ready(self, seconds: float = 60) -> None:
        """Wait for /readyz."""
        until(self._answers, "the API server", seconds=seconds)

    def _answers(self) -> bool:
        return self.kubectl("get", "--raw", "/readyz", check=False).strip() == "ok"


def _audited(bodies_of: str) -> list[dict[str, Any]]:
    """Return rules of the audit policy."""
    every: list[dict[str, Any]] = [{"level": "Metadata", "omitStages": ["RequestReceived"]}]
    if not bodies_of:
        return every
    writes = ["create", "update", "patch", "delete"]
    return [{**every[0], "level": "RequestResponse", "users": [bodies_of], "verbs": writes}, *every]


def _seconds(duration: str) -> float:
    """Parse a duration in one unit, such as 12s or 1m."""
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]
