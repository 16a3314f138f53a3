"""Controller of rebalancing: scans nodes every few minutes, and after changes, while a policy enables rebalancing.

A scan lists all pods page by page, sums their requests by node and drops them. After a round of moves, it lists only
the pods of the group's nodes. Candidates are parsed only for the fullest nodes. The controller keeps little state: the
progress of each group, and the owners of recently moved pods.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import structlog

from rescheduler.api.policies import Mode
from rescheduler.controllers.evacuation import candidate_lists
from rescheduler.controllers.rebalance.events import RebalanceEvents
from rescheduler.controllers.rebalance.moves import MoveOutcome
from rescheduler.controllers.rebalance.node_usage import NodeUsage
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.controllers.store.store import Store
from rescheduler.core.eviction.pod_actions import EvictionContext
from rescheduler.core.model import object_schemas
from rescheduler.core.model.listed_pods import parse_listed_pod
from rescheduler.core.model.resource_requests import PodSize, sum_by_node
from rescheduler.core.rebalance import candidates as rebalance_candidates
from rescheduler.core.rebalance import node_groups, progress, selection
from rescheduler.core.rebalance.node_groups import NodeGroup, NodeGroupKey
from rescheduler.core.rebalance.progress import RebalanceProgress
from rescheduler.core.rebalance.selection import Candidate, NodeClassification, PlannedMove
from rescheduler.core.rebalance.utilization import node_load
from rescheduler.core.replacement.move_history import MoveHistory
from rescheduler.kube import paths
from rescheduler.kube.backoff import Backoff
from rescheduler.kube.client import TRANSIENT_ERRORS, Client

log = structlog.get_logger("rescheduler.rebalance.controller")

_SCAN_INTERVAL = 180.0  # seconds between scans without changes
_SAMPLE_INTERVAL = 60.0  # seconds between samples of usage
_MIN_SCAN_DELAY = 2.0  # seconds between a change, or the end of a round, and the next scan
_SCAN_PAUSE_FACTOR = 20  # a scan is followed by a pause of this many times its duration
_MAX_NODES_LISTED_SINGLY = 100  # nodes; with more, all pods are listed at once instead of node by node
_WAKE_DEBOUNCE = 1.0  # seconds; heartbeats of many nodes cause one reconcile
_FIRST_RETRY_DELAY, _MAX_RETRY_DELAY = 2.0, 60.0  # seconds after a failed scan
_REFILL_WINDOW = timedelta(hours=1)  # time after a restore in which rebalancing fills a node
_NO_CANDIDATES_DELAY = timedelta(minutes=10)  # time in which a node without candidates is skipped
_UNFINISHED_PODS_SELECTOR = "status.phase!=Succeeded,status.phase!=Failed"


@dataclass(frozen=True, slots=True)
class _Requests:
    """Requests of the pods by node, with their number as resource `pods`, and the number of pods of each size."""

    by_node: dict[str, Counter[str]] = field(default_factory=dict)
    pod_sizes_by_node: dict[str, Counter[PodSize]] = field(default_factory=dict)


class RebalanceMover(Protocol):
    """Moves single pods off nodes that are not cordoned, within budgets and the eviction rate of the policy."""

    def start(self) -> None:
        """Withdraw the moves of an earlier process."""
        ...

    async def move(self, candidate: Candidate, group: NodeGroup) -> MoveOutcome:
        """Move the pod, wait for the end of the move, and return its outcome."""
        ...

    def restrict_to_nodes(self, nodes: Collection[str]) -> None:
        """Withdraw the moves of pods on all other nodes."""
        ...


class Rebalancer:
    """Controller of rebalancing for the whole cluster; runs while the process leads."""

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
        self._cooldown_until: dict[str, datetime] = {}  # by UID of an owner, after a move
        self._skipped_until: dict[str, datetime] = {}  # by UID of an owner, after a failed move
        self._no_candidates_until: dict[str, datetime] = {}  # by node
        self._moving_owners: Counter[str] = Counter()  # moves in progress by UID of the owner
        self._move_history = MoveHistory()
        self._drained_nodes: frozenset[str] = frozenset()
        self._refill_until: dict[str, datetime] = {}  # by node
        self._groups_fingerprint: object = None
        self._next_scan_at, self._earliest_scan_at, self._next_sample_at = 0.0, 0.0, 0.0
        self._groups_to_recheck: set[NodeGroupKey] = set()  # groups to scan before the next full scan
        self._recheck_at = 0.0
        self._scan_backoff = Backoff(_FIRST_RETRY_DELAY, _MAX_RETRY_DELAY)

    def wake(self) -> None:
        """Reconcile soon, because a node, a policy or a drain may have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Run rebalancing until cancelled."""
        self._mover.start()
        self._progress_by_group.clear()
        self._groups_fingerprint = None  # another leader may have moved pods: scan at once
        try:
            await self._supervisor.run_loop("rebalance", self._step, wake=self._wake, debounce=lambda: _WAKE_DEBOUNCE)
        finally:
            rounds = list(self._round_tasks.values())
            for task in rounds:
                task.cancel()
            await asyncio.gather(*rounds, return_exceptions=True)
            self._supervisor.forget("rebalance")

    async def _step(self) -> float:
        """Reconcile once, and return the seconds until the next scan or sample is due."""
        await self._reconcile(node_groups.build_groups(self._store.cluster_state()))
        recheck_at = self._recheck_at if self._groups_to_recheck else float("inf")
        next_at = min(max(self._next_scan_at, self._earliest_scan_at), self._next_sample_at, recheck_at)
        return next_at - self._clock.monotonic()

    async def _reconcile(self, groups: Sequence[NodeGroup]) -> None:
        now = self._clock.monotonic()
        self._record_returned_nodes(groups)
        fingerprint = [
            (
                group.key,
                group.pause_reason,
                group.policy.generation,
                group.policy.uid,
                frozenset(node.name for node in group.nodes),
            )
            for group in groups
        ]
        if fingerprint != self._groups_fingerprint:
            self._groups_fingerprint = fingerprint
            self._no_candidates_until.clear()
            self._next_scan_at, self._next_sample_at = min(self._next_scan_at, now), min(self._next_sample_at, now)
        self._forget_other_groups({group.key for group in groups})
        self._mover.restrict_to_nodes({node.name for group in groups if group.may_finish_moves for node in group.nodes})
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
                self._recheck_at = await self._scan([group for group in groups if group.key in self._groups_to_recheck])
            self._scan_backoff.reset()
        except TRANSIENT_ERRORS as error:
            log.warning("rebalance.scan_failed", error=str(error))
            self._next_scan_at = self._earliest_scan_at = self._clock.monotonic() + self._scan_backoff.next_delay()

    def _record_returned_nodes(self, groups: Sequence[NodeGroup]) -> None:
        """Record the nodes that are back in a group after a drain; rebalancing fills them."""
        now, draining = self._clock.now(), node_groups.nodes_with_started_drain(self._store.drains)
        in_groups = {node.name for group in groups for node in group.nodes}
        self._drained_nodes = (self._drained_nodes | draining) & self._store.nodes.keys()
        for name in (self._drained_nodes - draining) & in_groups:
            self._refill_until[name] = now + _REFILL_WINDOW
            log.info("rebalance.node_returned", node=name)
        self._drained_nodes -= self._refill_until.keys() - draining
        self._refill_until = {
            name: until for name, until in self._refill_until.items() if now < until and name in in_groups
        }

    def _forget_other_groups(self, keys: set[NodeGroupKey]) -> None:
        for key in self._progress_by_group.keys() - keys:
            del self._progress_by_group[key]
            self._events.forget(*key)
            self._supervisor.clear("rebalance", _group_name(key))

    # -- scan ---------------------------------------------------------------------------------------------------------

    async def _scan(self, groups: Sequence[NodeGroup]) -> float:
        """Rebalance these groups, and return the monotonic time of the earliest next scan."""
        self._groups_to_recheck -= {group.key for group in groups}
        self._expire(self._clock.now())
        started_at = self._clock.monotonic()
        requests = await self._sum_requests({node.name for group in groups for node in group.nodes})
        for group in groups:
            if group.key not in self._round_tasks and len(group.nodes) > 1:
                await self._try_rebalance(group, requests)
        ended_at = self._clock.monotonic()
        return ended_at + max(_MIN_SCAN_DELAY, (ended_at - started_at) * _SCAN_PAUSE_FACTOR)

    def _expire(self, now: datetime) -> None:
        for deadlines in (self._cooldown_until, self._skipped_until, self._no_candidates_until):
            for name in [name for name, until in deadlines.items() if until <= now]:
                del deadlines[name]

    async def _sum_requests(self, node_names: Collection[str]) -> _Requests:
        """Return the requests of the pods by node."""
        node_selectors = (
            [f"spec.nodeName={name}" for name in sorted(node_names)]
            if len(node_names) <= _MAX_NODES_LISTED_SINGLY
            else ["spec.nodeName!="]
        )
        requests = _Requests()
        for selector in node_selectors:
            async for page in self._client.list(paths.PODS, fieldSelector=f"{selector},{_UNFINISHED_PODS_SELECTOR}"):
                pods = readable_objects(page["items"], object_schemas.sanitize_pod)
                sum_by_node(pods, requests.by_node, requests.pod_sizes_by_node)
        return requests

    async def _try_rebalance(self, group: NodeGroup, requests: _Requests) -> None:
        """Rebalance a group, and record a failure so that it does not stop the other groups."""
        try:
            await self._rebalance(group, requests)
        except TRANSIENT_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - the other groups continue
            self._supervisor.record_failure("rebalance", _group_name(group.key), error)
        else:
            self._supervisor.clear("rebalance", _group_name(group.key))

    async def _rebalance(self, group: NodeGroup, requests: _Requests) -> None:
        loads = [
            node_load(
                node,
                requests.by_node.get(node.name, {}),
                *self._node_usage.samples_of(node.name),
                pod_sizes=requests.pod_sizes_by_node.get(node.name, {}),
            )
            for node in group.nodes
        ]
        previous = self._progress_by_group.get(group.key)
        current = progress.evaluate_round(previous, loads, group.policy.generation)
        self._events.set_deviation(group, loads)
        if current.is_stopped and not (previous and previous.is_stopped):
            self._events.publish_stopped(group)
            log.warning("rebalance.stopped", pool=group.pool, policy=group.policy.name)
        classification = selection.classify_nodes(
            loads,
            group.thresholds,
            current.roles,
            returned_nodes=self._refill_until.keys(),
            nodes_without_candidates=self._no_candidates_until.keys(),
        )
        nothing_to_move = classification.has_nothing_to_move
        self._progress_by_group[group.key] = current.clear_roles() if nothing_to_move else current
        if nothing_to_move or group.pause_reason or current.is_stopped:
            return
        candidates = [c for c in await self._list_candidates(classification, group) if self._may_move(c, current)]
        cooling_down = self._cooldown_until.keys() | self._moving_owners.keys()
        moves = selection.choose_moves(
            classification, candidates, owners_cooling_down=cooling_down, max_moves=current.batch_size
        )
        if not moves:
            self._schedule_recheck(group, classification, candidates, cooling_down)
        elif group.policy.spec.mode is Mode.AUDIT:
            self._events.publish_would_move(group, classification, moves)
        else:
            self._progress_by_group[group.key] = current.begin_round(classification)
            self._events.publish_moving(group, classification, moves)
            self._moving_owners.update(move.candidate.owner_uid for move in moves)
            task = self._round_tasks[group.key] = asyncio.create_task(self._run_round(group, moves))
            task.add_done_callback(partial(self._on_round_done, group.key))

    def _may_move(self, candidate: Candidate, progress_of_group: RebalanceProgress) -> bool:
        """Whether the pod is no recent replacement, and moves of its owner have not failed."""
        is_replacement = self._move_history.is_replacement(candidate.pod, self._clock.now())
        return (
            not is_replacement
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
        """Schedule a scan after the first cooldown of an owner; without one, a scan of the next fullest nodes."""
        now = self._clock.now()
        waiting_owners = {c.owner_uid for c in candidates} & set(owners_cooling_down)
        if not waiting_owners:
            no_candidates = [load.name for load in classification.source_nodes]
            self._no_candidates_until |= dict.fromkeys(no_candidates, now + _NO_CANDIDATES_DELAY)
            self._groups_to_recheck.add(group.key)
        elif cooldown_ends := [self._cooldown_until[owner] for owner in waiting_owners & self._cooldown_until.keys()]:
            delay = (min(cooldown_ends) - now).total_seconds()
            self._next_scan_at = min(self._next_scan_at, self._clock.monotonic() + max(_MIN_SCAN_DELAY, delay))

    async def _list_candidates(self, classification: NodeClassification, group: NodeGroup) -> list[Candidate]:
        """List the candidates on the source nodes, with Deployments and budgets considered."""
        drain = group.policy.spec.drain
        context = EvictionContext(
            self._clock.now(),
            namespace_labels=await candidate_lists.list_namespace_labels(self._client, drain),
            own_pod=self._own_pod,
        )
        candidates = []
        for source in classification.source_nodes:
            async for page in self._client.list(paths.PODS, fieldSelector=f"spec.nodeName={source.name}"):
                candidates += [
                    candidate
                    for pod in readable_objects(page["items"], parse_listed_pod)
                    if (candidate := rebalance_candidates.candidate_from_pod(pod, drain, context))
                ]
        stable_by_deployment = await candidate_lists.list_deployment_stability(self._client, _namespaces(candidates))
        candidates = [
            checked
            for candidate in candidates
            if (checked := rebalance_candidates.check_deployment(candidate, stable_by_deployment))
        ]
        by_budget = [candidate for candidate in candidates if not candidate.can_be_replaced_first]
        budgets = await candidate_lists.list_budgets(self._client, _namespaces(by_budget))
        return [c for c in candidates if rebalance_candidates.is_allowed_by_budgets(c, budgets)]

    # -- round of moves -----------------------------------------------------------------------------------------------

    async def _run_round(self, group: NodeGroup, moves: Sequence[PlannedMove]) -> None:
        """Run the moves of a round at the same time, and end the round after the last move."""
        try:
            outcomes = await asyncio.gather(*(self._move_pod(group, move) for move in moves))
        finally:
            del self._round_tasks[group.key]
        if current := self._progress_by_group.get(group.key):
            pairs = zip(moves, outcomes, strict=True)
            self._progress_by_group[group.key] = current.end_round(
                [move for move, outcome in pairs if outcome is MoveOutcome.MOVED]
            )
        self._node_usage.record_moves(node.name for node in group.nodes)
        self._groups_to_recheck.add(group.key)
        self._wake.set()

    def _on_round_done(self, key: NodeGroupKey, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._supervisor.record_failure("rebalance", _group_name(key), error)

    async def _move_pod(self, group: NodeGroup, move: PlannedMove) -> MoveOutcome:
        owner, started_at = move.candidate.owner_uid, self._clock.now()
        try:
            outcome = await self._mover.move(move.candidate, group)
        finally:
            self._moving_owners -= Counter([owner])
        if outcome is MoveOutcome.MOVED:
            self._cooldown_until[owner] = self._clock.now() + rebalance_candidates.COOLDOWN_AFTER_MOVE
            self._move_history.record_move(move.candidate.pod, started_at)
        elif outcome is MoveOutcome.RETURNED:
            self._skipped_until[owner] = self._clock.now() + rebalance_candidates.COOLDOWN_AFTER_FAILED_MOVE
        self._events.count_move(group, outcome)
        pod = move.candidate.pod
        log.info("rebalance.move_ended", pod=pod.key, uid=pod.uid, node=pod.node, pool=group.pool, outcome=outcome)
        return outcome


def _namespaces(candidates: Sequence[Candidate]) -> list[str]:
    return sorted({candidate.pod.namespace for candidate in candidates})


def _group_name(key: NodeGroupKey) -> str:
    return "/".join(filter(None, key))
