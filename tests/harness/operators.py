"""The operator as a process under the chart's identity: for tests, the demo and the benchmark."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from harness import binaries, workloads
from harness.clients import ControlPlaneError
from harness.controlplane import ControlPlane
from harness.processes import free_port
from harness.waiting import until
from rescheduler.api import names

ROOT = Path(__file__).parents[2]
CHART = ROOT / "manifests" / "chart"
NAMESPACE = "rescheduler-system"
_BINDING = "ValidatingAdmissionPolicyBinding"
_RECORDS = ("rescheduler-pod-records.rescheduler.dev", "rescheduler-node-records.rescheduler.dev")
_NOT_FOR_SIMULATION = ("Deployment", "PodDisruptionBudget", "Service", "ReschedulePolicy")


def install(plane: ControlPlane) -> Path:
    """Install CRDs, RBAC and the admission policy on the operator's writes; return a kubeconfig of its ServiceAccount.

    The Deployment is left out: the simulated nodes would pretend to run it.
    """
    plane.kubectl("apply", "--server-side", "-f", str(ROOT / "manifests" / "crds"))
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    plane.apply(*(document for document in _manifest(plane) if document["kind"] not in _NOT_FOR_SIMULATION))
    return plane.identity_kubeconfig(NAMESPACE, "rescheduler")


def serves_pools(plane: ControlPlane) -> bool:
    """Whether the API server has MutatingAdmissionPolicy v1."""
    return "mutatingadmissionpolicies" in plane.kubectl("get", "--raw", "/apis/admissionregistration.k8s.io/v1")


def _manifest(plane: ControlPlane) -> list[Any]:
    """Return what to apply: without the policies of pools if the API server does not serve them."""
    if serves_pools(plane):
        return list(yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()))
    values = ("--set", "crds.enabled=false,pools.policies=never")
    rendered = helm("template", "rescheduler", str(CHART), "-n", NAMESPACE, "--no-hooks", *values).stdout
    return [workloads.namespace(NAMESPACE), *filter(None, yaml.safe_load_all(rendered))]


@contextmanager
def unguarded(plane: ControlPlane) -> Iterator[None]:
    """Let all users write the operator's records for a while: the operator must not rely on the policies that guard
    them.
    """
    documents: list[Any] = list(yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()))
    bindings = [d for d in documents if d["kind"] == _BINDING and d["metadata"]["name"] in _RECORDS]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "annotations": {names.MOVE: "x"}}}
    pod |= {"spec": {"containers": [{"name": "c", "image": "simulated"}]}}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "probe", "annotations": {names.CANCELLED: "x"}}}
    probes = json.dumps({"apiVersion": "v1", "kind": "List", "items": [pod, node]})

    def refused() -> int:
        said = plane.kubectl("create", "--dry-run=server", "-f", "-", input=probes, check=False)
        return said.count("only Rescheduler writes")

    plane.kubectl("delete", _BINDING.lower(), *_RECORDS)
    until(lambda: not refused(), "the policies to stop applying")
    try:
        yield
    finally:
        plane.apply(*bindings)
        until(lambda: refused() == 2, "the policies to apply again")


def helm(*arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm; the caller handles a failure."""
    environment = dict(os.environ)
    if kubeconfig:
        # The cache of the served kinds is by address: a control plane of another version may have had this one.
        environment |= {"KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(kubeconfig.parent / "kubectl-cache")}
    command = [str(binaries.path("helm")), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


class Operator:
    """An operator process.

    Attributes:
        kubeconfig: the file with its credentials.
        log: the file with its output.
    """

    def __init__(
        self,
        kubeconfig: Path,
        log: Path,
        *,
        identity: str = "operator-0",
        log_format: str = "json",
        namespace: str = NAMESPACE,
        packages: Path | None = None,
        previous: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare the process.

        `packages`: a folder of Python packages that it has in place of the installed ones; `previous`: a folder with
        another version of the operator; `environment`: further variables.
        """
        self.kubeconfig = kubeconfig
        self.log, self.health, self.metrics_port = log, free_port(), free_port()
        self._command = [sys.executable, *(["-S"] if packages else []), "-m", "rescheduler", "run"]
        self._command += ["--namespace", namespace]
        self._command += ["--health-port", str(self.health), "--metrics-port", str(self.metrics_port)]
        self._command += ["--log-format", log_format]
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "POD_NAME": identity}
        if path := packages or previous:
            self._environment["PYTHONPATH"] = str(path)
        self._environment |= environment or {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, ready: bool = True) -> "Operator":
        """Start the operator; wait until it is ready unless `ready` is False."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        if ready:
            until(lambda: not self.running or self.probe("readyz") == 200, "the operator to be ready")
            if not self.running:
                raise ControlPlaneError(f"the operator ended:\n{self.tail()}")
        return self

    @property
    def pid(self) -> int:
        """Return the process ID."""
        if self._process is None:
            raise ControlPlaneError("the operator was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process is not None and self._process.poll() is None

    def probe(self, path: str) -> int:
        """Return the HTTP status of `healthz` or `readyz`; 0 if there is no answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    def metrics(self) -> str:
        """Return the text of `/metrics`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def memory(self) -> float:
        """Return resident memory in MB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of its log."""
        return "\n".join(self.log.read_text().splitlines()[-lines:]) if self.log.exists() else ""

    def stop(self) -> int:
        """Send SIGTERM; return the exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def kill(self) -> None:
        """Send SIGKILL."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> "Operator":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
