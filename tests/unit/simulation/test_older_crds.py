"""An API server whose CRDs are older than the operator: it drops fields of a status."""

import asyncio
from collections import Counter
from typing import Any

from harness import workloads
from invariants.records import Call
from simulation.clusters import SPACE
from simulation.scenarios import Sandbox, run_scenario


class OlderCRDs(Sandbox):
    """A sandbox that drops fields of the operator's status writes, and counts these writes by resource."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped = {"pods", "blockersTotal", "requested"}
        self.status_writes = Counter[str]()

    def call(self, call: Call) -> None:
        super().call(call)
        if call.place.subresource == "status" and call.place.resource in ("nodedrains", "namespacepools"):
            self.status_writes[call.place.resource] += 1
            status: dict[str, Any] = call.body["status"]
            for field in self.dropped & status.keys():
                del status[field]


def test_a_field_that_the_api_server_drops_is_not_written_again_and_again() -> None:
    async def scenario(sandbox: OlderCRDs) -> None:
        pool = workloads.pool("red", namespaces=[SPACE], nodeSelector={"matchLabels": {"a": "b"}})
        await sandbox.settle(workloads.bare_pod("unmanaged", SPACE, nodeName="n1"), pool)
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: sandbox.status().get("phase") == "Blocked")
        assert "pods" not in sandbox.status()
        await asyncio.sleep(120)
        sandbox.status_writes.clear()
        await asyncio.sleep(600)
        # Once a minute a pool reports when its pods were counted.
        assert sandbox.status_writes == {"namespacepools": 10}
        sandbox.dropped.clear()
        sandbox.cluster.annotate("n1", maintenance="another reason")
        sandbox.server.remove("pods", sandbox.pods("n1")[0], grace=0)
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")
        assert sandbox.status()["pods"]["remaining"] == 0

    run_scenario(OlderCRDs, scenario)
