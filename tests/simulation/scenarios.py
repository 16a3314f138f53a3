"""Scenarios in simulated time: a small cluster with the real operator, in a loop whose clock jumps to the next timer."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import looptime

from harness import workloads
from invariants.objects import is_ready, node_of
from invariants.records import Call, Change
from rescheduler.core.model.raw import RawObject
from simulation.clusters import NAMESPACE, SPACE, Cluster
from simulation.refusals import RefusedError

T = TypeVar("T")


def releases(call: Call) -> bool:
    """Whether the request releases a pod."""
    meta = call.body.get("metadata") or {}
    owners = meta.get("ownerReferences") or ()
    return call.place.resource == "pods" and any(owner["kind"] == "Deployment" for owner in owners)


class Sandbox:
    """A cluster of three machines whose pods all run on the first one, and a record of writes with users and times.

    Attributes:
        denied: names of pods whose eviction a webhook denies.
    """

    def __init__(self) -> None:
        self.cluster = Cluster(random.Random(random.getrandbits(32)))
        self.server = self.cluster.server
        self.calls: list[tuple[float, Call]] = []
        self.changes: list[Change] = []
        self.denied: set[str] = set()
        self.server.checkers.append(self)
        for index in (1, 2, 3):
            self.cluster.add_node(f"n{index}", {}, pods=50)
        lease = {"metadata": {"name": "rescheduler", "namespace": NAMESPACE}, "spec": {"holderIdentity": ""}}
        self.server.make("leases", lease)

    @property
    def now(self) -> float:
        return self.cluster.now().timestamp()

    def call(self, call: Call) -> None:
        """Record a request that writes; the server calls this."""
        if call.user.startswith("operator"):
            self.calls.append((self.now, call))
        if call.verb == "evict" and call.place.name in self.denied:
            raise RefusedError(403, 'admission webhook "x" denied the request: ask the database team')

    def change(self, change: Change) -> None:
        """Record a change; the server calls this."""
        self.changes.append(change)

    async def settle(self, *objects: RawObject, **spec: Any) -> None:
        """Create objects and wait until all pods run on the first machine."""
        for other in ("n2", "n3"):
            self.cordon(other, cordoned=True)
        self.cluster.deploy(workloads.policy("default", **spec), *objects)
        self.cluster.start()
        await self.until(lambda: self.pods() and all(is_ready(p) and node_of(p) == "n1" for p in self.pods()))
        await asyncio.sleep(5)
        for other in ("n2", "n3"):
            self.cordon(other, cordoned=False)

    def cordon(self, node: str, *, cordoned: bool) -> None:
        self.cluster.edit_node(node, lambda raw: raw["spec"].update(unschedulable=cordoned))

    def pods(self, node: str = "") -> list[RawObject]:
        return [p for p in self.server.all("pods", SPACE) if not node or node_of(p) == node]

    def status(self, node: str = "n1") -> RawObject:
        drain = self.server.find("nodedrains", node)
        return dict(drain.get("status") or {}) if drain else {}

    def moves(self, after: float = 0.0) -> list[tuple[float, str]]:
        """Return requests of the operator on pods: time, and name of the pod."""
        return [(at, c.place.name) for at, c in self.calls if c.place.resource == "pods" and at > after]

    def writes_of_status(self, after: float) -> int:
        place = ("nodedrains", "status")
        return sum(at > after and (c.place.resource, c.place.subresource) == place for at, c in self.calls)

    def cordoned_at(self, node: str = "n1") -> float:
        return next(
            c.at for c in self.changes if c.cordons and c.place.name == node and c.call and c.call.user != "human"
        )

    def reported_at(self, class_: str) -> float:
        """Return the first time at which the status has a blocker of this class."""
        for change in self.changes:
            status = (change.after or {}).get("status") or {}
            if change.place.resource == "nodedrains" and class_ in {b["class"] for b in status.get("blockers") or ()}:
                return change.at
        raise LookupError(f"{class_} was never reported")

    async def until(self, condition: Callable[[], Any], limit: float = 1200) -> float:
        """Wait in simulated time; return the time at which the condition became true."""
        end = self.now + limit
        while not condition():
            assert self.now < end, self.status()
            await asyncio.sleep(0.5)
        return self.now


W = TypeVar("W", bound=Sandbox)


def simulated(fault: Coroutine[Any, Any, T], seed: int) -> T:
    """Run a coroutine in simulated time; return its result."""
    random.seed(seed)
    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=1000.0, noop_cycles=0)) as runner:
        return runner.run(fault)


def run_scenario(make: Callable[[], W], scenario: Callable[[W], Awaitable[None]], *, seed: int = 5) -> None:
    """Run a scenario in a new sandbox; the seed sets the random delays."""

    async def fault() -> None:
        sandbox = make()
        try:
            await scenario(sandbox)
        finally:
            await sandbox.cluster.stop()

    simulated(fault(), seed)
