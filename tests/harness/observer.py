"""Read the cluster with another client (pykube) than the operator's, so that both cannot share a mistake."""

from functools import cached_property
from pathlib import Path
from typing import Any

import pykube

GROUP_VERSION = "rescheduler.dev/v1alpha1"


class Observer:
    """Reads objects as plain dictionaries."""

    def __init__(self, kubeconfig: Path) -> None:
        self.api = pykube.HTTPClient(pykube.KubeConfig.from_file(str(kubeconfig)))

    def _query(self, kind: type[pykube.objects.APIObject], namespace: str | None = None) -> Any:
        """Return a query. The attribute `objects` of all kinds is one object: two threads would swap their kinds."""
        return pykube.query.Query(self.api, kind, namespace=namespace)

    @cached_property
    def _pool(self) -> Any:
        return pykube.object_factory(self.api, GROUP_VERSION, "NamespacePool")

    @cached_property
    def _drain(self) -> Any:
        return pykube.object_factory(self.api, GROUP_VERSION, "NodeDrain")

    def node(self, name: str) -> dict[str, Any]:
        """Return a Node."""
        return dict(self._query(pykube.Node).get_by_name(name).obj)

    def ready_status(self, name: str) -> str:
        """Return the status of a Node's condition Ready."""
        return str(next((c["status"] for c in self.node(name)["status"]["conditions"] if c["type"] == "Ready"), ""))

    def pool(self, name: str) -> dict[str, Any] | None:
        """Return the status of a NamespacePool; None if there is none."""
        found = self._query(self._pool).get_or_none(name=name)
        return dict(found.obj.get("status", {})) if found else None

    def namespace(self, name: str) -> dict[str, Any]:
        """Return a Namespace."""
        return dict(self._query(pykube.Namespace).get_by_name(name).obj)

    def drain(self, name: str) -> dict[str, Any] | None:
        """Return a NodeDrain; None if there is none."""
        found = self._query(self._drain).get_or_none(name=name)
        return dict(found.obj) if found else None

    def phase(self, name: str) -> str | None:
        """Return the phase of a NodeDrain; None if there is none."""
        found = self.drain(name)
        return found.get("status", {}).get("phase") if found else None

    def progressing(self, name: str) -> str | None:
        """Return the reason of a NodeDrain's condition Progressing."""
        found = self.drain(name) or {}
        conditions = found.get("status", {}).get("conditions", [])
        return next((c["reason"] for c in conditions if c["type"] == "Progressing"), None)

    def blockers(self, name: str) -> list[dict[str, Any]]:
        """Return the blockers of a NodeDrain."""
        return list((self.drain(name) or {}).get("status", {}).get("blockers", []))

    def pods(self, namespace: str, *, node: str | None = None) -> list[dict[str, Any]]:
        """Return pods of a namespace, on one node if it is named."""
        query = self._query(pykube.Pod, namespace=namespace)
        if node:
            query = query.filter(field_selector={"spec.nodeName": node})
        return [pod.obj for pod in query]

    def ready(self, namespace: str, app: str) -> int:
        """Return the number of pods of an app that are Ready and not Terminating."""
        return sum(
            pod["metadata"]["labels"].get("app") == app
            and "deletionTimestamp" not in pod["metadata"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))
            for pod in self.pods(namespace)
        )

    def counted(self, namespace: str) -> bool:
        """Whether the status of every PodDisruptionBudget is of its current spec, and counts only healthy pods."""
        found = [b.obj for b in self._query(pykube.PodDisruptionBudget, namespace=namespace)]
        return all(
            (status := b.get("status", {})).get("observedGeneration") == b["metadata"]["generation"]
            and status.get("expectedPods", 0) == status.get("currentHealthy", 0) > 0
            for b in found
        )

    def events(self, kind: str, name: str) -> list[dict[str, Any]]:
        """Return Events of a cluster-scoped object, as `kubectl describe` finds them."""
        selector = {"involvedObject.kind": kind, "involvedObject.name": name, "involvedObject.namespace": ""}
        query = self._query(pykube.Event, namespace="default").filter(field_selector=selector)
        return [event.obj for event in query]
