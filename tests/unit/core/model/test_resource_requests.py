"""What pods ask for, and what they hold."""

from collections import Counter
from typing import Any

from rescheduler.core.model.resource_requests import (
    allocated_resources,
    fits_by_requests,
    free_resources,
    requested_resources,
    sum_by_node,
)


def box(cpu: str = "", memory: str = "", **more: Any) -> dict[str, Any]:
    requests = {name: text for name, text in (("cpu", cpu), ("memory", memory)) if text}
    return {"name": "app", "resources": {"requests": requests}, **more}


def test_containers_are_side_by_side() -> None:
    assert requested_resources({"containers": [box("100m", "1Ki"), box("1")]}) == {"cpu": 1100, "memory": 1024}


def test_the_largest_init_container_counts_where_it_is_larger_than_all_that_follow() -> None:
    spec = {"containers": [box("100m")], "initContainers": [box("300m"), box("200m", "1Ki")]}
    assert requested_resources(spec) == {"cpu": 300, "memory": 1024}


def test_a_sidecar_counts_beside_containers_and_beside_init_containers_after_it() -> None:
    sidecar = box("100m", restartPolicy="Always")
    assert requested_resources({"containers": [box("200m")], "initContainers": [sidecar, box("500m")]}) == {"cpu": 600}
    assert requested_resources({"containers": [box("200m")], "initContainers": [box("500m"), sidecar]}) == {"cpu": 500}
    assert requested_resources({"containers": [box("900m")], "initContainers": [sidecar, box("500m")]}) == {"cpu": 1000}


def test_requests_of_the_pod_as_a_whole_stand_instead_of_its_containers() -> None:
    whole = {"requests": {"cpu": "2", "example.com/gpu": "9"}}
    assert requested_resources({"containers": [box("100m", "1Ki")], "resources": whole}) == {
        "cpu": 2000,
        "memory": 1024,
    }


def test_overhead_comes_on_top() -> None:
    assert requested_resources({"containers": [box("100m")], "overhead": {"cpu": "50m", "memory": "1Ki"}}) == {
        "cpu": 150,
        "memory": 1024,
    }


def test_a_pod_that_is_resized_holds_the_larger_of_what_it_has_and_asks() -> None:
    status = {"containerStatuses": [{"name": "app", "allocatedResources": {"cpu": "2"}}]}
    assert allocated_resources({"spec": {"containers": [box("1")]}, "status": status}) == {"cpu": 2000}
    assert allocated_resources({"spec": {"containers": [box("3")]}, "status": status}) == {"cpu": 3000}


def test_nothing_asked_is_nothing() -> None:
    assert requested_resources({"containers": [{"name": "app"}]}) == {}
    assert allocated_resources({"spec": {"containers": [{"name": "app"}]}}) == {}


def test_pods_and_their_requests_add_up_by_node() -> None:
    totals: dict[str, Counter[str]] = {}
    sum_by_node([{"spec": {"nodeName": "n1", "containers": [box("1")]}, "status": {}}] * 2, totals)
    assert totals == {"n1": {"cpu": 2000, "pods": 2}}


def test_a_pod_fits_only_if_every_request_and_a_pod_slot_are_free() -> None:
    free = free_resources({"cpu": 2000, "pods": 2}, {"cpu": 1000, "pods": 1})
    assert fits_by_requests(free, {"cpu": 1000})
    assert not fits_by_requests(free, {"cpu": 1001})
    assert not fits_by_requests(free, {"example.com/gpu": 1})
    assert not fits_by_requests(free | {"pods": 0}, {})
