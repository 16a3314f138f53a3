"""A sandbox in which the API server refuses some writes of the operator."""

from collections.abc import Callable

from harness import workloads
from invariants.records import Call
from rescheduler.core.model.raw import RawObject
from simulation.clusters import SPACE
from simulation.refusals import RefusedError
from simulation.scenarios import Sandbox

NEVER = {"annotations": {"rescheduler.dev/replacement": "Never"}}
DENIED = "admission webhook denied the request: nodes are frozen until Monday"


class Refusing(Sandbox):
    """A sandbox in which some writes of the operator are refused.

    Attributes:
        refuse: returns a code for each write of the operator; 0 accepts it.
        tries: times of refused writes.
        delay: seconds until a refusal arrives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refuse: Callable[[Call], int] = lambda _: 0
        self.tries: list[float] = []
        self.retry_after = self.delay = 0.0

    def call(self, call: Call) -> None:
        super().call(call)
        if call.user.startswith("operator") and (code := self.refuse(call)):
            self.tries.append(self.now)
            raise RefusedError(code, DENIED, delay=self.delay, retry_after=self.retry_after)

    async def release_one_for_good(self) -> None:
        """Let a drain of n1 wait for the only replacement, and refuse the return of the released pod."""
        await self.settle(workloads.deployment("web", 1, SPACE))
        for node in ("n2", "n3"):
            self.cluster.machines[node].slow = 3000.0
        self.cluster.annotate("n1", maintenance="test")
        await self.until(lambda: self.status().get("pods", {}).get("waitingForReplacement"))
        self.refuse = lambda call: 403 * (call.place.resource == "pods" and call.verb == "patch")

    def condition(self, type_: str, node: str = "n1") -> RawObject:
        found: list[RawObject] = self.status(node).get("conditions", [])
        return next((c for c in found if c["type"] == type_), {"status": "", "reason": "", "message": ""})

    def node(self, name: str = "n1") -> RawObject:
        found = self.server.find("nodes", name)
        assert found
        return found

    def frozen(self, name: str = "n1") -> bool:
        return bool(self.node(name)["spec"].get("unschedulable"))

    def gone(self, node: str = "n1") -> bool:
        return self.server.find("nodedrains", node) is None

    def events(self) -> set[str]:
        return {event["reason"] for event in self.server.all("events")}


def on_node(call: Call, subresource: str = "") -> bool:
    return call.place.resource == "nodes" and call.place.subresource == subresource
