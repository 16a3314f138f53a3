"""The operator as users install it: the chart with its defaults, installed by helm, in a namespace that is `restricted`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import workloads
from harness.clients import ControlPlaneError
from harness.operators import CHART, NAMESPACE, helm
from harness.real.images import operator_image
from harness.real.lab import Lab
from harness.waiting import until
from rescheduler.kube.leader_election import LEASE_NAME

RELEASE = "rescheduler"
_SELECTOR = f"app.kubernetes.io/name={RELEASE}"
_RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}


@dataclass(frozen=True)
class Installation:
    """The release of the chart, and its pods."""

    lab: Lab

    def install(self, *flags: str) -> None:
        """Install or upgrade the release, and wait until it is complete. Raises ControlPlaneError."""
        self.lab.plane.apply(workloads.namespace(NAMESPACE, **_RESTRICTED))
        repository, tag = operator_image().removeprefix("ghcr.io/").rsplit(":", 1)
        values = ["--set", f"image.repository={repository}", *(flags or ("--set", f"image.tag={tag}"))]
        self._helm("upgrade", "--install", RELEASE, str(CHART), "--wait", "--timeout=180s", *values)

    def upgrade(self) -> None:
        """Upgrade the release to the second tag of the image."""
        self.install("--set", f"image.tag={operator_image().rsplit(':', 1)[1]}-next")

    def uninstall(self) -> None:
        """Uninstall the release. Raises ControlPlaneError."""
        self._helm("uninstall", RELEASE, "--wait", "--timeout=300s")

    def pods(self) -> list[dict[str, Any]]:
        """Return the pods of the Deployment that are not Terminating."""
        found = self.lab.plane.get("pods", "-n", NAMESPACE, "-l", _SELECTOR)["items"]
        return [
            pod
            for pod in found
            if "deletionTimestamp" not in pod["metadata"]
            and "batch.kubernetes.io/job-name" not in pod["metadata"]["labels"]
        ]

    def ready(self) -> list[dict[str, Any]]:
        """Return the pods that are Ready."""
        return [
            pod
            for pod in self.pods()
            if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
        ]

    def leader(self) -> dict[str, Any] | None:
        """Return the Ready pod that holds the Lease; None if no pod leads."""
        lease = self.lab.plane.get("lease", LEASE_NAME, "-n", NAMESPACE)
        holder = lease["spec"].get("holderIdentity")
        return next((pod for pod in self.ready() if pod["metadata"]["name"] == holder), None)

    def settled(self) -> dict[str, Any]:
        """Wait until two pods are Ready and one of them leads; return the leader."""
        until(lambda: len(self.ready()) == 2, lambda: f"two Ready pods of the operator\n{self.describe()}", seconds=120)
        return self.leading()

    def leading(self) -> dict[str, Any]:
        """Wait until a Ready pod leads, and return it."""
        return until(lambda: self.leader() or {}, lambda: f"a leader\n{self.describe()}", seconds=60)

    def describe(self) -> str:
        """Return state and logs of all pods, for the error of a wait."""
        kubectl = self.lab.plane.kubectl
        return "\n".join(
            [
                kubectl("get", "pods", "-n", NAMESPACE, "-o", "wide", check=False),
                kubectl("get", "events", "-n", NAMESPACE, check=False)[-3000:],
                kubectl("logs", "-n", NAMESPACE, "-l", _SELECTOR, "--tail=30", "--prefix", check=False),
            ]
        )

    def _helm(self, *arguments: str) -> None:
        ended = helm(*arguments, "--namespace", NAMESPACE, kubeconfig=Path(self.lab.plane.kubeconfig))
        if ended.returncode:
            raise ControlPlaneError(f"helm {arguments[0]}: {ended.stderr}\n{self.describe()}")
