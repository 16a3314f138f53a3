"""Pods with exclusive volumes leave one after another, and a drain is Drained when the volumes are detached."""

from typing import Any

import pytest

from e2e.conftest import Site
from harness import workloads
from harness.waiting import until


def disk(site: Site, name: str, *, mode: str = "ReadWriteOnce", **source: Any) -> list[dict[str, Any]]:
    """Return a volume of a driver without a process, bound to its claim from the start."""
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": [mode],
        "storageClassName": "",
        "claimRef": {"namespace": site.name, "name": name},
        **(source or {"csi": {"driver": "simulated.example.com", "volumeHandle": f"{site.name}-{name}"}}),
    }
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"{site.name}-{name}"}, "spec": spec}
    wanted = {
        "accessModes": [mode],
        "storageClassName": "",
        "volumeName": f"{site.name}-{name}",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": site.name}}
    return [volume, claim | {"spec": wanted}]


def with_disk(site: Site, name: str) -> dict[str, Any]:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]
    return workloads.deployment(name, 1, site.name, volumes=volumes, **site.here())


def attached(site: Site, node: str) -> set[str]:
    found = site.plane.get("volumeattachments")["items"]
    return {a["spec"]["source"]["persistentVolumeName"] for a in found if a["spec"]["nodeName"] == node}


@pytest.mark.every_version("maintenance")
def test_one_volume_after_another(site: Site) -> None:
    node, other = site.nodes(2)
    site.policy()
    managed = "volumes.kubernetes.io/controller-managed-attach-detach=true"
    site.plane.kubectl("annotate", "node", node, other, managed)  # as kubelets do
    site.plane.kubectl("cordon", other)
    site.plane.apply(*disk(site, "a"), *disk(site, "b"))
    site.deploy(with_disk(site, "a"), with_disk(site, "b"), workloads.deployment("web", 1, site.name, **site.here()))
    until(lambda: len(attached(site, node)) == 2, "both volumes to be attached")
    site.plane.kubectl("uncordon", other)
    site.annotate(node)
    until(lambda: len(site.left(node)) == 1, "all but one to leave")
    (last,) = site.left(node)
    first = {"a": "b", "b": "a"}[last.split("-")[0]]
    until(lambda: first in {p["metadata"]["labels"]["app"] for p in site.observer.pods(site.name)}, "its replacement")
    assert len(attached(site, node)) == 2
    assert site.left(node) == [last]
    detach(site, node, first)
    until(lambda: not site.left(node), "the last one to leave")
    until(lambda: _drained(site, node) == "VolumesAttached", "the volume to be waited for")
    detach(site, node, last.split("-")[0])
    site.phase(node, "Drained")


def detach(site: Site, node: str, name: str) -> None:
    """Detach as the driver's attacher does once no pod uses the volume on the node."""
    for found in site.plane.get("volumeattachments")["items"]:
        spec = found["spec"]
        if (spec["nodeName"], spec["source"]["persistentVolumeName"]) == (node, f"{site.name}-{name}"):
            site.plane.kubectl("delete", "volumeattachment", found["metadata"]["name"])


def _drained(site: Site, node: str) -> str:
    conditions = (site.observer.drain(node) or {}).get("status", {}).get("conditions", [])
    return next((c["reason"] for c in conditions if c["type"] == "Drained"), "")


def test_a_pod_on_a_local_volume_is_named_before_anything_is_evicted_and_stays(site: Site) -> None:
    node, other = site.nodes(2)
    site.policy(drain={"replacement": "Never"})
    site.plane.apply(*disk(site, "l", hostPath={"path": "/data"}))
    site.on_first(node, [other], with_disk(site, "l"), workloads.deployment("web", 3, site.name, **site.here()))
    site.annotate(node)
    until(lambda: site.classes(node) == {"LocalVolume"}, "the blocker")
    until(lambda: len(site.left(node)) == 1, "the others to leave")
    cordon = next(c for c in site.calls("nodes", names=[node]) if c["verb"] == "patch")
    reported = [c["stageTimestamp"] for c in site.calls("nodedrains", names=[node]) if _status(c) and _after(c, cordon)]
    assert min(reported) <= min(call["requestReceivedTimestamp"] for call in site.calls())


def _status(call: dict[str, Any]) -> bool:
    return bool(call["verb"] == "patch" and call["objectRef"].get("subresource") == "status")


def _after(call: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(call["requestReceivedTimestamp"] > other["stageTimestamp"])
