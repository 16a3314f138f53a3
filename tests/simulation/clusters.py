"""The simulated cluster as a whole: server, controllers, machines, and two operators."""

import asyncio
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from harness import workloads
from invariants.objects import is_ready, name
from rescheduler.api.names import HISTORY
from rescheduler.core.model.raw import RawObject
from simulation.controllers import WORKLOADS, Controller, claim_volume
from simulation.machines import Machine, duplicates
from simulation.nodes import NODES
from simulation.processes import NAMESPACE, Process
from simulation.scheduler import Scheduler
from simulation.server import Server

SPACE = "shop"
_BEGAN = datetime(2026, 1, 5, 10, tzinfo=UTC)


class Cluster:
    """All parts of one run.

    Attributes:
        duplicates: pods that ran twice and must not.
        sizes: allocatable resources by node.
        controllers: controllers apart from machines and operators; add more before the start.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance, self._loop = chance, asyncio.get_running_loop()
        self._zero = self._loop.time()
        self.server = Server(self.now)
        self.machines: dict[str, Machine] = {}
        self.duplicates: list[str] = []
        self.sizes: dict[str, dict[str, str]] = {}
        self.controllers: list[Controller] = [make(self.server, chance) for make in (*WORKLOADS, *NODES, Scheduler)]
        self.operators = [Process(self.server, name, chance) for name in ("operator-a", "operator-b")]
        self._tasks: list[asyncio.Task[None]] = []

    def now(self) -> datetime:
        """Return the time of the server and of every correct clock."""
        return _BEGAN + timedelta(seconds=self._loop.time() - self._zero)

    def add_node(self, called: str, labels: Mapping[str, str], *, pods: int, **room: str) -> None:
        """Add a running machine with its Node and Lease; `room`: resources apart from pods, which the simulation
        ignores.
        """
        labels = {"kubernetes.io/hostname": called, **labels}
        size = {"cpu": "64", "memory": "256Gi", "pods": str(pods), **room}
        self.sizes[called] = size
        status = {"allocatable": dict(size), "conditions": []}
        body = {"metadata": {"name": called, "labels": labels}, "spec": {}, "status": status}
        self.server.make("nodes", body)
        lease = {"metadata": {"name": called, "namespace": "kube-node-lease"}, "spec": {"renewTime": ""}}
        self.server.make("leases", lease)
        self.machines[called] = Machine(self.server, called, self.chance, self._started)

    def _started(self, node: str, pod: RawObject) -> None:
        if found := duplicates(pod, node, self.machines.values()):
            self.duplicates.append(found)

    def deploy(self, *objects: RawObject) -> None:
        """Create objects; a Deployment whose template names a claim gets the claim."""
        for body in objects:
            for volume in body["spec"].get("template", {}).get("spec", {}).get("volumes") or ():
                if claim := volume.get("persistentVolumeClaim"):
                    claim_volume(self.server, claim["claimName"], SPACE)
            self.server.make(f"{body['kind'].lower()}s".replace("policys", "policies"), body)

    def start(self) -> None:
        """Start every part."""
        self.server.make("namespaces", workloads.namespace(SPACE))
        self.server.make("configmaps", {"metadata": {"name": HISTORY, "namespace": NAMESPACE}})
        runs = [controller.run() for controller in self.controllers]
        runs += [machine.run() for machine in self.machines.values()]
        self._tasks = [asyncio.create_task(run) for run in runs]
        for task in self._tasks:
            task.add_done_callback(_show)
        for operator in self.operators:
            operator.start()

    async def stop(self) -> None:
        """End every part."""
        for operator in self.operators:
            await operator.kill()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    # -- requests of people -------------------------------------------------------------------------------------------

    def annotate(self, node: str, **words: str | None) -> None:
        """Set annotations of the operator's group on a Node; None removes one."""

        def change(raw: RawObject) -> None:
            found = raw["metadata"].setdefault("annotations", {})
            for key, value in words.items():
                found.pop(f"rescheduler.dev/{key}", None)
                if value is not None:
                    found[f"rescheduler.dev/{key}"] = value

        self.edit_node(node, change)

    def edit_node(self, node: str, change: Any) -> None:
        """Edit a Node as a person."""
        if raw := self.server.find("nodes", node):
            self.server.edit("nodes", raw, change, user="human")

    def edit(self, resource: str, called: str, change: Any, space: str = "") -> None:
        """Edit an object as a person."""
        if raw := self.server.find(resource, called, space):
            self.server.edit(resource, raw, change, user="human")

    def drains(self) -> list[str]:
        return [name(raw) for raw in self.server.all("nodedrains")]

    def unready(self) -> list[str]:
        """Return pods that are not Ready, and owners that have too few pods."""
        return [name(p) for p in self.server.all("pods") if not is_ready(p)]


def _show(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        raise error


__all__ = ["NAMESPACE", "SPACE", "Cluster"]
