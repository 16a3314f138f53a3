"""Objects and a cluster for the tests of admission of pods, namespaces and nodes."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from harness import ControlPlane, workloads
from harness.observer import Observer
from harness.waiting import until
from rescheduler.api import GROUP, names
from rescheduler.core.model.raw import RawObject

EVERYTHING = {"operator": "Exists"}


def pool(name: str, **spec: Any) -> RawObject:
    """Return a NamespacePool without nodes: the tests label nodes by hand."""
    return workloads.pool(name, nodeSelector={"matchLabels": {"colour": name}}, **spec)


def tolerating(value: str, **more: str) -> RawObject:
    """Return a toleration of a pool's taint."""
    return {"key": names.POOL, "operator": "Equal", "value": value, "effect": "NoSchedule", **more}


def asking(*values: str) -> RawObject:
    """Return required node affinity to pools."""
    term = {"matchExpressions": [{"key": names.NODE_POOL, "operator": "In", "values": list(values)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def pod(name: str, namespace: str, labels: Mapping[str, str] | None = None, **template: Any) -> RawObject:
    body = workloads.bare_pod(name, namespace, **template)
    body["metadata"]["labels"].update(labels or {})
    return body


def owned(body: RawObject, kind: str, uid: str = "11111111-1111-1111-1111-111111111111") -> RawObject:
    """Return the object as if a controller of this kind had made it."""
    owner = {"apiVersion": "apps/v1", "kind": kind, "name": "owner", "uid": uid, "controller": True}
    body["metadata"]["ownerReferences"] = [owner]
    return body


def mirror(body: RawObject) -> RawObject:
    """Return the pod as a kubelet shows a static pod."""
    body["metadata"]["annotations"][names.MIRROR_POD] = "x"
    body["spec"]["nodeName"] = "grey1"
    return body


class Cluster:
    """Requests of the tests on the control plane; dry runs by default."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane, self.observer = plane, Observer(plane.kubeconfig)
        self.kubectl = plane.kubectl

    def create(self, *objects: RawObject, **options: Any) -> str:
        """Return the whole output of kubectl, which continues after a refusal."""
        body = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        return self.kubectl("create", "--dry-run=server", "-f", "-", input=body, check=False, **options)

    def admitted(self, *objects: RawObject, **options: Any) -> list[RawObject]:
        """Return the objects as the API server would store them; none may be refused."""
        body = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        said = self.kubectl("create", "--dry-run=server", "-o", "yaml", "-f", "-", input=body, **options)
        return list(yaml.safe_load_all(said))

    def make(self, *objects: RawObject) -> None:
        body = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("create", "-f", "-", input=body)

    def patch(self, kind: str, name: str, body: object, *arguments: str, kubeconfig: Path | None = None) -> str:
        command = ["patch", kind, name, "--type=merge", "-p", json.dumps(body), "--dry-run=server", *arguments]
        return self.kubectl(*command, check=False, kubeconfig=kubeconfig)

    def have_accounts(self, *spaces: str) -> None:
        for space in spaces:
            until(partial(self._has_account, space), f"accounts in {space}")

    def _has_account(self, space: str) -> bool:
        return "default" in self.kubectl("get", "sa", "-n", space)


def identity(cluster: Cluster, name: str, *, pools: str | None = None) -> Path:
    """Grant writes of pods, namespaces and nodes, and of NamespacePools if named."""
    rules = [
        {"apiGroups": [""], "resources": ["pods", "nodes", "namespaces"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["namespaces/status", "namespaces/finalize", "pods/status"], "verbs": ["*"]},
    ]
    if pools:
        mine = {"apiGroups": [GROUP], "resources": ["namespacepools"], "verbs": ["update"]}
        rules.append(mine if pools == "*" else {**mine, "resourceNames": [pools]})
    rbac = "rbac.authorization.k8s.io"
    cluster.plane.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "out"}},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "out"}],
        },
    )
    kubeconfig = cluster.plane.identity_kubeconfig("out", name)
    probe = ["auth", "can-i", "update", f"namespacepools/{pools}" if pools and pools != "*" else "namespaces"]
    until(lambda: "yes" in cluster.kubectl(*probe, check=False, kubeconfig=kubeconfig), f"{name} to have its rights")
    return kubeconfig
