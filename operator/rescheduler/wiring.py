"""Build the object graph of one process: one function for each subsystem, from the base to the controller manager.

No attribute is set after construction. If a part must reach another part that is built later, it has a `subscribe`
method, and the function that builds the later part calls it. So each function shows who listens to whom.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol

import structlog

from rescheduler.controllers.drain.drain_task import DrainDependencies
from rescheduler.controllers.drain.events import DrainEvents
from rescheduler.controllers.drain.history_writer import HistoryWriter
from rescheduler.controllers.drain.node_controller import NodeController
from rescheduler.controllers.evacuation.budget_watch import BudgetWatch
from rescheduler.controllers.evacuation.chain_move_finder import ChainMoveFinder
from rescheduler.controllers.evacuation.chain_outcomes import ChainOutcomes
from rescheduler.controllers.evacuation.eviction_queue import EvictionQueue
from rescheduler.controllers.evacuation.node_evacuation import EvacuationDependencies
from rescheduler.controllers.evacuation.planner import EvacuationPlanner
from rescheduler.controllers.evacuation.related_objects import RelatedObjects
from rescheduler.controllers.evacuation.replacer import Replacer
from rescheduler.controllers.evacuation.workload_watch import WorkloadWatch
from rescheduler.controllers.failure.lease_monitor import LeaseMonitor
from rescheduler.controllers.manager import ControllerManager
from rescheduler.controllers.migration import chain_requests
from rescheduler.controllers.migration.chain_requests import ChainMoveRequests
from rescheduler.controllers.migration.manager import MigrationManager
from rescheduler.controllers.migration.node_task import MigrationDependencies
from rescheduler.controllers.pools import move_controller
from rescheduler.controllers.pools.admission_check import AdmissionCheck
from rescheduler.controllers.pools.controller import PoolController
from rescheduler.controllers.pools.events import PoolEvents
from rescheduler.controllers.rebalance import moves as rebalance_moves
from rescheduler.controllers.rebalance.controller import Rebalancer
from rescheduler.controllers.rebalance.events import RebalanceEvents
from rescheduler.controllers.rebalance.moves import RebalanceMoves
from rescheduler.controllers.rebalance.node_usage import NodeUsage
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.controllers.runtime.work_queue import WorkQueue
from rescheduler.controllers.store.state_metrics import StateMetrics
from rescheduler.controllers.store.store import Store
from rescheduler.core.replacement.move_history import MoveHistory
from rescheduler.kube import paths
from rescheduler.kube.client import Client
from rescheduler.kube.election_rules import INSTALLATION_TIMINGS
from rescheduler.kube.event_recorder import EventRecorder
from rescheduler.kube.leader_election import SHARED_LEASE_NAME, Election

log = structlog.get_logger("rescheduler.wiring")


class ClientFactory(Protocol):
    """Create the client of a process.

    `guard` returns whether the client may write now. `count` gets method, resource and status code of each request.
    `time_request` gets method and seconds of each answer.
    `on_server_date` gets the `Date` header of each response. `report` gets problems: log event, subject and error.
    """

    def __call__(
        self,
        *,
        guard: Callable[[], bool],
        count: Callable[[str, str, int], None],
        time_request: Callable[[str, float], None],
        on_server_date: Callable[[str], None],
        report: Callable[[str, str, str], None],
    ) -> Client: ...


class WakeSignal:
    """Passes the names of changed subscribers from the informers to the controller manager.

    The informers are built first, because the manager depends on them. Nothing is sent before the start.
    """

    def __init__(self) -> None:
        self._listeners: list[Callable[[Iterable[str]], None]] = []

    def subscribe(self, listener: Callable[[Iterable[str]], None]) -> None:
        """Call the listener with the names of each change from now on."""
        self._listeners.append(listener)

    def send(self, names: Iterable[str]) -> None:
        """Pass names of drains, nodes and pools to all listeners."""
        for listener in self._listeners:
            listener(names)


@dataclass(frozen=True, slots=True)
class Base:
    """Parts that all subsystems share."""

    client: Client
    store: Store
    clock: Clock
    metrics: Metrics
    supervisor: Supervisor
    recorder: EventRecorder


@dataclass(frozen=True, slots=True)
class Elections:
    """Lease elections.

    Attributes:
        process: which process leads this installation.
        installation: which installation acts in the cluster.
    """

    process: Election
    installation: Election


@dataclass(frozen=True, slots=True)
class Evacuation:
    """Parts that move pods.

    Attributes:
        for_drains: dependencies of the drains.
        for_migrations: the same for moves of single pods, whose nodes stay schedulable.
    """

    for_drains: EvacuationDependencies
    for_migrations: EvacuationDependencies


@dataclass(frozen=True, slots=True)
class Drains:
    """Parts that drain nodes."""

    dependencies: DrainDependencies
    queue: WorkQueue
    node_controller: NodeController


@dataclass(frozen=True, slots=True)
class Controllers:
    """Controllers that the process runs."""

    manager: ControllerManager
    lease_monitor: LeaseMonitor


def build_base(  # noqa: PLR0913 - keyword-only
    *,
    make_client: ClientFactory,
    clock: Clock,
    metrics: Metrics,
    namespace: str,
    identity: str,
    guard: Callable[[], bool],
    on_server_date: Callable[[str], None],
    report: Callable[[str, str, str], None],
    on_give_up: Callable[[str], None],
) -> Base:
    """Build store, client, supervisor and recorder; `on_give_up` gets the reason why the process must end."""
    store = Store(clock.now, exempt_namespaces=[namespace])
    client = make_client(
        guard=guard,
        count=metrics.count_request,
        time_request=metrics.time_request,
        on_server_date=on_server_date,
        report=report,
    )
    supervisor = Supervisor(
        clock.monotonic,
        metrics.task_failures,
        durations=metrics.reconcile_seconds,
        on_view_stale=store.set_failing_view_task,
        on_give_up=on_give_up,
    )
    recorder = EventRecorder(client, identity=identity, now=clock.now, on_lost=_log_lost_event)
    metrics.watches_waiting.set_function(lambda: float(client.watch_limiter.waiting))
    metrics.clock_offset.set_function(lambda: clock.offset)
    metrics.leader.labels("rescheduler").set_function(lambda: float(guard()))
    metrics.registry.register(StateMetrics(client, store, metrics, clock.now))
    return Base(client, store, clock, metrics, supervisor, recorder)


def _log_lost_event(reason: str, error: str) -> None:
    log.warning("event.lost", reason=reason, error=error)


def build_elections(*, base: Base, namespace: str, identity: str, cleanup: bool) -> Elections:
    """Build the election of the process, and the election of the installation."""
    now: Callable[[], datetime] = base.clock.now
    monotonic = base.clock.monotonic
    return Elections(
        process=Election(
            base.client,
            namespace=namespace,
            identity=identity,
            now=now,
            monotonic=monotonic,
            needs_namespace=not cleanup,
        ),
        installation=Election(
            base.client,
            namespace=paths.SYSTEM_NAMESPACE,
            identity=namespace,
            now=now,
            monotonic=monotonic,
            name=SHARED_LEASE_NAME,
            timings=INSTALLATION_TIMINGS,
        ),
    )


def build_evacuation(
    *, base: Base, wake_signal: WakeSignal, pool_by_namespace: Callable[[], Mapping[str, str]], own_pod: str
) -> Evacuation:
    """Build the parts that move pods; drains and moves of single pods share all of them except the planner."""
    wake = wake_signal.send
    budgets = BudgetWatch(base.client, wake, base.clock.monotonic)
    eviction_queue = EvictionQueue(base.client, base.clock, budgets, base.metrics)
    workloads = WorkloadWatch(base.client, wake)
    replacer = Replacer(
        base.client,
        base.clock,
        budgets,
        workloads,
        base.metrics,
        wake,
        eviction_queue.evicting_uids,
        refusal_message=eviction_queue.refusal_message,
    )
    move_history = MoveHistory()
    related_objects = RelatedObjects(base.client, wake)
    chain_outcomes = ChainOutcomes(wake)
    finder = ChainMoveFinder(base.client, base.store, base.clock, own_pod=own_pod)

    def dependencies(*, may_stay: bool) -> EvacuationDependencies:
        planner = EvacuationPlanner(
            base.client,
            base.store,
            base.clock,
            workloads,
            pool_by_namespace,
            wake,
            base.supervisor,
            may_stay=may_stay,
            chain_moves=None if may_stay else finder,
        )
        return EvacuationDependencies(
            client=base.client,
            clock=base.clock,
            budgets=budgets,
            eviction_queue=eviction_queue,
            replacer=replacer,
            metrics=base.metrics,
            move_history=move_history,
            planner=planner,
            related_objects=related_objects,
            chain_outcomes=chain_outcomes,
        )

    return Evacuation(
        for_drains=dependencies(may_stay=False),
        for_migrations=dependencies(may_stay=True),
    )


def build_drains(
    *, base: Base, evacuation: Evacuation, lease_monitor: LeaseMonitor, namespace: str, own_pod: str, cleanup: bool
) -> Drains:
    """Build the node controller with its queue, and the dependencies of the drain tasks."""
    events = DrainEvents(base.recorder, base.metrics)
    queue = WorkQueue("node", base.metrics)
    return Drains(
        dependencies=DrainDependencies(
            client=base.client,
            store=base.store,
            clock=base.clock,
            evacuation=evacuation.for_drains,
            events=events,
            metrics=base.metrics,
            lease_monitor=lease_monitor,
            supervisor=base.supervisor,
            history_writer=HistoryWriter(base.client, base.clock, namespace),
            own_pod=own_pod,
            cleanup=cleanup,
        ),
        queue=queue,
        node_controller=NodeController(
            base.client, base.store, base.clock, queue, events, base.metrics, lease_monitor.silent_seconds
        ),
    )


def build_pools(*, base: Base, evacuation: Evacuation, admission: AdmissionCheck) -> PoolController:
    """Build the controller of pools, with the manager of migrations that pools and rebalancing share."""
    dependencies = MigrationDependencies(
        client=base.client,
        store=base.store,
        clock=base.clock,
        evacuation=evacuation.for_migrations,
        supervisor=base.supervisor,
    )
    migrations = MigrationManager(
        dependencies, {move_controller.REQUESTER, rebalance_moves.REQUESTER, chain_requests.REQUESTER}
    )
    return PoolController(dependencies, migrations, admission, PoolEvents(base.recorder), base.metrics)


def build_rebalance(*, base: Base, migrations: MigrationManager, own_pod: str) -> Rebalancer:
    """Build the rebalancer; its moves listen to the migrations."""
    moves = RebalanceMoves(migrations)
    migrations.subscribe(on_pod_moved=moves.on_pod_moved, on_node_evaluated=moves.end_blocked_moves)
    return Rebalancer(
        base.client,
        base.store,
        base.clock,
        moves,
        NodeUsage(base.client),
        RebalanceEvents(base.recorder, base.metrics),
        base.supervisor,
        own_pod=own_pod,
    )


def build_controllers(*, base: Base, namespace: str, own_pod: str, cleanup: bool) -> Controllers:
    """Build all controllers; `own_pod`: namespace/name of this pod."""
    wake_signal = WakeSignal()
    admission = AdmissionCheck(base.client, base.clock)
    evacuation = build_evacuation(
        base=base,
        wake_signal=wake_signal,
        pool_by_namespace=partial(_pool_by_namespace, base.store, admission),
        own_pod=own_pod,
    )
    lease_monitor = LeaseMonitor(base.client, base.store, base.clock, base.metrics)
    drains = build_drains(
        base=base,
        evacuation=evacuation,
        lease_monitor=lease_monitor,
        namespace=namespace,
        own_pod=own_pod,
        cleanup=cleanup,
    )
    pool_controller = build_pools(base=base, evacuation=evacuation, admission=admission)
    rebalancer = build_rebalance(base=base, migrations=pool_controller.migrations, own_pod=own_pod)
    chain_moves = ChainMoveRequests(base.store, pool_controller.migrations, evacuation.for_drains.chain_outcomes)
    manager = ControllerManager(
        base.store, drains.dependencies, drains.queue, drains.node_controller, pool_controller, rebalancer, chain_moves
    )
    wake_signal.subscribe(manager.wake)
    return Controllers(manager, lease_monitor)


def _pool_by_namespace(store: Store, admission: AdmissionCheck) -> dict[str, str]:
    """Return the pool of each namespace that admission adds to new pods; empty if admission does not enforce pools."""
    if not admission.state.is_enforced:
        return {}
    return {namespace.name: namespace.pool for namespace in store.namespaces.values() if namespace.pool}
