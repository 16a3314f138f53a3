"""Evens out nodes: every few minutes, and when a node or a policy changes, while a policy asks for it.

All pods are listed in pieces, summed by node and dropped (after a round of moves, those of the pool's nodes); only the
pods of the few fullest nodes are looked at one by one, and forgotten too. What is remembered is small: how far each
pool has come, and whose pods were moved of late.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import structlog

from rescheduler.api.policies import Mode
from rescheduler.controllers.rebalance.events import RebalanceEvents
from rescheduler.controllers.rebalance.moves import MoveOutcome
from rescheduler.controllers.rebalance.node_usage import NodeUsage
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.controllers.runtime.store import Store
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.core.eviction.pod_actions import EvictionContext
from rescheduler.core.model import disruption_budgets, object_schemas
from rescheduler.core.model.quantities import PODS
from rescheduler.core.model.resource_requests import allocated_resources
from rescheduler.core.rebalance import candidates as rebalance_candidates
from rescheduler.core.rebalance import node_groups, progress, selection
from rescheduler.core.rebalance.node_groups import NodeGroup, NodeGroupKey
from rescheduler.core.rebalance.progress import RebalanceProgress
from rescheduler.core.rebalance.selection import Candidate, NodeClassification, PlannedMove
from rescheduler.core.rebalance.utilization import node_load
from rescheduler.core.replacement.move_history import MoveHistory
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, Client

log = structlog.get_logger("rescheduler.rebalancer")

_SCAN_INTERVAL = 180.0  # seconds between looks where nothing changes
_SAMPLE_INTERVAL = 60.0  # seconds between samples of usage
_MIN_SCAN_DELAY = 2.0  # seconds from a change or a round's end to the next look, at least
_SCAN_PAUSE_FACTOR = 20  # counting pods may take 1/20 of the time
_MAX_NODES_LISTED_SINGLY = 100  # nodes whose pods are listed node by node, rather than all pods at once
_WAKE_DEBOUNCE = 1.0  # seconds; heartbeats of many nodes are one look at what is in memory
_FIRST_RETRY_DELAY, _MAX_RETRY_DELAY = 2.0, 60.0  # seconds, where a look failed
_REFILL_WINDOW = timedelta(hours=1)  # so long after it came back a node is filled
_NO_CANDIDATES_DELAY = timedelta(minutes=10)  # so long nodes with nothing to move are passed over
_UNFINISHED_PODS_SELECTOR = "status.phase!=Succeeded,status.phase!=Failed"


class RebalanceMover(Protocol):
    """Moves one pod off a node that is not cordoned, within its budget and the policy's pace."""

    def start(self) -> None:
        """Nothing is wanted yet."""
        ...

    async def move(self, candidate: Candidate, group: NodeGroup) -> MoveOutcome:
        """Move it; what became of that, once it is over."""
        ...

    def restrict_to_nodes(self, nodes: Collection[str]) -> None:
        """Only off these nodes pods may still be moved."""
        ...


