"""The small cluster of one entry and one way: nodes and a namespace on a control plane that many share."""

import json
import secrets
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from catalogue.entries import OWNER, SITE, NodeShape, mark
from catalogue.measures import Pod
from harness import ControlPlane, workloads
from harness.identities import Identity
from harness.min_ready import ready
from harness.waiting import until
from rescheduler.api.names import MAINTENANCE

KIND = "Workload"
GROUP = "catalogue.example.com"
RESCHEDULER = "/apis/rescheduler.dev/v1alpha1"
_PLURAL = "workloads"


def install(plane: ControlPlane) -> None:
    """Install the kind of another vendor, without a scale subresource."""
    open_schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": open_schema}}
    spec = {
        "group": GROUP,
        "names": {"kind": KIND, "plural": _PLURAL},
        "scope": "Namespaced",
        "versions": [version],
    }
    plane.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{_PLURAL}.{GROUP}"},
            "spec": spec,
        }
    )
    plane.kubectl("wait", "--for=condition=Established", f"crd/{_PLURAL}.{GROUP}", "--timeout=60s")


class Cluster:
    """Nodes and a namespace.

    Attributes:
        nodes: names; the first ones are drained.
    """

    def __init__(self, plane: ControlPlane, space: str, shapes: Sequence[NodeShape]) -> None:
        self.plane, self.space = plane, space
        self._shapes = shapes
        self.nodes = [f"{space}-n{index + 1}" for index in range(len(shapes))]
        self._owners: dict[str, str] = {}

    def create(self, *more: dict[str, Any]) -> None:
        """Add the nodes, the namespace, and more objects."""
        self.plane.apply(workloads.namespace(self.space), *more)
        if len({shape.model_dump_json() for shape in self._shapes}) == 1:
            self._add(1, self._shapes[0], len(self._shapes))
            return
        for number, shape in enumerate(self._shapes, 1):
            self._add(number, shape)

    def add_node(self) -> None:
        """Add another node like the first one."""
        number = len(self.nodes) + 1
        self.nodes.append(f"{self.space}-n{number}")
        self._add(number, self._shapes[0])

    def remove_node(self, node: str) -> None:
        """Remove a node, as an autoscaler does; its name is not used again."""
        self._admin.delete(f"/api/v1/nodes/{node}", dry=False)

    def nodes_now(self) -> list[dict[str, Any]]:
        """Return the nodes that exist."""
        return list(self.get(f"/api/v1/nodes?labelSelector={SITE}={self.space}")["items"])

    def _add(self, first: int, shape: NodeShape, count: int = 1) -> None:
        labels = {SITE: self.space, **shape.labels}
        self.plane.add_nodes(
            count, prefix=f"{self.space}-n", first=first, labels=labels, taints=shape.taints, cpu=shape.cpu
        )

    def remove(self) -> None:
        """Delete the nodes and the namespace; requests for what is gone already have no effect."""
        admin = self._admin
        for node in self.nodes:
            self.patch_node(node, {"metadata": {"annotations": {MAINTENANCE: None}}})
        for pod in self.pods():
            if pod["metadata"].get("finalizers"):
                self.patch_pod(pod, {"metadata": {"finalizers": None}})
        admin.delete(f"/api/v1/namespaces/{self.space}", dry=False)
        admin.delete(self._path, dry=False, gracePeriodSeconds=0)
        for node in self.nodes:
            admin.delete(f"/api/v1/nodes/{node}", dry=False)
            admin.delete(f"{RESCHEDULER}/nodedrains/{node}", dry=False)
        admin.delete(f"{RESCHEDULER}/reschedulepolicies/{self.space}", dry=False)

    @cached_property
    def _admin(self) -> Identity:
        return Identity.of_admin(self.plane)

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.space}/pods"

    def get(self, path: str) -> dict[str, Any]:
        """Read an object or a list. Raises requests.HTTPError."""
        return self._admin.get(path)

    def patch_node(self, node: str, body: object) -> None:
        """Patch a node."""
        self._admin.patch(f"/api/v1/nodes/{node}", body, dry=False)

    def pods(self) -> list[Pod]:
        """Return pods of the namespace."""
        return list(self.get(self._path)["items"])

    def delete_pod(self, pod: Pod) -> None:
        """Delete exactly this pod."""
        place = f"{self._path}/{pod['metadata']['name']}"
        self._admin.delete(place, dry=False, preconditions={"uid": pod["metadata"]["uid"]})

    def delete_named(self, name: str) -> None:
        """Delete the pod of this name."""
        self._admin.delete(f"{self._path}/{name}", dry=False)

    def patch_pod(self, pod: Pod, body: object) -> str:
        """Patch a pod; return the reason of a refusal."""
        return self._admin.patch(f"{self._path}/{pod['metadata']['name']}", body, dry=False)

    def may_annotate(self, pod: Pod) -> bool:
        """Whether the API server would let an annotation change."""
        body = {"metadata": {"annotations": {"catalogue/probe": "x"}}}
        return not self._admin.patch(f"{self._path}/{pod['metadata']['name']}", body)

    def set_ready(self, pod: Pod, status: str = "True") -> None:
        """Set a pod Ready, or not Ready, as its kubelet does."""
        now = pod["metadata"]["creationTimestamp"]
        self.patch_status(pod, {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": now}]})

    def patch_status(self, pod: Pod, status: object) -> None:
        """Patch the status of a pod."""
        path = f"{self._path}/{pod['metadata']['name']}/status"
        self._admin.patch(path, {"status": status}, kind="strategic", dry=False)

    def owned(self, owner: str, **spec: Any) -> dict[str, Any]:
        """Return a new pod whose controller is the custom resource `owner`, which is created if it is missing."""
        if owner not in self._owners:
            place = {"name": owner, "namespace": self.space}
            made = {"apiVersion": f"{GROUP}/v1", "kind": KIND, "metadata": place}
            self.plane.apply(made)
            path = f"/apis/{GROUP}/v1/namespaces/{self.space}/{_PLURAL}/{owner}"
            self._owners[owner] = self.get(path)["metadata"]["uid"]
        pod = mark(workloads.bare_pod(f"{owner}-{secrets.token_hex(3)}", self.space, **spec), self.space)
        reference = {"apiVersion": f"{GROUP}/v1", "kind": KIND, "name": owner, "uid": self._owners[owner]}
        pod["metadata"]["ownerReferences"] = [reference | {"controller": True}]
        pod["metadata"]["labels"] |= {OWNER: owner, "app": owner}
        return pod

    def pod_of(self, owner: str, name: str, labels: dict[str, str], **spec: Any) -> dict[str, Any]:
        """Return a new pod without a controller that counts as a pod of `owner`."""
        pod = mark(workloads.bare_pod(name, self.space, **spec), self.space)
        pod["metadata"]["labels"] |= {OWNER: owner, **labels}
        return pod

    def settle(self, name: str, count: int) -> None:
        """Wait until this number of pods run, and are Ready if they can be."""

        def up(pod: Pod) -> bool:
            never = "cluster/never-ready" in (pod["metadata"].get("annotations") or {})
            return pod.get("status", {}).get("phase") == "Running" and (ready(pod) or never)

        def seen() -> str:
            return json.dumps([(p["metadata"]["name"], p.get("status", {}).get("conditions")) for p in self.pods()])

        until(
            lambda: sum(map(up, self.pods())) >= count, lambda: f"{count} pods of {name} ({seen()[:1500]})", every=0.3
        )
