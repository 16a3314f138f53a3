"""Wires the parts; the only file that knows them all.

Kopf brings the events and the life of the process: it starts the engine in `on.startup` and ends it, and gives the
Lease back, in `on.cleanup`. Losing the Lease ends all work until it is ours again: who is not sure to lead writes nothing.
"""

import asyncio
import os
import signal
import socket
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import kopf
import structlog

from rescheduler import handlers
from rescheduler.api import GROUP, names
from rescheduler.controllers import cleanup
from rescheduler.controllers.drain.drain_task import DrainDependencies
from rescheduler.controllers.drain.events import DrainEvents
from rescheduler.controllers.drain.node_controller import NodeController
from rescheduler.controllers.evacuation.budget_watch import BudgetWatch
from rescheduler.controllers.evacuation.eviction_queue import EvictionQueue
from rescheduler.controllers.evacuation.planner import EvacuationPlanner
from rescheduler.controllers.evacuation.pod_mover import EvacuationDependencies
from rescheduler.controllers.evacuation.related_objects import RelatedObjects
from rescheduler.controllers.evacuation.replacer import Replacer
from rescheduler.controllers.evacuation.workload_watch import WorkloadWatch
from rescheduler.controllers.failure.lease_monitor import LeaseMonitor
from rescheduler.controllers.manager import ControllerManager
from rescheduler.controllers.migration import node_task
from rescheduler.controllers.migration.manager import MigrationManager
from rescheduler.controllers.pools import move_controller
from rescheduler.controllers.pools.controller import PoolController
from rescheduler.controllers.pools.events import PoolEvents
from rescheduler.controllers.rebalance import moves as rebalance_moves
from rescheduler.controllers.rebalance.controller import Rebalancer
from rescheduler.controllers.rebalance.events import RebalanceEvents
from rescheduler.controllers.rebalance.moves import RebalanceMoves
from rescheduler.controllers.rebalance.node_usage import NodeUsage
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.http_endpoints import serve
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.store import Store
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.controllers.runtime.work_queue import WorkQueue
from rescheduler.core.replacement.move_history import MoveHistory
from rescheduler.kube import paths, preflight
from rescheduler.kube.client import Client
from rescheduler.kube.connection_limits import RECOMMENDED_OPEN_FILES, raise_file_limit
from rescheduler.kube.connections import ConfigError, load_config
from rescheduler.kube.election_rules import INSTALLATION_TIMINGS
from rescheduler.kube.event_recorder import EventRecorder, EventType, InvolvedObject
from rescheduler.kube.leader_election import LEASE_NAME, SHARED_LEASE_NAME, Election

log = structlog.get_logger("rescheduler.app")

_REPORT_INTERVAL = 60.0  # seconds
_MAX_REPORTED = 200
_LOGIN_INTERVAL = 5.0  # seconds
_EVENT_LOOP_STALLED_AFTER = 30.0  # seconds without a turn of the event loop


@dataclass(frozen=True, slots=True)
class Options:
    """How the operator was started. Ports: 0 means any free one."""

    namespace: str = "rescheduler-system"
    metrics_port: int = 8080
    health_port: int = 8081
    cleanup: bool = False


class NoDiffBase(kopf.AnnotationsDiffBaseStorage):
    """Keeps Kopf from copying each object three times for handlers that we do not have."""

    def build(self, **_: Any) -> Any:
        """Nothing to compare."""
        return {}

    def fetch(self, **_: Any) -> Any:
        """Nothing was kept."""
        return None


def kopf_settings() -> kopf.OperatorSettings:
    """Kopf, held to watching."""
    found = kopf.OperatorSettings()
    found.peering.standalone = True  # never join another team's "default" peering
    found.posting.enabled = False  # our recorder's Events can be seen in `kubectl describe node`
    found.persistence.finalizer = f"{GROUP}/unused"
    found.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False)
    found.persistence.diffbase_storage = NoDiffBase(prefix=GROUP, v1=False)
    found.scanning.disabled = True  # nodes are always there: no watch of all CRDs of the cluster
    found.watching.server_timeout = 300
    found.watching.client_timeout = 330
    found.watching.connect_timeout = 10
    found.watching.chunk_size = 100
    found.networking.request_timeout = 30
    # Kopf keeps a worker for each object that had an event, so long. A limit on workers would make the events of
    # all other objects wait for one of those to go idle: 64 objects in 5 s (seen with 1,000 nodes).
    found.queueing.idle_timeout = 0.1
    found.execution.max_workers = 1  # no synchronous handlers
    return found


