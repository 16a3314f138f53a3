"""One look at one node: what does it ask for, and does its NodeDrain say so?"""

from collections.abc import Awaitable
from datetime import datetime
from functools import partial

import structlog

from rescheduler.api.drains import NodeDrain, Reason
from rescheduler.api.policies import Policy
from rescheduler.controllers.drain.events import Announcer
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.conflicts import reread
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.store import Kind, Store
from rescheduler.controllers.runtime.work_queue import KeyedQueue
from rescheduler.controllers.runtime.write_attempts import Attempts
from rescheduler.core.drain import node_patches, requests, triggers
from rescheduler.core.drain.requests import Amend, Create, Withdraw
from rescheduler.core.drain.triggers import Wants
from rescheduler.core.eviction import write_refusals
from rescheduler.core.eviction.write_refusals import Act
from rescheduler.core.failure import condition_history
from rescheduler.core.failure.condition_history import Sighting
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.wait_reasons import Hold
from rescheduler.kube import paths
from rescheduler.kube.client import STRATEGIC_PATCH, TRANSIENT, ApiError, Client, Json

log = structlog.get_logger("rescheduler.reconciler")

_LET_GO = "let go"


class Reconciler:
    """Keeps NodeDrains in step with what nodes ask for."""

    def __init__(
        self, client: Client, store: Store, clock: Clock, queue: KeyedQueue, announcer: Announcer, metrics: Metrics
    ) -> None:
        self._client, self._store, self._clock = client, store, clock
        self._queue, self._announcer, self._metrics = queue, announcer, metrics
        self._refused: dict[str, str] = {}  # node name to the UID that was told
        self._attempts: dict[str, Attempts] = {}  # by node: writes that failed

    async def look(self, name: str) -> bool:
        """Look at one node; whether nothing went wrong (the queue tries again with back-off)."""
        if self._store.cannot_read(Kind.DRAIN, name):
            return True  # the node has a NodeDrain: whatever that says stays as it is
        attempts = self._attempts.setdefault(name, Attempts(self._clock, node=name))
        try:
            await self._look(name, attempts)
        except TRANSIENT as error:
            log.warning("node.reconcile_failed", node=name, error=str(error))
            self._metrics.reconcile_total.labels("node", "error").inc()
            if isinstance(error, ApiError) and error.code in (404, 409):
                await reread(self._client, self._store, Kind.DRAIN, paths.drain(name))
            return False
        self._metrics.reconcile_total.labels("node", "error" if self._report(name, attempts) else "success").inc()
        return True

    def _report(self, name: str, attempts: Attempts) -> bool:
        """Tell by an Event which writes fail, and try them again when they are due; whether any does."""
        node = self._store.node(name)
        if node is None or not attempts.any:
            if node is None or not attempts.rests:
                self._attempts.pop(name, None)
            return False
        self._queue.add_after(name, min(attempts.soonest(), write_refusals.PACE))
        if troubles := attempts.troubles():
            self._announcer.unwritable(node, troubles)
        return True

    async def _look(self, name: str, attempts: Attempts) -> None:
        node, seen = self._store.node(name), self._store.see(name)
        if node is None or seen is None:
            return  # the drain's own task says goodbye
        drain, policy = self._store.drain(name), self._store.policy(node)
        if drain is None:
            node = await self._let_go(node, attempts)
        if Kind.DRAIN in self._store.absent:
            return  # no request can be noted: when the CRD is there, all nodes are looked at again
        if policy:
            self._announcer.windows(policy, self._clock.now())
        seen = self._recalled(seen, drain, policy)
        view = self._store.view(name, triggers.standing(drain))
        wants = triggers.wanted(node, policy, seen, self._clock.now(), view)
        if wants.look_again:
            self._queue.add_after(name, (wants.look_again - self._clock.now()).total_seconds())
        await self._refuse(node, refused=wants.refused)
        await self._forget(node, wants, seen, attempts)
        await self._change(node, drain, wants, attempts)

    async def _change(self, node: Node, drain: NodeDrain | None, wants: Wants, attempts: Attempts) -> None:
        """Bring the NodeDrain in step with what the node asks for."""
        change = requests.change(node, drain, wants)
        match change:
            case Create(body):
                reasons = [want.reason for want in wants.requests]
                if await attempts.make(Act.CREATE, lambda: self._taken(self._client.create(paths.DRAINS, body))):
                    log.info("drain.created", node=node.name, uid=node.uid, reasons=reasons)
            case Amend(patch):
                await attempts.make(Act.AMEND, lambda: self._taken(self._client.patch(paths.drain(node.name), patch)))
            case Withdraw() if drain:
                options = {"preconditions": {"uid": drain.uid, "resourceVersion": drain.resource_version}}
                path = paths.drain(node.name)
                if await attempts.make(Act.DELETE, lambda: self._taken(self._client.delete(path, options))):
                    log.info("drain.withdrawn", node=node.name, uid=node.uid)
        if attempts.troubled(Act.DELETE):
            self._store.unwanted.add(node.name)
        if not isinstance(change, Create):
            attempts.clear(Act.CREATE)
        if not isinstance(change, Amend):
            attempts.clear(Act.AMEND)
        if not isinstance(change, Withdraw):
            attempts.clear(Act.DELETE)
            self._store.unwanted.discard(node.name)

    async def _taken(self, answer: Awaitable[Json]) -> None:
        """Take in the NodeDrain that the server answered with; a delete may answer with a mere status."""
        raw = await answer
        if raw.get("kind") != "Status":
            self._store.put(Kind.DRAIN, raw)

    def _recalled(self, seen: Sighting, drain: NodeDrain | None, policy: Policy | None) -> Sighting:
        """The sighting, with what its NodeDrain says of the time before our start."""
        if drain is None:
            return seen
        name = drain.spec.node_name
        if policy is None:
            match = triggers.named(triggers.standing(drain).get(Reason.FAILURE, ""))
            known = match is None or any(
                match.type == m.type and set(match.status) <= set(m.status) for m in seen.matches
            )
            return (
                seen
                if match is None or known
                else self._store.recall(name, partial(condition_history.judge_by, match=match))
            )
        if seen.begins or not (since := _flapping_since(drain)):
            return seen
        changes = policy.spec.failure.flapping.changes
        return self._store.recall(name, partial(condition_history.recall, changes=changes, last=since))

    async def _let_go(self, node: Node, attempts: Attempts) -> Node:
        """Of a drain whose NodeDrain was taken by force: what else was ours on the node only that could tell."""
        if not node_patches.is_orphaned(node):
            attempts.clear(Act.CONDITIONS)
            return node
        patch = node_patches.conditions({}, node, self._clock.now())

        async def send() -> None:
            raw = await self._client.patch(f"{paths.node(node.name)}/status", patch, kind=STRATEGIC_PATCH)
            self._store.put(Kind.NODE, raw)

        if attempts.due(_LET_GO) and await attempts.make(Act.CONDITIONS, send):
            attempts.rest(_LET_GO, write_refusals.PACE)  # somebody may keep writing the same ones
            log.warning("node.let_go", node=node.name, uid=node.uid, cordoned=node.unschedulable)
            self._announcer.let_go(node)
        return self._store.node(node.name) or node

    async def _refuse(self, node: Node, *, refused: bool) -> None:
        if not refused:
            self._refused.pop(node.name, None)
        elif self._refused.get(node.name) != node.uid:
            self._refused[node.name] = node.uid
            self._announcer.maintenance_refused(node)

    async def _forget(self, node: Node, wants: Wants, seen: Sighting, attempts: Attempts) -> None:
        """Cancellations whose request is gone."""
        stale = triggers.stale_cancellations(node, wants, seen)
        patch = node_patches.forget_patch(node, stale) if stale else None

        async def send() -> None:
            self._store.put(Kind.NODE, await self._client.patch(paths.node(node.name), patch))

        if patch is None:
            attempts.clear(Act.UNDECORATE)
        else:
            await attempts.make(Act.UNDECORATE, send)


def _flapping_since(drain: NodeDrain) -> datetime | None:
    """Since when the NodeDrain says that its node flaps; None where it does not."""
    found = (c for c in drain.status.conditions if c.type == "Progressing" and c.reason == Hold.FLAPPING)
    return next((c.last_transition_time for c in found), None)
