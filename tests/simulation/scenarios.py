"""Scenes in simulated time: a small cluster with the real engine, in a loop whose clock jumps to what is next."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import looptime

from harness import workloads
from invariants.objects import Json, is_ready, node_of
from invariants.records import Call, Change
from simulation.clusters import NAMESPACE, SPACE, Cluster
from simulation.refusals import RefusedError

T = TypeVar("T")


def lets_go(call: Call) -> bool:
    """Whether the request releases a pod."""
    meta = call.body.get("metadata") or {}
    owners = meta.get("ownerReferences") or ()
    return call.place.resource == "pods" and any(owner["kind"] == "Deployment" for owner in owners)


class World:
    """A cluster of three machines whose pods all run on the first, and a record of who wrote what, and when.

    Attributes:
        denied: names of pods whose eviction a webhook denies.
    """

    def __init__(self) -> None:
        self.cluster = Cluster(random.Random(5))
        self.server = self.cluster.server
        self.calls: list[tuple[float, Call]] = []
        self.changes: list[Change] = []
        self.denied: set[str] = set()
        self.server.judges.append(self)
        for index in (1, 2, 3):
            self.cluster.add_node(f"n{index}", {}, pods=50)
        lease = {"metadata": {"name": "rescheduler", "namespace": NAMESPACE}, "spec": {"holderIdentity": ""}}
        self.server.make("leases", lease)

    @property
    def now(self) -> float:
        return self.cluster.now().timestamp()

    def call(self, call: Call) -> None:
        """A judge of the server's: told of each request that writes."""
        if call.user.startswith("operator"):
            self.calls.append((self.now, call))
        if call.verb == "evict" and call.place.name in self.denied:
            raise RefusedError(403, 'admission webhook "x" denied the request: ask the database team')

    def change(self, change: Change) -> None:
        """A judge of the server's: told of each change."""
        self.changes.append(change)

    async def settle(self, *objects: Json, **spec: Any) -> None:
        """All pods run on the first machine."""
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

    def pods(self, node: str = "") -> list[Json]:
        return [p for p in self.server.all("pods", SPACE) if not node or node_of(p) == node]

    def status(self, node: str = "n1") -> Json:
        drain = self.server.find("nodedrains", node)
        return dict(drain.get("status") or {}) if drain else {}

    def moves(self, after: float = 0.0) -> list[tuple[float, str]]:
        """Requests of the operator on pods: when, and on which."""
        return [(at, c.place.name) for at, c in self.calls if c.place.resource == "pods" and at > after]

    def writes_of_status(self, after: float) -> int:
        place = ("nodedrains", "status")
        return sum(at > after and (c.place.resource, c.place.subresource) == place for at, c in self.calls)

    def cordoned_at(self, node: str = "n1") -> float:
        return next(
            c.at for c in self.changes if c.cordons and c.place.name == node and c.call and c.call.user != "human"
        )

    def said_at(self, class_: str) -> float:
        """When a blocker of this class was first in the status."""
        for change in self.changes:
            status = (change.after or {}).get("status") or {}
            if change.place.resource == "nodedrains" and class_ in {b["class"] for b in status.get("blockers") or ()}:
                return change.at
        raise LookupError(f"{class_} was never said")

    async def until(self, condition: Callable[[], Any], limit: float = 1200) -> float:
        """Wait in simulated time; when it became true."""
        end = self.now + limit
        while not condition():
            assert self.now < end, self.status()
            await asyncio.sleep(0.5)
        return self.now


W = TypeVar("W", bound=World)


def simulated(act: Coroutine[Any, Any, T], seed: int) -> T:
    """What comes of it, in simulated time."""
    random.seed(seed)
    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=1000.0, noop_cycles=0)) as runner:
        return runner.run(act)


def play(make: Callable[[], W], scene: Callable[[W], Awaitable[None]]) -> None:
    """Carry out a scene in a world of its own."""

    async def act() -> None:
        world = make()
        try:
            await scene(world)
        finally:
            await world.cluster.stop()

    simulated(act(), 5)