def own_identity() -> str:
    """The pod's name, else the host's and a random part."""
    return os.environ.get("POD_NAME") or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"


class ClientFactory(Protocol):
    """Makes the client of a process.

    `guard` says whether it may write now, `count` is told of each request, `dated` gets the server's time.
    """

    def __call__(
        self,
        *,
        guard: Callable[[], bool],
        count: Callable[[str, str, int], None],
        on_server_date: Callable[[str], None],
    ) -> Client: ...


class App:
    """All parts of one process."""

    def __init__(self, make_client: ClientFactory, options: Options, *, clock: Clock, identity: str) -> None:
        self.options, self.identity = options, identity
        self.clock, self.metrics = clock, Metrics()
        self.store = Store(self.clock.now, exempt_namespaces=[options.namespace])
        self.client = make_client(
            guard=self._may_write, count=self.metrics.count_request, on_server_date=self._compare_clocks
        )
        self.client.report = self._report
        self.metrics.watches_waiting.set_function(lambda: float(self.client.watch_limiter.waiting))
        self.election = Election(
            self.client,
            namespace=options.namespace,
            identity=self.identity,
            now=self.clock.now,
            monotonic=self.clock.monotonic,
        )
        self.installation_election = Election(
            self.client,
            namespace=paths.SYSTEM_NAMESPACE,
            identity=options.namespace,
            now=self.clock.now,
            monotonic=self.clock.monotonic,
            name=SHARED_LEASE_NAME,
            timings=INSTALLATION_TIMINGS,
        )
        self.metrics.clock_offset.set_function(lambda: self.clock.offset)
        self.metrics.leader.labels("rescheduler").set_function(lambda: float(self._may_write()))
        self.supervisor = Supervisor(
            clock.monotonic,
            self.metrics.task_failures,
            on_view_stale=self.store.set_failing_view_task,
            on_give_up=self.fail,
        )
        self.recorder = EventRecorder(
            self.client,
            identity=self.identity,
            now=self.clock.now,
            on_lost=lambda reason, error: log.warning("event.lost", reason=reason, error=error),
        )
        announcer = DrainEvents(self.recorder, self.metrics)
        budgets = BudgetWatch(self.client, self._wake, self.clock.monotonic)
        evictions = EvictionQueue(self.client, self.clock, budgets, self.metrics)
        owners = WorkloadWatch(self.client, self._wake)
        replacements = Replacer(
            self.client,
            self.clock,
            budgets,
            owners,
            self.metrics,
            self._wake,
            evictions.evicting_uids,
            refusal_message=evictions.refusal_message,
        )
        queue = WorkQueue()
        self.lease_monitor = LeaseMonitor(self.client, self.store, self.clock)
        facts = (self.client, self.store, self.clock, self._pools_of_namespaces, self._wake, self.supervisor)
        plans = EvacuationPlanner(*facts)
        movers = EvacuationDependencies(
            self.client, self.clock, budgets, evictions, replacements, self.metrics, MoveHistory(), plans
        )
        surroundings = RelatedObjects(self.client, self._wake)
        tools = DrainDependencies(
            self.client,
            self.store,
            self.clock,
            movers,
            surroundings,
            announcer,
            self.metrics,
            self.lease_monitor,
            self.supervisor,
            own_pod=f"{options.namespace}/{self.identity}",
            cleanup=options.cleanup,
        )
        reconciler = NodeController(self.client, self.store, self.clock, queue, announcer, self.metrics)
        movers = replace(movers, planner=EvacuationPlanner(*facts, may_stay=True))
        moving = node_task.MigrationDependencies(
            self.client, self.store, self.clock, movers, surroundings, self.supervisor
        )
        single = MigrationManager(moving, {move_controller.REQUESTER, rebalance_moves.REQUESTER})
        self.pool_controller = PoolController(moving, single, PoolEvents(self.recorder), self.metrics)
        rebalancer = self._make_rebalancer(single)
        self.manager = ControllerManager(self.store, tools, queue, reconciler, self.pool_controller, rebalancer)
        self.stop_flag = asyncio.Event()
        self._reported: dict[tuple[str, str], float] = {}
        self.cleanup_done, self.failure = False, ""
        self._installation_decided = asyncio.Event()  # whether this installation acts, or another one
        self._stopped_by_signal = self._is_shut_down = False
        self._tasks: list[asyncio.Task[None]] = []
        self._http_runners: list[Any] = []

    def _make_rebalancer(self, single: MigrationManager) -> Rebalancer:
        moves = RebalanceMoves(single)
        single.pod_moved_listeners.append(moves.on_pod_moved)
        single.node_evaluated_listeners.append(moves.end_blocked_moves)
        return Rebalancer(
            self.client,
            self.store,
            self.clock,
            moves,
            NodeUsage(self.client),
            RebalanceEvents(self.recorder, self.metrics),
            self.supervisor,
            own_pod=f"{self.options.namespace}/{self.identity}",
        )

    def _may_write(self) -> bool:
        return self.election.holds_lease() and self.installation_election.holds_lease()

    def _compare_clocks(self, date: str) -> None:
        behind = self.clock.compare_with_server(date)
        if behind is None or self.failure:
            return
        log.error("clock.stepped", seconds=round(behind, 1), server=date)
        self.fail(
            f"the operator's clock is {abs(behind):.0f} s {'behind' if behind > 0 else 'ahead of'} the API server's: "
            "the machine was suspended, or a clock was set; a new start takes the API server's time"
        )

    def _pools_of_namespaces(self) -> dict[str, str]:
        """The pools that new pods are put into at creation."""
        if not self.pool_controller.enforced:
            return {}
        return {space.name: space.pool for space in self.store.namespaces.values() if space.pool}

    def _wake(self, names: Iterable[str]) -> None:
        self.manager.wake(names)

    def _report(self, event: str, subject: str, error: str) -> None:
        """Log what went wrong below the engine: the same of the same subject once a minute, and not of too many."""
        self.metrics.troubles.labels(event).inc()
        now = self.clock.monotonic()
        if now - self._reported.get((event, subject), float("-inf")) < _REPORT_INTERVAL:
            return
        if len(self._reported) >= _MAX_REPORTED:
            self._reported = {key: when for key, when in self._reported.items() if now - when < _REPORT_INTERVAL}
        if len(self._reported) < _MAX_REPORTED:
            self._reported[event, subject] = now
            log.warning(event, subject=subject, error=error)

    def _healthy(self) -> str | None:
        silent = self.clock.monotonic() - self.manager.last_beat_at
        return f"the event loop has not turned for {silent:.0f} s" if silent > _EVENT_LOOP_STALLED_AFTER else None

    def _ready(self) -> str | None:
        if not self.manager.synced.is_set():
            return "nodes, namespaces, policies, pools and NodeDrains are not listed yet"
        if absent := sorted(map(paths.crd_name, self.store.not_installed)):
            return f"the CRDs {', '.join(absent)} are not installed: {names.INSTALL_HINT}"
        return self._why_inactive() or self.supervisor.failure_summary

    def _why_inactive(self) -> str | None:
        """Why this installation does not act though this process leads it; None if it does, or does not lead it."""
        if not self.election.holds_lease() or self.installation_election.holds_lease():
            return None
        lease = f"Lease {paths.SYSTEM_NAMESPACE}/{SHARED_LEASE_NAME}"
        if other := self.installation_election.other_holder:
            return (
                f"another installation of Rescheduler, in namespace {other}, leads this cluster ({lease}): "
                "uninstall one of them; this one does nothing while the other one runs, and for two minutes after that"
            )
        return (
            f"the {lease} cannot be written: {self.installation_election.error}"
            if self.installation_election.error
            else None
        )

    def fail(self, why: str) -> None:
        """End the process because of a failure."""
        if not self.failure:
            self.failure = why
            log.error("process.failed", why=why)
        self.stop_flag.set()

    async def start(self) -> None:
        """Serve the endpoints, and begin."""
        self._http_runners = await serve(
            healthy=self._healthy,
            ready=self._ready,
            registry=self.metrics.registry,
            health_port=self.options.health_port,
            metrics_port=self.options.metrics_port,
        )
        self.start_tasks()

    def start_tasks(self) -> None:
        """Sync, and lead as soon as the Lease is ours."""
        life = self._run_cleanup() if self.options.cleanup else self._run_leader()
        for name, work in (
            ("the view of the cluster", self.manager.watch()),
            ("the writing of Events", self.supervisor.run_forever("events", self.recorder.run)),
            ("the work of the leader", life),
        ):
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(self._on_task_end)
            self._tasks.append(task)

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("process.task_ended", task=task.get_name(), exc_info=error)
            self.fail(f"{task.get_name()} ended: {type(error).__name__}: {error}")
        elif not self.options.cleanup and not task.cancelled():
            self.fail(f"{task.get_name()} ended")
        self.stop_flag.set()

    async def _run_leader(self) -> None:
        # Synced first: who knows nothing yet must not keep the Lease from one who does.
        await self.manager.synced.wait()
        await self.lease_monitor.wait_for_sync()
        while True:
            log.info("leader.waiting", identity=self.identity, namespace=self.options.namespace)
            # Who cannot keep the view current would lead and do nothing: another replica may be able to.
            await self.election.acquire(may_lead=lambda: not self.store.failing_view_task)
            await self._lead_installation()

    async def _run_cleanup(self) -> None:
        """Undo everything, once, within a time; then end."""
        work = cleanup.Cleanup(self.client, self.store, self.manager, self.options.namespace)
        try:
            async with asyncio.timeout(cleanup.TIMEOUT):
                await self._undo_as_leader(work)
        except TimeoutError:
            work.report(finished=False)
        else:
            self.cleanup_done = work.report(finished=True)

    async def _undo_as_leader(self, work: cleanup.Cleanup) -> None:
        await self.manager.synced.wait()
        await work.scale_down()
        log.info("leader.waiting", identity=self.identity, namespace=self.options.namespace)
        await self.election.acquire()
        undoing = asyncio.create_task(self._undo_own_work(work.undo))
        working = asyncio.create_task(self._lead_installation(reconcile=False))
        try:
            await asyncio.wait({undoing, working}, return_when=asyncio.FIRST_COMPLETED)
            if not undoing.done():
                await working
                raise TimeoutError  # the Lease was lost: what is done no more is left
            await undoing
        finally:
            undoing.cancel()
            working.cancel()
            await asyncio.gather(undoing, working, return_exceptions=True)

    async def _undo_own_work(self, undo: Callable[[], Awaitable[None]]) -> None:
        """Undo what this installation did; what another one does is not undone."""
        await self._installation_decided.wait()
        if self.installation_election.holds_lease():
            await undo()
            await self.installation_election.release()
        else:
            log.warning("cleanup.skipped", why=self._why_inactive())

    async def _lead_installation(self, *, reconcile: bool = True) -> None:
        """Lead this installation while its Lease is ours."""
        await _run_while_held(self.election.renew_until_lost(), self._lead_cluster(reconcile=reconcile))
        log.error("leader.lost", identity=self.identity, holder=self.election.holder)

    async def _lead_cluster(self, *, reconcile: bool) -> None:
        """Act while the Lease that all installations share is ours."""
        while True:
            await self.installation_election.acquire(self._report_other_installation)
            self._installation_decided.set()
            await _run_while_held(self.installation_election.renew_until_lost(), self.manager.lead(reconcile=reconcile))
            log.error("installation.lost", namespace=self.options.namespace, holder=self.installation_election.holder)

    def _report_other_installation(self) -> None:
        """Another installation holds the shared Lease, or it cannot be written."""
        why = self._why_inactive()
        if why is None:
            return
        log.warning(
            "installation.standby",
            namespace=self.options.namespace,
            other=self.installation_election.other_holder,
            why=why,
        )
        if self.installation_election.other_holder_is_alive:
            self._installation_decided.set()
            space = self.options.namespace
            here = InvolvedObject("coordination.k8s.io/v1", "Lease", LEASE_NAME, "", space)
            self.recorder.emit(here, EventType.WARNING, "OtherInstallation", f"Does nothing: {why}", election=True)

    def request_stop(self) -> None:
        """A signal asks the process to end: this is no failure."""
        self._stopped_by_signal = True
        self.stop_flag.set()

    def failure_reason(self) -> str:
        """Why the process failed; empty if it did not."""
        if self.options.cleanup and not self.cleanup_done:
            return self.failure or "cleanup did not finish: see the log above, and run it again"
        if self.failure or self.cleanup_done or self._stopped_by_signal:
            return self.failure
        return "Kopf ended without a reason"

    async def shut_down(self) -> None:
        """Stop working, give the Lease back, close; once."""
        if self._is_shut_down:
            return
        self._is_shut_down = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.election.release()
        for runner in self._http_runners:
            await runner.cleanup()
        await self.client.close()


