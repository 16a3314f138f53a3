"""Pods that only their own node can have leave within their budgets, and wait for their node."""

from typing import Any

from e2e.conftest import Site
from harness import workloads
from harness.waiting import until

HOST = "kubernetes.io/hostname"


def storage_daemon(site: Site, name: str, node: str) -> dict[str, Any]:
    """Return a Deployment of one pod with data in a hostPath of this node."""
    volumes = [{"name": "data", "hostPath": {"path": "/var/lib/osd"}}]
    return workloads.deployment(name, 1, site.name, nodeSelector={HOST: node}, volumes=volumes)


def database(site: Site, node: str) -> list[dict[str, Any]]:
    """Return a Deployment of one pod with a local volume of this node, the volume and its claim."""
    common: dict[str, Any] = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    term: dict[str, Any] = {"matchExpressions": [{"key": HOST, "operator": "In", "values": [node]}]}
    spec = common | {"capacity": {"storage": "1Gi"}, "claimRef": {"namespace": site.name, "name": "db"}}
    spec |= {"local": {"path": "/disk"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}
    wanted = common | {"volumeName": f"{site.name}-db", "resources": {"requests": {"storage": "1Gi"}}}
    meta: dict[str, Any] = {"name": "db", "namespace": site.name}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "db"}}]
    return [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"{site.name}-db"}, "spec": spec},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": wanted},
        workloads.deployment("db", 1, site.name, volumes=volumes),
    ]


def test_bound_pods_leave_within_their_budget_and_wait_for_their_node(site: Site) -> None:
    first, second, third = nodes = site.nodes(3)
    rule = {"podSelector": {"matchLabels": {"app": "db"}}, "localVolume": "Evict"}
    site.policy(drain={"rules": [rule]}, maintenance={"maxConcurrent": 2})
    daemons = [storage_daemon(site, f"osd-{number}", node) for number, node in enumerate(nodes)]
    budget = workloads.budget("osd", site.name, maxUnavailable=1)
    names = [daemon["metadata"]["name"] for daemon in daemons]
    budget["spec"]["selector"] = {"matchExpressions": [{"key": "app", "operator": "In", "values": names}]}
    site.deploy(*daemons, budget, *database(site, first))
    site.annotate(first)
    site.phase(first, "Drained")
    status = (site.observer.drain(first) or {})["status"]
    assert status["pods"]["waitsForNode"] == 2
    assert [pod.split("/")[1].rsplit("-", 2)[0] for pod in status["waitsForNode"]] == ["db", "osd-0"]
    pending = [pod for pod in site.observer.pods(site.name) if "nodeName" not in pod["spec"]]
    assert sorted(pod["metadata"]["labels"]["app"] for pod in pending) == ["db", "osd-0"]
    assert not site.released()
    site.annotate(second)
    until(lambda: site.classes(second) == {"BudgetExhausted"}, "the next daemon to be held by the budget")
    site.annotate(first, None)
    site.phase(second, "Drained")
    assert [name.rsplit("-", 2)[0] for name in (*site.left(first), *site.left(third))] == ["db", "osd-0", "osd-2"]
