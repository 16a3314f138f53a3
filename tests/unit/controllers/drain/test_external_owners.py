"""Other owners of a node, read from objects of other controllers."""

from typing import Any

import pytest

from rescheduler.api import names
from rescheduler.controllers.drain.external_owners import ExternalOwnerCheck
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.core.model.nodes import Node

PLANS = "/apis/upgrade.cattle.io/v1/plans"
NODE = Node("n", "u", annotations={names.MACHINE: "m1", names.MACHINE_NAMESPACE: "capi"})
GOING = {"metadata": {"name": "m1", "deletionTimestamp": "2026-01-01T00:00:00Z"}}


class Server:
    """Serves Machines in one version of Cluster API; without a version, Cluster API is not installed."""

    def __init__(self, version: str) -> None:
        self.objects: dict[str, Any] = {}
        if version:
            self.objects["/apis/cluster.x-k8s.io"] = {"preferredVersion": {"version": version}}
            self.objects[f"/apis/cluster.x-k8s.io/{version}/namespaces/capi/machines/m1"] = GOING
        self.asked: list[str] = []

    async def find(self, path: str) -> Any:
        self.asked.append(path)
        return self.objects.get(path)


@pytest.mark.parametrize(("version", "held"), [("v1beta1", True), ("v1beta2", True), ("v1", True), ("", False)])
async def test_the_machine_is_asked_for_in_the_version_that_is_served(version: str, *, held: bool) -> None:
    server = Server(version)
    found = await ExternalOwnerCheck(server, Clock()).wait_reason(NODE)  # type: ignore[arg-type]
    assert (found is not None) is held
    assert len(server.asked) == (4 if version else 3)


async def test_a_node_that_names_no_machine_costs_no_question() -> None:
    server = Server("v1beta1")
    assert await ExternalOwnerCheck(server, Clock()).wait_reason(Node("n", "u")) is None  # type: ignore[arg-type]
    assert server.asked == ["/apis/coordination.k8s.io/v1/namespaces/medik8s-leases/leases/node-n", PLANS]


async def test_a_plan_that_upgrades_the_node_holds_it() -> None:
    server = Server("")
    unreadable = {"metadata": {}, "status": {"applying": ["n"]}}
    upgrading = {"metadata": {"name": "agent", "namespace": "system-upgrade"}, "status": {"applying": ["n"]}}
    server.objects[PLANS] = {"items": [unreadable, upgrading]}
    found = await ExternalOwnerCheck(server, Clock()).wait_reason(Node("n", "u"))  # type: ignore[arg-type]
    assert found is not None
    assert "Plan system-upgrade/agent" in found.message
    assert await ExternalOwnerCheck(server, Clock()).wait_reason(Node("m", "u")) is None  # type: ignore[arg-type]
