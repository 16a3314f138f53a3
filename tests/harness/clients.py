"""Clients of a control plane for tests: kubectl, as people use it, and any ServiceAccount."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness import binaries

_AT_ONCE = 200  # objects of one `kubectl apply`, which has a time limit


class ControlPlaneError(Exception):
    """The control plane or a command failed; the message has the output of the program."""


class Clients:
    """A control plane, as its clients see it.

    Attributes:
        kubeconfig: of the administrator.
        server: address of the API server.
        workdir: folder of its state, logs and keys.
    """

    def __init__(self, workdir: Path, name: str) -> None:
        self.workdir, self.name = workdir, name
        self.kubeconfig = workdir / "kubeconfig"
        self.server = ""

    def kubectl(
        self, *arguments: str, input: str | None = None, check: bool = True, kubeconfig: Path | None = None
    ) -> str:
        """Return the output of kubectl; without `check` its errors too."""
        # The cache of the served kinds is by address: a control plane of another version may have had this one.
        cache = str(self.workdir / "kubectl-cache")
        command = [str(binaries.path("kubectl")), "--kubeconfig", str(kubeconfig or self.kubeconfig)]
        command += ["--cache-dir", cache, *arguments]
        result = subprocess.run(command, input=input, check=False, capture_output=True, text=True, timeout=120)
        if check and result.returncode:
            raise ControlPlaneError(f"kubectl {' '.join(arguments)}: {result.stderr}")
        return result.stdout if check else result.stdout + result.stderr

    @property
    def pki(self) -> Path:
        """Return the folder of certificates: `ca.crt`, and `admin.crt` with `admin.key`, which are valid for 127.0.0.1
        too.
        """
        return self.workdir / "clusters" / self.name / "pki"

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create or change objects."""
        for start in range(0, len(objects), _AT_ONCE):
            body = {"apiVersion": "v1", "kind": "List", "items": objects[start : start + _AT_ONCE]}
            self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(body))

    def get(self, *arguments: str) -> Any:
        """Return the parsed output of `kubectl get … -o json`."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def logs(self) -> dict[str, Path]:
        """Return component to log file."""
        return {file.stem: file for file in (self.workdir / "clusters" / self.name / "logs").glob("*.log")}

    def identity_kubeconfig(self, namespace: str, service_account: str) -> Path:
        """Return a kubeconfig with a token of this ServiceAccount: tests never run the operator as administrator."""
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