class Rebalancer:
    """One for the process; runs while it leads."""

    def __init__(
        self,
        client: Client,
        store: Store,
        clock: Clock,
        mover: RebalanceMover,
        node_usage: NodeUsage,
        events: RebalanceEvents,
        supervisor: Supervisor,
        *,
        own_pod: str = "",
    ) -> None:
        self._client, self._store, self._clock, self._mover = client, store, clock, mover
        self._node_usage, self._events, self._own_pod = node_usage, events, own_pod
        self._supervisor = supervisor
        self._wake = asyncio.Event()
        self._progress_by_group: dict[NodeGroupKey, RebalanceProgress] = {}
        self._round_tasks: dict[NodeGroupKey, asyncio.Task[None]] = {}
        self._cooldown_until: dict[str, datetime] = {}  # by uid of an owner: until when it is waited for
        self._skipped_until: dict[str, datetime] = {}  # the same: until when its pods are no candidates at all
        self._no_candidates_until: dict[
            str, datetime
        ] = {}  # by node: until when it is not asked again for pods to move
        self._moving_owners: Counter[str] = Counter()  # by uid of an owner
        self._move_history = MoveHistory()
        self._drained_nodes: frozenset[str] = frozenset()
        self._refill_until: dict[str, datetime] = {}  # by node: until when it is filled
        self._groups_fingerprint: object = None
        self._next_scan_at, self._earliest_scan_at, self._next_sample_at = 0.0, 0.0, 0.0
        self._groups_to_recheck: set[NodeGroupKey] = set()  # arenas to be looked at again, before all others are
        self._recheck_at = 0.0
        self._retry_delay = _FIRST_RETRY_DELAY

    def wake(self) -> None:
        """A node, a policy or a drain may have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Look until cancelled."""
        self._mover.start()
        self._progress_by_group.clear()
        self._groups_fingerprint = None  # what another leader did meanwhile is not known: look at once
        try:
            await self._supervisor.run_loop("rebalance", self._step, wake=self._wake, debounce=lambda: _WAKE_DEBOUNCE)
        finally:
            rounds = list(self._round_tasks.values())
            for task in rounds:
                task.cancel()
            await asyncio.gather(*rounds, return_exceptions=True)
            self._supervisor.forget("rebalance")

    async def _step(self) -> float:
        """Do what is due; seconds until the next is."""
        await self._reconcile(node_groups.build_groups(self._store.cluster_state()))
        again = self._recheck_at if self._groups_to_recheck else float("inf")
        return (
            min(max(self._next_scan_at, self._earliest_scan_at), self._next_sample_at, again) - self._clock.monotonic()
        )

    async def _reconcile(self, groups: Sequence[NodeGroup]) -> None:
        now = self._clock.monotonic()
        self._record_returned_nodes(groups)
        gist = [
            (a.key, a.pause_reason, a.policy.generation, a.policy.uid, frozenset(n.name for n in a.nodes))
            for a in groups
        ]
        if gist != self._groups_fingerprint:
            self._groups_fingerprint = gist
            self._no_candidates_until.clear()
            self._next_scan_at, self._next_sample_at = min(self._next_scan_at, now), min(self._next_sample_at, now)
        self._forget_other_groups({arena.key for arena in groups})
        self._mover.restrict_to_nodes({node.name for arena in groups if arena.may_finish_moves for node in arena.nodes})
        if not groups:
            self._next_scan_at = self._next_sample_at = float("inf")
            return
        try:
            if now >= self._next_sample_at:
                self._next_sample_at = now + _SAMPLE_INTERVAL
                await self._node_usage.sample()
            if now >= max(self._next_scan_at, self._earliest_scan_at):
                self._next_scan_at = now + _SCAN_INTERVAL
                self._earliest_scan_at = await self._scan(groups)
            elif self._groups_to_recheck and now >= self._recheck_at:
                self._recheck_at = await self._scan([arena for arena in groups if arena.key in self._groups_to_recheck])
            self._retry_delay = _FIRST_RETRY_DELAY
        except TRANSIENT_ERRORS as error:
            log.warning("rebalance.scan_failed", error=str(error))
            self._next_scan_at = self._earliest_scan_at = self._clock.monotonic() + self._retry_delay
            self._retry_delay = min(self._retry_delay * 2, _MAX_RETRY_DELAY)

    def _record_returned_nodes(self, groups: Sequence[NodeGroup]) -> None:
        """Nodes that were drained and now stand there empty."""
        now, away = self._clock.now(), node_groups.nodes_with_started_drain(self._store.drains)
        whole = {node.name for arena in groups for node in arena.nodes}
        self._drained_nodes = (self._drained_nodes | away) & self._store.nodes.keys()
        for name in (self._drained_nodes - away) & whole:
            self._refill_until[name] = now + _REFILL_WINDOW
            log.info("rebalance.node_returned", node=name)
        self._drained_nodes -= self._refill_until.keys() - away
        self._refill_until = {
            name: until for name, until in self._refill_until.items() if now < until and name in whole
        }

    def _forget_other_groups(self, keys: set[NodeGroupKey]) -> None:
        for key in self._progress_by_group.keys() - keys:
            del self._progress_by_group[key]
            self._events.forget(*key)
            self._supervisor.clear("rebalance", _group_name(key))

    # -- looking ------------------------------------------------------------------------------------------------------

    async def _scan(self, groups: Sequence[NodeGroup]) -> float:
        """Look at these; when, at the earliest, they may be looked at again."""
        self._groups_to_recheck -= {arena.key for arena in groups}
        self._expire(self._clock.now())
        began = self._clock.monotonic()
        asked = await self._sum_requests({node.name for arena in groups for node in arena.nodes})
        ended = self._clock.monotonic()
        for arena in groups:
            if arena.key not in self._round_tasks and len(arena.nodes) > 1:
                await self._try_rebalance(arena, asked)
        return self._clock.monotonic() + max(_MIN_SCAN_DELAY, (ended - began) * _SCAN_PAUSE_FACTOR)

    def _expire(self, now: datetime) -> None:
        for kept in (self._cooldown_until, self._skipped_until, self._no_candidates_until):
            for name in [name for name, until in kept.items() if until <= now]:
                del kept[name]

    async def _sum_requests(self, node_names: Collection[str]) -> Mapping[str, Counter[str]]:
        """What the pods on each of these nodes ask for, and how many they are."""
        places = (
            [f"spec.nodeName={name}" for name in sorted(node_names)]
            if len(node_names) <= _MAX_NODES_LISTED_SINGLY
            else ["spec.nodeName!="]
        )
        found: dict[str, Counter[str]] = {}
        for place in places:
            async for page in self._client.list(paths.PODS, fieldSelector=f"{place},{_UNFINISHED_PODS_SELECTOR}"):
                for raw in readable_objects(page["items"], object_schemas.sanitize_pod):
                    sums = found.setdefault(raw["spec"].get("nodeName", ""), Counter())
                    sums.update(allocated_resources(raw))
                    sums[PODS] += 1
        return found

    async def _try_rebalance(self, group: NodeGroup, requests_by_node: Mapping[str, Counter[str]]) -> None:
        """A group that cannot be looked at costs only itself."""
        try:
            await self._rebalance(group, requests_by_node)
        except TRANSIENT_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - the others go on
            self._supervisor.record_failure("rebalance", _group_name(group.key), error)
        else:
            self._supervisor.clear("rebalance", _group_name(group.key))

    async def _rebalance(self, group: NodeGroup, requests_by_node: Mapping[str, Counter[str]]) -> None:
        loads = [
            node_load(node, requests_by_node.get(node.name, {}), *self._node_usage.samples_of(node.name))
            for node in group.nodes
        ]
        before = self._progress_by_group.get(group.key)
        course = progress.evaluate_round(before, loads, group.policy.generation)
        self._events.set_deviation(group, loads)
        if course.is_stopped and not (before and before.is_stopped):
            self._events.publish_stopped(group)
            log.warning("rebalance.stopped", pool=group.pool, policy=group.policy.name)
        found = selection.classify_nodes(
            loads,
            group.thresholds,
            course.roles,
            returned_nodes=self._refill_until.keys(),
            nodes_without_candidates=self._no_candidates_until.keys(),
        )
        self._progress_by_group[group.key] = course.clear_roles() if found.has_nothing_to_move else course
        if found.has_nothing_to_move or group.pause_reason or course.is_stopped:
            return
        candidates = [each for each in await self._list_candidates(found, group) if self._may_move(each, course)]
        resting = self._cooldown_until.keys() | self._moving_owners.keys()
        shifts = selection.choose_moves(found, candidates, owners_cooling_down=resting, max_moves=course.batch_size)
        if not shifts:
            self._schedule_recheck(group, found, candidates, resting)
        elif group.policy.spec.mode is Mode.AUDIT:
            self._events.publish_would_move(group, found, shifts)
        else:
            self._progress_by_group[group.key] = course.begin_round(found)
            self._events.publish_moving(group, found, shifts)
            self._moving_owners.update(shift.candidate.owner_uid for shift in shifts)
            task = self._round_tasks[group.key] = asyncio.create_task(self._run_round(group, shifts))
            task.add_done_callback(partial(self._on_round_done, group.key))

    def _may_move(self, candidate: Candidate, progress_of_group: RebalanceProgress) -> bool:
        """Not an owner whose moves came to nothing, and no pod that has come from another node just now."""
        came = self._move_history.is_replacement(candidate.pod, self._clock.now())
        return (
            not came
            and candidate.owner_uid not in self._skipped_until
            and candidate.owner_uid not in progress_of_group.skipped_owners
        )

    def _schedule_recheck(
        self,
        group: NodeGroup,
        classification: NodeClassification,
        candidates: Sequence[Candidate],
        owners_cooling_down: Collection[str],
    ) -> None:
        """Nothing is to be moved now: look at other nodes, or again when the first of these owners has rested."""
        now, waiting = (
            self._clock.now(),
            {each.pod.node: each.owner_uid for each in candidates if each.owner_uid in owners_cooling_down},
        )
        barren = [load.name for load in classification.source_nodes if load.name not in waiting]
        self._no_candidates_until |= dict.fromkeys(barren, now + _NO_CANDIDATES_DELAY)
        ends = [self._cooldown_until[owner] for owner in waiting.values() if owner in self._cooldown_until]
        if barren:
            self._groups_to_recheck.add(group.key)
        elif ends:
            soonest = (min(ends) - now).total_seconds()
            self._next_scan_at = min(self._next_scan_at, self._clock.monotonic() + max(_MIN_SCAN_DELAY, soonest))

    async def _list_candidates(self, classification: NodeClassification, group: NodeGroup) -> list[Candidate]:
        """Pods of the nodes that give; listed, judged and dropped."""
        drain = group.policy.spec.drain
        seen = EvictionContext(
            self._clock.now(), namespace_labels=await self._list_namespace_labels(group), own_pod=self._own_pod
        )
        rows = []
        for giver in classification.source_nodes:
            async for page in self._client.list(paths.PODS, fieldSelector=f"spec.nodeName={giver.name}"):
                rows += [
                    c
                    for raw in readable_objects(page["items"], object_schemas.sanitize_pod)
                    if (c := rebalance_candidates.candidate_from_pod(raw, drain, seen))
                ]
        calm = {
            key: is_calm for space in _namespaces(rows) for key, is_calm in await self._list_deployment_stability(space)
        }
        rows = [sure for row in rows if (sure := rebalance_candidates.check_deployment(row, calm))]
        asks = [row for row in rows if not row.can_be_replaced_first]
        over = [budget for space in _namespaces(asks) for budget in await self._list_budgets(space)]
        return [row for row in rows if rebalance_candidates.is_allowed_by_budgets(row, over)]

    async def _list_namespace_labels(self, group: NodeGroup) -> Mapping[str, Mapping[str, str]]:
        """Labels of namespaces, where a rule asks for them."""
        found: dict[str, Mapping[str, str]] = {}
        if any(not rule.namespace_selector.is_empty for rule in group.policy.spec.drain.rules):
            async for page in self._client.list(paths.NAMESPACES):
                metas = [raw["metadata"] for raw in readable_objects(page["items"], object_schemas.sanitize_metadata)]
                found |= {meta["name"]: meta.get("labels") or {} for meta in metas}
        return found

    async def _list_budgets(self, namespace: str) -> list[disruption_budgets.DisruptionBudget]:
        pages = self._client.list(paths.disruption_budgets(namespace))
        return [
            found async for page in pages for found in readable_objects(page["items"], disruption_budgets.parse_budget)
        ]

    async def _list_deployment_stability(self, namespace: str) -> list[tuple[tuple[str, str], bool]]:
        """Which of a namespace's Deployments are calm."""
        path = paths.in_namespace("apps/v1", namespace, "deployments")
        return [
            ((namespace, raw["metadata"]["name"]), rebalance_candidates.is_deployment_stable(raw))
            async for page in self._client.list(path)
            for raw in readable_objects(page["items"], object_schemas.sanitize_deployment)
        ]

    # -- moving -------------------------------------------------------------------------------------------------------

    async def _run_round(self, group: NodeGroup, moves: Sequence[PlannedMove]) -> None:
        """Move these side by side; the next round begins when all of them are over."""
        try:
            outcomes = await asyncio.gather(*(self._move_pod(group, shift) for shift in moves))
        finally:
            del self._round_tasks[group.key]
        if course := self._progress_by_group.get(group.key):
            pairs = zip(moves, outcomes, strict=True)
            self._progress_by_group[group.key] = course.end_round(
                [shift for shift, outcome in pairs if outcome is MoveOutcome.MOVED]
            )
        self._node_usage.record_moves(node.name for node in group.nodes)
        self._groups_to_recheck.add(group.key)
        self._wake.set()

    def _on_round_done(self, key: NodeGroupKey, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._supervisor.record_failure("rebalance", _group_name(key), error)

    async def _move_pod(self, group: NodeGroup, move: PlannedMove) -> MoveOutcome:
        owner, began = move.candidate.owner_uid, self._clock.now()
        try:
            outcome = await self._mover.move(move.candidate, group)
        finally:
            self._moving_owners -= Counter([owner])
        if outcome is MoveOutcome.MOVED:
            self._cooldown_until[owner] = self._clock.now() + rebalance_candidates.COOLDOWN_AFTER_MOVE
            self._move_history.record_move(move.candidate.pod, began)
        elif outcome is MoveOutcome.RETURNED:
            self._skipped_until[owner] = self._clock.now() + rebalance_candidates.COOLDOWN_AFTER_FAILED_MOVE
        self._events.count_move(group, outcome)
        pod = move.candidate.pod
        log.info("rebalance.move_ended", pod=pod.key, uid=pod.uid, node=pod.node, pool=group.pool, outcome=outcome)
        return outcome


def _namespaces(candidates: Sequence[Candidate]) -> list[str]:
    return sorted({row.pod.namespace for row in candidates})


def _group_name(key: NodeGroupKey) -> str:
    return "/".join(filter(None, key))
