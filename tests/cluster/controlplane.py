"""A control plane of its own for whoever asks: etcd, API server, controllers and scheduler are real, nodes simulated.

kwokctl launches it; the KWOK processes that play the kubelets are ours, one for each rack: killing one is what a
dead kubelet looks like (no heartbeat, no pod started, no pod ended).
"""

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from cluster import binaries
from cluster.waiting import until

RACK = "cluster/rack"
"""Node label: which KWOK process plays its kubelet."""
MAIN = "main"
_STAGES = Path(__file__).parent / "stages"
_OPEN_LIMITS = {"kube-api-qps": "5000", "kube-api-burst": "10000"}


class ControlPlaneError(Exception):
    """It did not start, or does not do as told; the message carries what the program said."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ControlPlane:
    """One control plane; a context manager that leaves no process and no file behind.

    Attributes:
        kubeconfig: of the administrator.
        server: address of the API server.
        workdir: everything of it: state, logs, keys.
    """

    def __init__(self, workdir: Path, name: str) -> None:
        self.workdir, self.name = workdir, name
        self.kubeconfig = workdir / "kubeconfig"
        self.audit_log: Path | None = None
        self.server = ""
        self._racks: dict[str, subprocess.Popen[bytes]] = {}
        self._apiserver: list[str] = []

    # -- life ------------------------------------------------------------------------------------------------------

    @classmethod
    def start(
        cls,
        *,
        name: str | None = None,
        workdir: Path | None = None,
        node_monitor_grace_period: str = "12s",
        audit: bool = False,
        extra_args: Mapping[str, Mapping[str, str]] | None = None,
        open_limits: bool = False,
    ) -> "ControlPlane":
        """Start one and wait until it is ready. Raises ControlPlaneError, having cleaned up."""
        binaries.ensure()
        binaries.cache().parent.mkdir(parents=True, exist_ok=True)
        workdir = workdir or Path(tempfile.mkdtemp(prefix="rescheduler-cluster-"))
        workdir.mkdir(parents=True, exist_ok=True)
        plane = cls(workdir, name or f"c{secrets.token_hex(4)}")
        arguments = {
            "kube-controller-manager": {
                "node-monitor-grace-period": node_monitor_grace_period,
                "node-monitor-period": "1s" if node_monitor_grace_period == "12s" else "5s",
                "bind-address": "127.0.0.1",
                **(_OPEN_LIMITS | {"concurrent-disruption-syncs": "16"} if open_limits else {}),
            },
            "kube-scheduler": {"bind-address": "127.0.0.1", **(_OPEN_LIMITS if open_limits else {})},
            "etcd": {"unsafe-no-fsync": "true"},
        }
        for component, more in (extra_args or {}).items():
            arguments.setdefault(component, {}).update(more)
        try:
            # Two that start at once would find the same ports free.
            with (binaries.cache().parent / ".starting").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                plane._create(arguments, audit=audit)
            plane._rack(MAIN)
        except BaseException:
            plane.stop()
            raise
        return plane

    def _create(self, arguments: Mapping[str, Mapping[str, str]], *, audit: bool) -> None:
        config = {
            "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
            "kind": "KwokctlConfiguration",
            "options": {"bindAddress": "127.0.0.1", "disable": ["kwok-controller"]},
        }
        (self.workdir / "kwokctl.yaml").write_text(yaml.safe_dump(config))
        command = ["create", "cluster", "--runtime", "binary", "--wait", "120s", "--heartbeat-factor", "1"]
        command += ["--kubeconfig", str(self.kubeconfig), "--disable", "kwok-controller"]
        for program in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
            command += [f"--{program}-binary", str(binaries.path(program))]
        command += ["--kwok-controller-binary", str(binaries.path("kwok"))]
        for component, flags in arguments.items():
            for flag, value in flags.items():
                command += ["--extra-args", f"{component}={flag}={value}"]
        if audit:
            policy = self.workdir / "audit-policy.yaml"
            rules = [{"level": "Metadata", "omitStages": ["RequestReceived"]}]
            policy.write_text(yaml.safe_dump({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}))
            command += ["--kube-audit-policy", str(policy)]
            self.audit_log = self.workdir / "clusters" / self.name / "logs" / "audit.log"
        self._kwokctl(*command)
        view = yaml.safe_load(self.kubeconfig.read_text())
        self.server = view["clusters"][0]["cluster"]["server"]

    def _kwokctl(self, *arguments: str) -> str:
        command = [str(binaries.path("kwokctl")), "--name", self.name, "-c", str(self.workdir / "kwokctl.yaml")]
        environment = {**os.environ, "KWOK_WORKDIR": str(self.workdir), "HOME": str(self.workdir)}
        result = subprocess.run(
            [*command, *arguments], env=environment, check=False, capture_output=True, text=True, timeout=180
        )
        if result.returncode:
            raise ControlPlaneError(f"kwokctl {arguments[0]} failed:\n{(result.stdout + result.stderr)[-3000:]}")
        return result.stdout

    def stop(self) -> None:
        """End every process and remove every file of it."""
        for process in self._racks.values():
            _end(process)
        self._racks.clear()
        for pid in self._pid_file_pids():
            _kill(pid, signal.SIGTERM)
        if (self.workdir / "clusters" / self.name).exists() or self.kubeconfig.exists():
            try:
                self._kwokctl("delete", "cluster", "--kubeconfig", str(self.kubeconfig))
            except (ControlPlaneError, subprocess.TimeoutExpired):
                for pid in self._component_pids():
                    _kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while (left := self._component_pids()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in left:
            _kill(pid, signal.SIGKILL)
        shutil.rmtree(self.workdir, ignore_errors=True)

    def _component_pids(self) -> list[int]:
        """Processes whose command line names our working directory."""
        found, mine = [], str(self.workdir).encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    line = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                program = Path(line.split(b"\0", 1)[0].decode(errors="replace")).name
                if mine in line and program in {p.name for p in binaries.PROGRAMS}:
                    found.append(int(entry.name))
        return found

    def _pid_file_pids(self) -> list[int]:
        """KWOK processes that another process of ours started, by the files it left."""
        return [int(file.read_text()) for file in self.workdir.glob("rack-*.pid")]

    def __enter__(self) -> "ControlPlane":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop_apiserver(self) -> None:
        """Take the API server away; its port and data stay."""
        (pid,) = [p for p in self._component_pids() if _program(p) == "kube-apiserver"]
        self._apiserver = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
        _kill(pid, signal.SIGTERM)
        until(lambda: _ended(pid), "the API server to end", seconds=60)

    def start_apiserver(self) -> None:
        """Bring the API server back, and wait until it is ready."""
        with (self.workdir / "apiserver-again.log").open("ab") as log:
            process = subprocess.Popen(self._apiserver, stdout=log, stderr=log, start_new_session=True)
        self._racks["apiserver"] = process
        (self.workdir / "rack-apiserver.pid").write_text(str(process.pid))
        self.wait_ready()

    def wait_ready(self, seconds: float = 60) -> None:
        """Wait for /readyz."""
        until(
            lambda: self.kubectl("get", "--raw", "/readyz", check=False).strip() == "ok",
            "the API server",
            seconds=seconds,
        )

    # -- use -------------------------------------------------------------------------------------------------------

    def kubectl(
        self, *arguments: str, input: str | None = None, check: bool = True, kubeconfig: Path | None = None
    ) -> str:
        """What kubectl prints; without `check` its errors too."""
        command = [str(binaries.path("kubectl")), "--kubeconfig", str(kubeconfig or self.kubeconfig), *arguments]
        result = subprocess.run(command, input=input, check=False, capture_output=True, text=True, timeout=120)
        if check and result.returncode:
            raise ControlPlaneError(f"kubectl {' '.join(arguments)}: {result.stderr}")
        return result.stdout if check else result.stdout + result.stderr

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create or change these objects."""
        body = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(body))

    def get(self, *arguments: str) -> Any:
        """`kubectl get … -o json`, parsed."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def logs(self) -> dict[str, Path]:
        """Component to its log file."""
        return {file.stem: file for file in (self.workdir / "clusters" / self.name / "logs").glob("*.log")}

    def identity_kubeconfig(self, namespace: str, service_account: str) -> Path:
        """A kubeconfig with a token of this ServiceAccount: tests never run the operator as admin."""
        token = self.kubectl("create", "token", service_account, "-n", namespace, "--duration=24h").strip()
        view = yaml.safe_load(self.kubectl("config", "view", "--raw"))
        cluster = view["clusters"][0]["cluster"]
        view["users"] = [{"name": service_account, "user": {"token": token}}]
        view["clusters"] = [{"name": "cluster", "cluster": cluster}]
        context = {"cluster": "cluster", "user": service_account, "namespace": namespace}
        view |= {"contexts": [{"name": "it", "context": context}], "current-context": "it"}
        path = self.workdir / f"{namespace}-{service_account}.kubeconfig"
        path.write_text(yaml.safe_dump(view))
        path.chmod(0o600)
        return path

    # -- nodes -----------------------------------------------------------------------------------------------------

    def add_nodes(
        self,
        count: int,
        *,
        prefix: str = "n",
        labels: Mapping[str, str] | None = None,
        cpu: str = "8",
        memory: str = "32Gi",
        pods: str = "250",
        zones: Sequence[str] = (),
        own_kwok: bool = False,
        rack: str | None = None,
    ) -> list[str]:
        """Add simulated nodes and wait until they are Ready.

        With `own_kwok` each has a KWOK process of its own; those of a `rack` share one; others the main one.
        """
        names = [f"{prefix}{index + 1}" for index in range(count)]
        bodies: list[dict[str, Any]] = []
        for index, name in enumerate(names):
            where = name if own_kwok else rack or MAIN
            zone = {"topology.kubernetes.io/zone": zones[index % len(zones)]} if zones else {}
            bodies.append(_node(name, {**(labels or {}), **zone, RACK: where}, cpu, memory, pods))
        self.apply(*bodies)
        for where in {body["metadata"]["labels"][RACK] for body in bodies}:
            self._rack(where)
        self.kubectl("wait", "--for=condition=Ready", "--timeout=90s", *(f"node/{name}" for name in names))
        return names

    def _rack(self, name: str) -> None:
        running = self._racks.get(name)
        if running and running.poll() is None:
            return
        # KWOK plays nodes with the annotation that the stock simulator looks for; the label narrows it to the rack.
        command = [
            str(binaries.path("kwok")),
            "--kubeconfig",
            str(self.kubeconfig),
            f"--manage-nodes-with-label-selector={RACK}={name}",
            "--node-lease-duration-seconds=40",
            "--cidr=10.0.0.0/8",
            f"--server-address=127.0.0.1:{free_port()}",
            *(f"--config={file}" for file in sorted(_STAGES.glob("*.yaml"))),
        ]
        with (self.workdir / f"kwok-{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._racks[name] = process
        (self.workdir / f"rack-{name}.pid").write_text(str(process.pid))

    def fail_node(self, name: str) -> None:
        """Its kubelet is dead from now on; it must have a KWOK process of its own."""
        self.fail_rack(name)

    def fail_rack(self, rack: str) -> None:
        """The kubelets of all its nodes are dead from now on."""
        process = self._racks[rack]
        process.kill()
        process.wait()
        (self.workdir / f"rack-{rack}.pid").unlink(missing_ok=True)

    def recover_node(self, name: str, *, new_boot: bool = True) -> None:
        """Its kubelet runs again, after a reboot unless said otherwise."""
        if new_boot:
            body = json.dumps({"status": {"nodeInfo": {"bootID": secrets.token_hex(16)}}})
            self.kubectl("patch", "node", name, "--subresource=status", "--type=strategic", "-p", body)
        self.recover_rack(name)

    def recover_rack(self, rack: str) -> None:
        """The kubelets of all its nodes run again."""
        # A new KWOK process would wait for the old one's Leases to run out; a kubelet takes its own at once.
        nodes = self.kubectl("get", "nodes", "-l", f"{RACK}={rack}", "-o", "jsonpath={.items[*].metadata.name}").split()
        self.kubectl("delete", "lease", "-n", "kube-node-lease", *nodes, "--ignore-not-found")
        self._rack(rack)


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


def _program(pid: int) -> str:
    return Path(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0", 1)[0].decode()).name


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
