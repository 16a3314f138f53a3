"""Whether requests fit into free resources, by name and in rows."""

from hypothesis import given
from hypothesis import strategies as st

from rescheduler.core.model.resource_fit import (
    fits_by_requests,
    free_resources,
    insufficient_resource,
    max_pods_with_room,
    nodes_with_room,
    request_vector,
    split_by_room,
)

RESOURCES = ("memory", "pods", "cpu", "example.com/gpu")
INDEX = {name: kind for kind, name in enumerate(RESOURCES)}


def test_a_pod_fits_only_if_every_request_and_a_pod_slot_are_free() -> None:
    free = free_resources({"cpu": 2000, "pods": 2}, {"cpu": 1000, "pods": 1})
    assert fits_by_requests(free, {"cpu": 1000})
    assert not fits_by_requests(free, {"cpu": 1001})
    assert not fits_by_requests(free, {"example.com/gpu": 1})
    assert not fits_by_requests(free | {"pods": 0}, {})


def test_a_resource_of_which_the_pod_requests_nothing_never_refuses() -> None:
    assert fits_by_requests({"cpu": -500, "memory": 1, "pods": 1}, {"cpu": 0, "memory": 1})


def test_the_first_insufficient_resource_is_that_of_the_first_request() -> None:
    requests = request_vector({"cpu": 2, "memory": 2}, INDEX)
    assert insufficient_resource([1, 1, 1, 0], requests) == INDEX["cpu"]
    assert insufficient_resource([1, 0, 1, 0], requests) == INDEX["pods"]


def test_a_vector_leaves_out_resources_that_no_node_offers() -> None:
    assert request_vector({"example.com/fpga": 1}, INDEX) == ((INDEX["pods"], 1),)


rows = st.tuples(*[st.integers(-2, 5)] * len(RESOURCES))
requests_by_name = st.dictionaries(st.sampled_from([n for n in RESOURCES if n != "pods"]), st.integers(0, 4))


@given(rows=st.lists(rows, min_size=1, max_size=5), requests=requests_by_name)
def test_names_and_rows_give_the_same_answer(rows: list[tuple[int, ...]], requests: dict[str, int]) -> None:
    fits = [fits_by_requests(dict(zip(RESOURCES, row, strict=True)), requests) for row in rows]
    vector = request_vector(requests, INDEX)
    insufficient = [insufficient_resource(row, vector) for row in rows]
    assert [kind is None for kind in insufficient] == fits
    full_nodes, roomy_nodes = split_by_room(range(len(rows)), rows, vector)
    assert list(roomy_nodes) == list(nodes_with_room(range(len(rows)), rows, vector))
    assert list(roomy_nodes) == [n for n, fit in enumerate(fits) if fit]
    assert {n: kind for kind, nodes in full_nodes.items() for n in nodes} == {
        n: kind for n, kind in enumerate(insufficient) if kind is not None
    }


@given(row=rows, requests=requests_by_name)
def test_as_many_pods_fit_together_as_fit_one_after_another(row: tuple[int, ...], requests: dict[str, int]) -> None:
    free, count = dict(zip(RESOURCES, row, strict=True)), 0
    while fits_by_requests(free, requests):
        free, count = free_resources(free, requests | {"pods": 1}), count + 1
    assert max_pods_with_room(row, request_vector(requests, INDEX)) == count
