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
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import requests
import yaml

from cluster import binaries
from cluster.waiting import until

RACK = "cluster/rack"
"""Node label: which KWOK process plays its kubelet."""
MAIN = "main"
_STAGES = Path(__file__).parent / "stages"
_OPEN_LIMITS = {"kube-api-qps": "5000", "kube-api-burst": "10000"}


_TRIES = 3  # to find free ports
_PORTS = range(20000, 30000)
_AT_ONCE = 200  # objects of one `kubectl apply`, which has its time limit


class ControlPlaneError(Exception):
    """It did not start, or does not do as told; the message carries what the program said."""


def _starting() -> Path:
    """Locked by whoever is choosing ports: two that start at once would find the same ones free."""
    return Path(tempfile.gettempdir()) / f"rescheduler-starting-{os.getuid()}"


def free_port() -> int:
    """A port that nobody has now; no connection is given it meanwhile, for it is below those that the kernel hands out."""
    while True:
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port


def _usable(node: Mapping[str, Any]) -> bool:
    """Whether the scheduler may use the node, as far as it is up to its kubelet."""
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", ()))
    return ready and all(t["key"] != "node.kubernetes.io/not-ready" for t in node["spec"].get("taints", ()))


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
        self._lease_seconds = 40
        self._guard: subprocess.Popen[bytes] | None = None
        self._racks: dict[str, subprocess.Popen[bytes]] = {}
        self._again: dict[str, subprocess.Popen[bytes]] = {}  # components that we started anew, by program
        self._apiserver: list[str] = []
        self._ports: IO[str] | None = None

    # -- life ------------------------------------------------------------------------------------------------------

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
        open_limits: bool = False,
        keep: bool = False,
    ) -> "ControlPlane":
        """Start one and wait until it is ready. Raises ControlPlaneError, having cleaned up.

        It ends with this process, however that ends, unless `keep`. `lease_seconds`: of nodes; a quarter of it after
        the last time they are renewed. `bodies_of`: a user whose writes are audited with
        what they said and what came of them.
        """
        binaries.ensure()
        binaries.cache().parent.mkdir(parents=True, exist_ok=True)
        workdir = workdir or Path(tempfile.mkdtemp(prefix="rescheduler-cluster-"))
        workdir.mkdir(parents=True, exist_ok=True)
        plane = cls(workdir, name or f"c{secrets.token_hex(4)}")
        grace = _seconds(node_monitor_grace_period)
        # KWOK renews a Lease after a quarter of its duration: three times within the grace period, or a busy
        # machine makes healthy nodes Unknown.
        plane._lease_seconds = lease_seconds or max(4, min(40, int(grace * 4 / 3)))
        # Without an election to lose they outlive an API server that is away: nobody would start them again.
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
                plane._create_on_free_ports(arguments, _audited(bodies_of) if audit else [])
            plane._rack(MAIN)
        except BaseException:
            plane.stop()
            raise
        return plane

    def _create_on_free_ports(
        self, arguments: Mapping[str, Mapping[str, str]], audited: Sequence[Mapping[str, Any]]
    ) -> None:
        """Create it; where somebody else took a port meanwhile, again on others."""
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
            "options": {"bindAddress": "127.0.0.1", "disable": ["kwok-controller"]},
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
        if audited:
            policy = self.workdir / "audit-policy.yaml"
            policy.write_text(
                yaml.safe_dump({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(audited)})
            )
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
        """Whether all of it is ready. Raises ControlPlaneError where a component ended: kwokctl would wait on."""
        alive = {_program(pid) for pid in self._component_pids()}
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
        """Have the control plane ended when this process dies without a chance to do so."""
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "cluster.guard", str(self.workdir), self.name],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def stop(self) -> None:
        """End every process and remove every file of it: nothing in it is worth an orderly end."""
        self._kill_components()
        for process in (*self._racks.values(), *self._again.values()):
            process.wait()
        self._racks.clear()
        self._again.clear()
        shutil.rmtree(self.workdir, ignore_errors=True)
        if self._guard and self._guard.stdin:
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None

    def _kill_components(self) -> None:
        deadline, killed = time.monotonic() + 30, set[int]()
        while (pids := self._component_pids()) or not all(map(_ended, killed)):
            if time.monotonic() > deadline:
                raise ControlPlaneError(f"processes {sorted({*pids, *killed})} do not end")
            for pid in pids:
                _kill(pid, signal.SIGKILL)
            killed.update(pids)
            time.sleep(0.05)

    def _component_pids(self) -> list[int]:
        """Processes whose command line names our working directory."""
        # With the slash, or `dev` would end `dev2` too.
        found, mine = [], f"{self.workdir}/".encode()
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

    def __enter__(self) -> "ControlPlane":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop_apiserver(self) -> None:
        """Take the API server away, as a crash does; its port and data stay."""
        # A control plane that starts meanwhile would take the port.
        self._ports = _starting().open("w")
        fcntl.flock(self._ports, fcntl.LOCK_EX)
        self._apiserver = self._end("kube-apiserver")

    def start_apiserver(self) -> None:
        """Bring the API server back, and wait until it is ready."""
        self._start("kube-apiserver", self._apiserver)
        try:
            self.wait_ready()
        finally:
            if self._ports:
                self._ports.close()
        # Their watches back off while nobody answers, up to a minute in the end (KWOK's for longer): so long no pod
        # would be made, or run.
        for program in ("kube-controller-manager", "kube-scheduler"):
            self._start(program, self._end(program))
        for rack in [name for name, process in self._racks.items() if process.poll() is None]:
            self.fail_rack(rack)
            self.recover_rack(rack)

    @contextmanager
    def paused(self, program: str) -> Iterator[None]:
        """A component that does nothing for a while, as on a machine that is too busy."""
        (pid,) = [p for p in self._component_pids() if _program(p) == program and not _ended(p)]
        _kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            _kill(pid, signal.SIGCONT)

    def _end(self, program: str) -> list[str]:
        """Kill a component; the command line that it had."""
        (pid,) = [p for p in self._component_pids() if _program(p) == program and not _ended(p)]
        command = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
        # Not SIGTERM: it would wait a minute for watches to end.
        _kill(pid, signal.SIGKILL)
        until(lambda: _ended(pid), f"{program} to end", seconds=60)
        if again := self._again.pop(program, None):
            again.wait()
        return command

    def _start(self, program: str, command: Sequence[str]) -> None:
        with (self.workdir / f"{program}-again.log").open("ab") as log:
            self._again[program] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    @contextmanager
    def asleep(self, program: str) -> Iterator[None]:
        """One program does nothing for a while, and goes on where it was."""
        (pid,) = [p for p in self._component_pids() if _program(p) == program]
        _kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            _kill(pid, signal.SIGCONT)

    def wait_ready(self, seconds: float = 60) -> None:
        """Wait for /readyz."""
        until(self._answers, "the API server", seconds=seconds)

    def _answers(self) -> bool:
        return self.kubectl("get", "--raw", "/readyz", check=False).strip() == "ok"

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

    @property
    def pki(self) -> Path:
        """Its certificates: `ca.crt`, and `admin.crt` with `admin.key`, which serve for 127.0.0.1 too."""
        return self.workdir / "clusters" / self.name / "pki"

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create or change these objects."""
        for start in range(0, len(objects), _AT_ONCE):
            body = {"apiVersion": "v1", "kind": "List", "items": objects[start : start + _AT_ONCE]}
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
        taints: Sequence[Mapping[str, str]] = (),
        cpu: str = "8",
        memory: str = "32Gi",
        pods: str = "250",
        zones: Sequence[str] = (),
        own_kwok: bool = False,
        rack: str | None = None,
    ) -> list[str]:
        """Add simulated nodes and wait until they are Ready, and the scheduler may use them.

        With `own_kwok` each has a KWOK process of its own; those of a `rack` share one; others the main one.
        """
        names = [f"{prefix}{index + 1}" for index in range(count)]
        bodies: list[dict[str, Any]] = []
        for index, name in enumerate(names):
            where = name if own_kwok else rack or MAIN
            zone = {"topology.kubernetes.io/zone": zones[index % len(zones)]} if zones else {}
            body = _node(name, {**(labels or {}), **zone, RACK: where}, cpu, memory, pods)
            bodies.append(body | ({"spec": {"taints": [dict(taint) for taint in taints]}} if taints else {}))
        self.apply(*bodies)
        for where in {body["metadata"]["labels"][RACK] for body in bodies}:
            self._rack(where)
        until(lambda: self._ready_nodes() >= set(names), f"{count} nodes to be Ready", seconds=180, every=0.2)
        return names

    def _ready_nodes(self) -> set[str]:
        """Names of the nodes that are Ready, and not tainted any more for having been otherwise.

        Asked directly: a kubectl for each look would be half the work of a small test.
        """
        pair = (str(self.pki / "admin.crt"), str(self.pki / "admin.key"))
        answer = requests.get(f"{self.server}/api/v1/nodes", cert=pair, verify=str(self.pki / "ca.crt"), timeout=30)
        answer.raise_for_status()
        return {raw["metadata"]["name"] for raw in answer.json()["items"] if _usable(raw)}

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
            f"--node-lease-duration-seconds={self._lease_seconds}",
            "--cidr=10.0.0.0/8",
            "--server-address=127.0.0.1:0",
            *(f"--config={file}" for file in sorted(_STAGES.glob("*.yaml"))),
        ]
        with (self.workdir / f"kwok-{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._racks[name] = process

    def fail_node(self, name: str) -> None:
        """Its kubelet is dead from now on; it must have a KWOK process of its own."""
        self.fail_rack(name)

    def fail_rack(self, rack: str) -> None:
        """The kubelets of all its nodes are dead from now on."""
        process = self._racks[rack]
        process.kill()
        process.wait()

    def pause_node(self, name: str) -> None:
        """Its kubelet hangs: it renews no Lease until it is resumed."""
        self._racks[name].send_signal(signal.SIGSTOP)

    def resume_node(self, name: str) -> None:
        """Its kubelet goes on where it was."""
        self._racks[name].send_signal(signal.SIGCONT)

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
        if nodes:
            self.kubectl("delete", "lease", "-n", "kube-node-lease", *nodes, "--ignore-not-found")
        self._rack(rack)
        for node in nodes:
            self._show_terminating(node)

    def _show_terminating(self, node: str) -> None:
        """KWOK may overlook what it lists while it takes a node over: a change shows it again."""
        lease = ("get", "lease", node, "-n", "kube-node-lease", "-o", "name", "--ignore-not-found")
        until(lambda: self.kubectl(*lease), f"KWOK to renew the Lease of {node}")
        for pod in self.get("pods", "-A", f"--field-selector=spec.nodeName={node}")["items"]:
            meta = pod["metadata"]
            if "deletionTimestamp" in meta:
                place = ("pod", meta["name"], "-n", meta["namespace"])
                self.kubectl("annotate", *place, "cluster/shown=again", "--overwrite", check=False)


def _audited(bodies_of: str) -> list[dict[str, Any]]:
    """Rules of the audit policy."""
    every: list[dict[str, Any]] = [{"level": "Metadata", "omitStages": ["RequestReceived"]}]
    if not bodies_of:
        return every
    writes = ["create", "update", "patch", "delete"]
    return [{**every[0], "level": "RequestResponse", "users": [bodies_of], "verbs": writes}, *every]


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
    try:
        return Path(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0", 1)[0].decode()).name
    except OSError:
        return ""


def _ended(pid: int) -> bool:
    """Whether all its threads have: until then a zombie's ports stay taken."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state in "ZX" and len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1
    except OSError:
        return True


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _seconds(duration: str) -> float:
    """Of a duration in one unit, such as 12s or 1m."""
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]
