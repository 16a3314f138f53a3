"""The NodeDrain as one drain's task writes it: its status, and its end.

Each write carries the version that it was made from. Of a refused write the status tells; of a refused status an Event
on the node, and the log.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import structlog

from rescheduler.api import names
from rescheduler.api.conditions import Condition
from rescheduler.api.drains import NodeDrain, NodeDrainStatus
from rescheduler.api.scalars import replacing
from rescheduler.controllers.drain.events import Announcer
from rescheduler.controllers.evacuation.pod_mover import NodePods
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.store import Kind, Store
from rescheduler.controllers.runtime.write_attempts import Attempts
from rescheduler.core.drain import status as drain_status
from rescheduler.core.eviction import write_refusals
from rescheduler.core.eviction.write_refusals import Act, Trouble
from rescheduler.core.model.nodes import Node
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT, ApiError, Client

log = structlog.get_logger("rescheduler.drainer")

_WRITE_EVERY = 1.0  # seconds between writes of mere progress; longer where many drains have some to write
_WRITES = 5.0  # a second, at most, over all drains


class Record:
    """One NodeDrain's writes; `wake`: look again, at what was not written yet."""

    def __init__(
        self,
        name: str,
        client: Client,
        store: Store,
        clock: Clock,
        announcer: Announcer,
        attempts: Attempts,
        wake: Callable[[], None],
    ) -> None:
        self._name, self._attempts, self._wake = name, attempts, wake
        self._client, self._store, self._clock, self._announcer = client, store, clock, announcer
        self._written_at = float("-inf")

    async def write(self, scene: drain_status.Scene, pods: NodePods, *, now: bool = False) -> None:
        """Write the status where it differs; mere progress now and then.

        `now`: it has to be there before what comes next, so a failure raises; otherwise it is tried again later.
        """
        scene = replace(scene, troubles=self._troubles())
        wanted, before = drain_status.status(scene), scene.drain.status
        if wanted == before:
            return
        urgent, monotonic = now or _gist(wanted) != _gist(before), self._clock.monotonic()
        if not urgent and monotonic - self._written_at < (every := self._every()):
            asyncio.get_running_loop().call_later(every, self._wake)
            return
        if await self._put(scene.drain, scene.node, wanted, must=now):
            self._announcer.changed(scene, before, wanted, pods.uids(), pods.owners())

    async def tell(self, drain: NodeDrain, here: Node | None) -> None:
        """Name what fails in the status as it stands: a look that failed has none of its own."""
        wanted = drain_status.failing(drain, self._troubles(), self._clock.now())
        if wanted != drain.status:
            await self._put(drain, here, wanted, must=False)

    def _troubles(self) -> tuple[Trouble, ...]:
        """What a status that could be written would tell."""
        return tuple(trouble for trouble in self._attempts.troubles() if trouble.act is not Act.STATUS)

    async def _put(self, drain: NodeDrain, here: Node | None, wanted: NodeDrainStatus, *, must: bool) -> bool:
        self._written_at = self._clock.monotonic()
        body = {"metadata": {"resourceVersion": drain.resource_version}, "status": replacing(drain.status, wanted)}

        async def send() -> None:
            self._store.put(Kind.DRAIN, await self._client.patch(f"{paths.drain(self._name)}/status", body))

        try:
            if not must:
                return await self._attempts.make(Act.STATUS, send)
            await send()
        except ApiError as error:
            if not write_refusals.is_conflict(error.refusal):
                self._attempts.failed(Act.STATUS, error)
            raise
        finally:
            if here and self._attempts.troubled(Act.STATUS):
                self._announcer.unwritable(here, self._attempts.troubles())
        self._attempts.clear(Act.STATUS)
        return True

    def _every(self) -> float:
        """Seconds between writes of mere progress; all drains are counted, so it is not asked with each look."""
        return max(_WRITE_EVERY, self._store.draining / _WRITES)

    async def failed(self, drain: NodeDrain, error: Exception) -> None:
        """Report that the operator itself fails at this drain, once; the next status that is written replaces this."""
        status = _failed(drain, error, self._clock.now())
        if status == drain.status:
            return
        body = {"metadata": {"resourceVersion": drain.resource_version}, "status": replacing(drain.status, status)}
        try:
            self._store.put(Kind.DRAIN, await self._client.patch(f"{paths.drain(self._name)}/status", body))
        except TRANSIENT as refused:
            log.warning("drain.failure_not_reported", drain=self._name, error=str(refused))

    async def cancel(self, scene: drain_status.Scene) -> bool:
        """Its time is up: delete it, and say so. Return whether it was deleted."""
        deleted = await self._delete(scene.drain)
        if deleted:
            self._announcer.timed_out(scene)
        return deleted

    async def _delete(self, drain: NodeDrain) -> bool:
        async def send() -> None:
            answer = await self._client.delete(paths.drain(self._name), {"preconditions": {"uid": drain.uid}})
            if answer.get("kind") == "NodeDrain":
                self._store.put(Kind.DRAIN, answer)

        return await self._attempts.make(Act.DELETE, send)

    async def forget(self, drain: NodeDrain, here: Node | None) -> bool:
        """Let the NodeDrain go; one whose node is gone is deleted first. Return whether it is gone."""
        record = drain.status.node
        if drain.deletion_timestamp is None:
            if not await self._delete(drain):
                return False
            self._announcer.node_gone(drain, here)
        if names.FINALIZER in drain.finalizers and not await self._attempts.make(
            Act.FINALIZER, lambda: self._drop_finalizer(drain)
        ):
            return False
        log.info("drain.gone", drain=self._name, node=drain.spec.node_name, uid=record.uid if record else "")
        self._store.drop(Kind.DRAIN, self._name)
        return True

    async def _drop_finalizer(self, drain: NodeDrain) -> None:
        fresh = (await self._client.get(paths.drain(self._name)))["metadata"]
        kept = [found for found in fresh.get("finalizers") or [] if found != names.FINALIZER]
        # Of the uid too: by now it may be another one of the same name, which holds a node.
        body = {"metadata": {"uid": drain.uid, "resourceVersion": fresh["resourceVersion"], "finalizers": kept}}
        await self._client.patch(paths.drain(self._name), body)


def _failed(drain: NodeDrain, error: Exception, now: datetime) -> NodeDrainStatus:
    known = {condition.type: condition for condition in drain.status.conditions}
    before = known.get("Progressing")
    known["Progressing"] = Condition(
        type="Progressing",
        status="False",
        reason="InternalError",
        message=f"internal error in the operator ({type(error).__name__}): it tries again at least once a minute; "
        "find task.failed in its log and report it",
        observed_generation=drain.generation,
        last_transition_time=before.last_transition_time if before and before.status == "False" else now,
    )
    conditions = tuple(known.values())
    return drain.status.model_copy(update={"conditions": conditions, "waiting": drain_status.waiting(conditions)})


def _gist(status: NodeDrainStatus) -> tuple[object, ...]:
    """What a person waits for: a change of it is written at once."""
    blockers = tuple((b.namespace, b.pod, b.class_) for b in status.blockers)
    conditions = tuple((c.type, c.status, c.reason) for c in status.conditions)
    return (status.phase, status.node, status.started_at, status.recordoned_at, blockers, conditions)
