"""Two drains that block each other by room on the other drain's node."""

import pytest

from rescheduler.core.drain.deadlocks import would_fit
from rescheduler.core.model import nodes
from rescheduler.core.model.listed_pods import parse_listed_pod
from rescheduler.core.model.raw import RawObject
from unit.builders import raw_pod

NODE = nodes.parse_node(
    {"metadata": {"name": "n", "labels": {"disk": "ssd"}}, "status": {"allocatable": {"cpu": "2", "pods": "3"}}}
)


@pytest.mark.parametrize(
    ("asks", "there", "fits"),
    [
        (raw_pod("p", cpu="2"), [], True),
        (raw_pod("p", cpu="2"), [raw_pod("q", cpu="1")], False),
        (raw_pod("p", cpu="2"), [raw_pod("q", cpu="1", phase="Succeeded")], True),
        (raw_pod("p", cpu="1m"), [raw_pod(f"q{n}", cpu="1m") for n in range(3)], False),
        (raw_pod("p", cpu="1", nodeSelector={"disk": "hdd"}), [], False),
    ],
)
def test_room_on_a_node_that_is_cordoned(asks: RawObject, there: list[RawObject], fits: bool) -> None:
    assert would_fit(parse_listed_pod(asks), NODE, [parse_listed_pod(raw) for raw in there]) is fits
