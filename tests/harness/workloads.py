"""Workloads for simulated nodes, as plain objects."""

from collections.abc import Mapping
from typing import Any


def namespace(name: str, **labels: str) -> dict[str, Any]:
    """Return a Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod_template(
    app: str, *, grace: int = 1, annotations: Mapping[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    """Return the template that all builders share; `spec` is merged into the pod's spec."""
    container = {"name": "app", "image": "simulated", "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}
    return {
        "metadata": {"labels": {"app": app}, "annotations": dict(annotations or {})},
        "spec": {"terminationGracePeriodSeconds": grace, "containers": [container], **spec},
    }


def deployment(name: str, replicas: int, namespace: str = "default", **template: Any) -> dict[str, Any]:
    """Return a Deployment whose pods have the label `app=<name>`."""
    return _replicated("Deployment", name, replicas, namespace, template)


def replica_set(name: str, replicas: int, namespace: str = "default", **template: Any) -> dict[str, Any]:
    """Return a ReplicaSet without a Deployment; its pods have the label `app=<name>`."""
    return _replicated("ReplicaSet", name, replicas, namespace, template)


def stateful_set(name: str, replicas: int, namespace: str = "default", **template: Any) -> dict[str, Any]:
    """Return a StatefulSet whose pods have the label `app=<name>`."""
    more = {"serviceName": name, "podManagementPolicy": "Parallel"}
    return _replicated("StatefulSet", name, replicas, namespace, template, **more)


def daemon_set(name: str, namespace: str = "default", **template: Any) -> dict[str, Any]:
    """Return a DaemonSet for every node."""
    spec = {"selector": {"matchLabels": {"app": name}}, "template": pod_template(name, **template)}
    return _object("apps/v1", "DaemonSet", name, namespace, spec)


def job(name: str, namespace: str = "default", *, after: str = "1s", **template: Any) -> dict[str, Any]:
    """Return a Job whose pod completes `after` a while."""
    annotations = {**template.pop("annotations", {}), "cluster/complete-after": after}
    made = pod_template(name, annotations=annotations, **{"restartPolicy": "Never", **template})
    return _object("batch/v1", "Job", name, namespace, {"template": made})


def service(app: str, namespace: str = "default") -> dict[str, Any]:
    """Return a Service for `app=<app>`."""
    return _object("v1", "Service", app, namespace, {"selector": {"app": app}, "ports": [{"port": 80}]})


def bare_pod(name: str, namespace: str = "default", **template: Any) -> dict[str, Any]:
    """Return a pod that no controller would recreate."""
    made = pod_template(name, **template)
    body = _object("v1", "Pod", name, namespace, made["spec"])
    body["metadata"] |= made["metadata"]
    return body


def budget(app: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """Return a PodDisruptionBudget over `app=<app>`; `spec` is minAvailable or maxUnavailable."""
    return _object(
        "policy/v1", "PodDisruptionBudget", app, namespace, {"selector": {"matchLabels": {"app": app}}, **spec}
    )


def policy(name: str = "default", **spec: Any) -> dict[str, Any]:
    """Return a ReschedulePolicy."""
    return {
        "apiVersion": "rescheduler.dev/v1alpha1",
        "kind": "ReschedulePolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def pool(name: str, **spec: Any) -> dict[str, Any]:
    """Return a NamespacePool."""
    return {
        "apiVersion": "rescheduler.dev/v1alpha1",
        "kind": "NamespacePool",
        "metadata": {"name": name},
        "spec": spec,
    }


def _replicated(
    kind: str, name: str, replicas: int, namespace: str, template: Mapping[str, Any], **spec: Any
) -> dict[str, Any]:
    selector = {"matchLabels": {"app": name}}
    spec |= {"replicas": replicas, "selector": selector, "template": pod_template(name, **template)}
    return _object("apps/v1", kind, name, namespace, spec)


def _object(api_version: str, kind: str, name: str, namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def is_released(pod: Mapping[str, Any]) -> bool:
    """Whether the Deployment of a pod is its controller, instead of its ReplicaSet."""
    return any(o["kind"] == "Deployment" and o.get("controller") for o in pod["metadata"].get("ownerReferences") or ())