async def _run_while_held(hold: Coroutine[Any, Any, None], work: Coroutine[Any, Any, None]) -> None:
    """Work while a Lease is held; afterwards nothing of it runs any more. The work itself never ends but by a bug."""
    tasks = [asyncio.create_task(work), asyncio.create_task(hold)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run(options: Options) -> str:
    """Run the operator until it must end, or clean up; why it failed, empty if it did not.

    Raises ConfigError if it cannot start.
    """
    if (files := raise_file_limit()) < RECOMMENDED_OPEN_FILES:
        log.warning(
            "open_files.limited", limit=files, hint=f"allow {RECOMMENDED_OPEN_FILES} open files: ulimit -n, LimitNOFILE"
        )
    connect = partial(Client, await load_config(), reload=load_config)
    app = App(connect, options, clock=Clock(), identity=own_identity())
    try:
        await preflight.check(app.client, options.namespace, cleanup=options.cleanup)
    except ConfigError:
        await app.client.close()
        raise
    asyncio.get_running_loop().set_exception_handler(lambda _, context: app.supervisor.record_unsupervised(context))
    try:
        await _run_kopf(app)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        if app.failure:  # its words are said already: no traceback
            log.warning("process.kopf_failed", error=why)
        else:
            log.exception("process.kopf_failed")
            app.fail(f"Kopf failed: {why}")
    try:
        await app.shut_down()
    except Exception as error:
        log.exception("process.shutdown_failed")
        app.fail(f"the process did not end in order: {type(error).__name__}: {error}")
    return app.failure_reason()


async def _run_kopf(app: App) -> None:
    """Let Kopf run the process until a signal, or a failure of its tasks or of ours."""
    registry = kopf.OperatorRegistry()
    handlers.register(registry, app.store)

    signed_in = float("-inf")

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        nonlocal signed_in
        # If the server refuses even renewed credentials, Kopf asks again at once.
        await asyncio.sleep(max(0.0, signed_in + _LOGIN_INTERVAL - app.clock.monotonic()))
        signed_in = app.clock.monotonic()
        return kopf.AiohttpSession(server=app.client.server, aiohttp_session=await app.client.session())

    @kopf.on.startup(registry=registry)
    async def startup(**_: Any) -> None:
        try:
            await app.start()
        except OSError as error:
            app.fail(f"cannot listen: {error}")
            raise kopf.PermanentError(f"cannot listen: {error}") from error

    @kopf.on.cleanup(registry=registry)
    async def ending(**_: Any) -> None:
        await app.shut_down()

    before, loop = asyncio.all_tasks(), asyncio.get_running_loop()
    tasks = await kopf.spawn_tasks(
        registry=registry, settings=kopf_settings(), clusterwide=True, standalone=True, stop_flag=app.stop_flag
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(
            number, app.request_stop
        )  # in place of Kopf's, whose tasks end in the same way if they fail
    await kopf.run_tasks(tasks, ignored=before)
