"""Requests of pods, and what pods take of their nodes."""

from collections import Counter
from typing import Any

from rescheduler.core.model.resource_requests import (
    PodSize,
    allocated_resources,
    device_resources,
    requested_resources,
    sum_by_node,
)


def box(cpu: str = "", memory: str = "", **more: Any) -> dict[str, Any]:
    requests = {name: text for name, text in (("cpu", cpu), ("memory", memory)) if text}
    return {"name": "app", "resources": {"requests": requests}, **more}


def test_requests_of_containers_add_up() -> None:
    assert requested_resources({"containers": [box("100m", "1Ki"), box("1")]}) == {"cpu": 1100, "memory": 1024}


def test_the_largest_init_container_counts_if_it_exceeds_the_sum() -> None:
    spec = {"containers": [box("100m")], "initContainers": [box("300m"), box("200m", "1Ki")]}
    assert requested_resources(spec) == {"cpu": 300, "memory": 1024}


def test_a_sidecar_counts_with_containers_and_later_init_containers() -> None:
    sidecar = box("100m", restartPolicy="Always")
    assert requested_resources({"containers": [box("200m")], "initContainers": [sidecar, box("500m")]}) == {"cpu": 600}
    assert requested_resources({"containers": [box("200m")], "initContainers": [box("500m"), sidecar]}) == {"cpu": 500}
    assert requested_resources({"containers": [box("900m")], "initContainers": [sidecar, box("500m")]}) == {"cpu": 1000}


def test_pod_level_requests_replace_those_of_containers() -> None:
    whole = {"requests": {"cpu": "2", "example.com/gpu": "9"}}
    assert requested_resources({"containers": [box("100m", "1Ki")], "resources": whole}) == {
        "cpu": 2000,
        "memory": 1024,
    }


def test_overhead_is_added() -> None:
    assert requested_resources({"containers": [box("100m")], "overhead": {"cpu": "50m", "memory": "1Ki"}}) == {
        "cpu": 150,
        "memory": 1024,
    }


def test_a_resized_pod_counts_the_larger_of_old_and_new_requests() -> None:
    status = {"containerStatuses": [{"name": "app", "allocatedResources": {"cpu": "2"}}]}
    assert allocated_resources({"spec": {"containers": [box("1")]}, "status": status}) == {"cpu": 2000}
    assert allocated_resources({"spec": {"containers": [box("3")]}, "status": status}) == {"cpu": 3000}


def test_a_pod_without_requests_requests_nothing() -> None:
    assert requested_resources({"containers": [{"name": "app"}]}) == {}
    assert allocated_resources({"spec": {"containers": [{"name": "app"}]}}) == {}


def test_pods_and_their_requests_add_up_by_node() -> None:
    totals: dict[str, Counter[str]] = {}
    sizes: dict[str, Counter[PodSize]] = {}
    pod = {"metadata": {}, "spec": {"nodeName": "n1", "containers": [box("1")]}, "status": {}}
    agent = pod | {"metadata": {"ownerReferences": [{"kind": "DaemonSet"}]}}
    sum_by_node([pod, pod, agent], totals, sizes)
    assert totals == {"n1": {"cpu": 3000, "pods": 3}}
    assert sizes == {"n1": {(1000, 0): 2}}


def test_device_classes_serve_the_resource_they_name_and_one_with_their_own_name() -> None:
    classes = [
        {"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}},
        {"metadata": {"name": "nic"}, "spec": {}},
    ]
    prefix = "deviceclass.resource.kubernetes.io/"
    assert device_resources(classes) == {"example.com/gpu", f"{prefix}gpu", f"{prefix}nic"}
