"""Two drains that block each other by room on the other drain's node."""

from typing import Any

import pytest

from rescheduler.core.drain.deadlocks import would_fit
from rescheduler.core.model import nodes

NODE = nodes.parse_node(
    {"metadata": {"name": "n", "labels": {"disk": "ssd"}}, "status": {"allocatable": {"cpu": "2", "pods": "3"}}}
)


def pod(name: str, cpu: str, phase: str = "Running", **spec: Any) -> dict[str, Any]:
    containers = [{"name": "app", "resources": {"requests": {"cpu": cpu}}}]
    meta = {"namespace": "s", "name": name, "labels": {"app": name}}
    return {"metadata": meta, "spec": {"containers": containers, **spec}, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("asks", "there", "fits"),
    [
        (pod("p", "2"), [], True),
        (pod("p", "2"), [pod("q", "1")], False),
        (pod("p", "2"), [pod("q", "1", "Succeeded")], True),
        (pod("p", "1m"), [pod(f"q{n}", "1m") for n in range(3)], False),
        (pod("p", "1", nodeSelector={"disk": "hdd"}), [], False),
    ],
)
def test_room_on_a_node_that_is_cordoned(asks: dict[str, Any], there: list[dict[str, Any]], fits: bool) -> None:
    assert would_fit(asks, NODE, there) is fits
