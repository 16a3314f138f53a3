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
from rescheduler.controllers.drain.drain_task import Tools
from rescheduler.controllers.drain.events import Announcer
from rescheduler.controllers.drain.node_controller import Reconciler
from rescheduler.controllers.evacuation.budget_watch import Budgets
from rescheduler.controllers.evacuation.eviction_queue import Evictions
from rescheduler.controllers.evacuation.planner import Plans
from rescheduler.controllers.evacuation.pod_mover import Movers
from rescheduler.controllers.evacuation.related_objects import Surroundings
from rescheduler.controllers.evacuation.replacer import Replacements
from rescheduler.controllers.evacuation.workload_watch import Owners
from rescheduler.controllers.failure.lease_monitor import Heartbeats
from rescheduler.controllers.manager import Engine
from rescheduler.controllers.migration import node_task
from rescheduler.controllers.migration.manager import Shifts
from rescheduler.controllers.pools import move_controller
from rescheduler.controllers.pools.controller import PoolKeeping
from rescheduler.controllers.pools.events import PoolAnnouncer
from rescheduler.controllers.rebalance import moves as rebalance_moves
from rescheduler.controllers.rebalance.controller import Rebalancer
from rescheduler.controllers.rebalance.events import RebalanceAnnouncer
from rescheduler.controllers.rebalance.moves import RebalanceMoves
from rescheduler.controllers.rebalance.node_usage import Usages
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.http_endpoints import serve
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.store import Store
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.controllers.runtime.work_queue import KeyedQueue
from rescheduler.core.replacement.move_history import Lineages
from rescheduler.kube import paths, preflight
from rescheduler.kube.client import Client
from rescheduler.kube.connection_limits import ENOUGH_FILES, raise_file_limit
from rescheduler.kube.connections import ConfigError, sign_in
from rescheduler.kube.election_rules import INSTALLATION
from rescheduler.kube.event_recorder import Kind as EventKind
from rescheduler.kube.event_recorder import Recorder, Subject
from rescheduler.kube.leader_election import LEASE, SHARED_LEASE, Election

log = structlog.get_logger("rescheduler.app")

_REPORT_EVERY = 60.0  # seconds
_MOST_REPORTS = 200
_SIGN_IN_EVERY = 5.0  # seconds
_HEARTBEAT_LIMIT = 30.0  # seconds without a turn of the event loop


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


def settings() -> kopf.OperatorSettings:
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


class Connect(Protocol):
    """Makes the client of a process.

    `guard` says whether it may write now, `count` is told of each request, `dated` gets the server's time.
    """

    def __call__(
        self, *, guard: Callable[[], bool], count: Callable[[str, str, int], None], dated: Callable[[str], None]
    ) -> Client: ...


class App:
    """All parts of one process."""

    def __init__(self, connect: Connect, options: Options, *, clock: Clock, identity: str) -> None:
        self.options, self.identity = options, identity
        self.clock, self.metrics = clock, Metrics()
        self.store = Store(self.clock.now, exempt=[options.namespace])
        self.client = connect(guard=self._sure, count=self.metrics.count_request, dated=self._compare_clocks)
        self.client.report = self._report
        self.metrics.watches_waiting.set_function(lambda: float(self.client.turns.waiting))
        self.election = Election(
            self.client,
            namespace=options.namespace,
            identity=self.identity,
            now=self.clock.now,
            monotonic=self.clock.monotonic,
        )
        self.claim = Election(
            self.client,
            namespace=paths.SYSTEM,
            identity=options.namespace,
            now=self.clock.now,
            monotonic=self.clock.monotonic,
            name=SHARED_LEASE,
            terms=INSTALLATION,
        )
        self.metrics.clock_offset.set_function(lambda: self.clock.offset)
        self.metrics.leader.labels("rescheduler").set_function(lambda: float(self._sure()))
        self.supervisor = Supervisor(
            clock.monotonic, self.metrics.task_failures, doubt=self.store.set_doubt, gave_up=self.fail
        )
        self.recorder = Recorder(
            self.client,
            identity=self.identity,
            now=self.clock.now,
            lost=lambda reason, error: log.warning("event.lost", reason=reason, error=error),
        )
        announcer = Announcer(self.recorder, self.metrics)
        budgets = Budgets(self.client, self._wake, self.clock.monotonic)
        evictions = Evictions(self.client, self.clock, budgets, self.metrics)
        owners = Owners(self.client, self._wake)
        replacements = Replacements(
            self.client,
            self.clock,
            budgets,
            owners,
            self.metrics,
            self._wake,
            evictions.going,
            refused=evictions.refused,
        )
        queue = KeyedQueue()
        self.heartbeats = Heartbeats(self.client, self.store, self.clock)
        facts = (self.client, self.store, self.clock, self._pools_of_namespaces, self._wake, self.supervisor)
        plans = Plans(*facts)
        movers = Movers(self.client, self.clock, budgets, evictions, replacements, self.metrics, Lineages(), plans)
        surroundings = Surroundings(self.client, self._wake)
        tools = Tools(
            self.client,
            self.store,
            self.clock,
            movers,
            surroundings,
            announcer,
            self.metrics,
            self.heartbeats,
            self.supervisor,
            own_pod=f"{options.namespace}/{self.identity}",
            leaving=options.cleanup,
        )
        reconciler = Reconciler(self.client, self.store, self.clock, queue, announcer, self.metrics)
        movers = replace(movers, plans=Plans(*facts, may_stay=True))
        moving = node_task.Tools(self.client, self.store, self.clock, movers, surroundings, self.supervisor)
        single = Shifts(moving, {move_controller.SOURCE, rebalance_moves.SOURCE})
        self.pools = PoolKeeping(moving, single, PoolAnnouncer(self.recorder), self.metrics)
        rebalancer = self._rebalancer(single)
        self.engine = Engine(self.store, tools, queue, reconciler, self.pools, rebalancer)
        self.stop = asyncio.Event()
        self._reported: dict[tuple[str, str], float] = {}
        self.cleaned, self.failure = False, ""
        self._decided = asyncio.Event()  # whether this installation acts, or another one
        self._asked_to_end = self._ended_already = False
        self._tasks: list[asyncio.Task[None]] = []
        self._runners: list[Any] = []

    def _rebalancer(self, single: Shifts) -> Rebalancer:
        moves = RebalanceMoves(single)
        single.moved.append(moves.left)
        single.looked.append(moves.looked)
        return Rebalancer(
            self.client,
            self.store,
            self.clock,
            moves,
            Usages(self.client),
            RebalanceAnnouncer(self.recorder, self.metrics),
            self.supervisor,
            own_pod=f"{self.options.namespace}/{self.identity}",
        )

    def _sure(self) -> bool:
        return self.election.sure() and self.claim.sure()

    def _compare_clocks(self, date: str) -> None:
        behind = self.clock.hear(date)
        if behind is None or self.failure:
            return
        log.error("clock.stepped", seconds=round(behind, 1), server=date)
        self.fail(
            f"the operator's clock is {abs(behind):.0f} s {'behind' if behind > 0 else 'ahead of'} the API server's: "
            "the machine was suspended, or a clock was set; a new start takes the API server's time"
        )

    def _pools_of_namespaces(self) -> dict[str, str]:
        """The pools that new pods are put into at creation."""
        if not self.pools.enforced:
            return {}
        return {space.name: space.pool for space in self.store.namespaces.values() if space.pool}

    def _wake(self, names: Iterable[str]) -> None:
        self.engine.wake(names)

    def _report(self, event: str, subject: str, error: str) -> None:
        """Log what went wrong below the engine: the same of the same subject once a minute, and not of too many."""
        self.metrics.troubles.labels(event).inc()
        now = self.clock.monotonic()
        if now - self._reported.get((event, subject), float("-inf")) < _REPORT_EVERY:
            return
        if len(self._reported) >= _MOST_REPORTS:
            self._reported = {key: when for key, when in self._reported.items() if now - when < _REPORT_EVERY}
        if len(self._reported) < _MOST_REPORTS:
            self._reported[event, subject] = now
            log.warning(event, subject=subject, error=error)

    def _healthy(self) -> str | None:
        silent = self.clock.monotonic() - self.engine.beat
        return f"the event loop has not turned for {silent:.0f} s" if silent > _HEARTBEAT_LIMIT else None

    def _ready(self) -> str | None:
        if not self.engine.synced.is_set():
            return "nodes, namespaces, policies, pools and NodeDrains are not listed yet"
        if absent := sorted(map(paths.crd, self.store.absent)):
            return f"the CRDs {', '.join(absent)} are not installed: {names.INSTALL}"
        return self._yields() or self.supervisor.complaint

    def _yields(self) -> str | None:
        """Why this installation does not act though this process leads it; None if it does, or does not lead it."""
        if not self.election.sure() or self.claim.sure():
            return None
        lease = f"Lease {paths.SYSTEM}/{SHARED_LEASE}"
        if other := self.claim.other:
            return (
                f"another installation of Rescheduler, in namespace {other}, leads this cluster ({lease}): "
                "uninstall one of them; this one does nothing while the other one runs, and for two minutes after that"
            )
        return f"the {lease} cannot be written: {self.claim.error}" if self.claim.error else None

    def fail(self, why: str) -> None:
        """End the process because of a failure."""
        if not self.failure:
            self.failure = why
            log.error("process.failed", why=why)
        self.stop.set()

    async def start(self) -> None:
        """Serve the endpoints, and begin."""
        self._runners = await serve(
            healthy=self._healthy,
            ready=self._ready,
            registry=self.metrics.registry,
            health_port=self.options.health_port,
            metrics_port=self.options.metrics_port,
        )
        self.begin()

    def begin(self) -> None:
        """Sync, and lead as soon as the Lease is ours."""
        life = self._clean() if self.options.cleanup else self._lead()
        for name, work in (
            ("the view of the cluster", self.engine.follow()),
            ("the writing of Events", self.supervisor.keep("events", self.recorder.run)),
            ("the work of the leader", life),
        ):
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("process.task_ended", task=task.get_name(), exc_info=error)
            self.fail(f"{task.get_name()} ended: {type(error).__name__}: {error}")
        elif not self.options.cleanup and not task.cancelled():
            self.fail(f"{task.get_name()} ended")
        self.stop.set()

    async def _lead(self) -> None:
        # Synced first: who knows nothing yet must not keep the Lease from one who does.
        await self.engine.synced.wait()
        await self.heartbeats.first()
        while True:
            log.info("leader.waiting", identity=self.identity, namespace=self.options.namespace)
            # Who cannot keep the view current would lead and do nothing: another replica may be able to.
            await self.election.acquire(fit=lambda: not self.store.doubt)
            await self._work()

    async def _clean(self) -> None:
        """Undo everything, once, within a time; then end."""
        work = cleanup.Cleanup(self.client, self.store, self.engine, self.options.namespace)
        try:
            async with asyncio.timeout(cleanup.LIMIT):
                await self._undo(work)
        except TimeoutError:
            work.report(ended=False)
        else:
            self.cleaned = work.report(ended=True)

    async def _undo(self, work: cleanup.Cleanup) -> None:
        await self.engine.synced.wait()
        await work.scale_down()
        log.info("leader.waiting", identity=self.identity, namespace=self.options.namespace)
        await self.election.acquire()
        undoing = asyncio.create_task(self._undo_ours(work.undo))
        working = asyncio.create_task(self._work(reconcile=False))
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

    async def _undo_ours(self, undo: Callable[[], Awaitable[None]]) -> None:
        """Undo what this installation did; what another one does is not undone."""
        await self._decided.wait()
        if self.claim.sure():
            await undo()
            await self.claim.release()
        else:
            log.warning("cleanup.left_to_other", why=self._yields())

    async def _work(self, *, reconcile: bool = True) -> None:
        """Lead this installation while its Lease is ours."""
        await _while(self.election.hold(), self._act(reconcile=reconcile))
        log.error("leader.lost", identity=self.identity, holder=self.election.holder)

    async def _act(self, *, reconcile: bool) -> None:
        """Act while the Lease that all installations share is ours."""
        while True:
            await self.claim.acquire(self._report_other)
            self._decided.set()
            await _while(self.claim.hold(), self.engine.lead(reconcile=reconcile))
            log.error("installation.lost", namespace=self.options.namespace, holder=self.claim.holder)

    def _report_other(self) -> None:
        """Another installation holds the shared Lease, or it cannot be written."""
        why = self._yields()
        if why is None:
            return
        log.warning("installation.yields", namespace=self.options.namespace, other=self.claim.other, why=why)
        if self.claim.other_is_alive:
            self._decided.set()
            space = self.options.namespace
            here = Subject("coordination.k8s.io/v1", "Lease", LEASE, "", space)
            self.recorder.emit(here, EventKind.WARNING, "OtherInstallation", f"Does nothing: {why}", election=True)

    def obey(self) -> None:
        """A signal asks the process to end: this is no failure."""
        self._asked_to_end = True
        self.stop.set()

    def verdict(self) -> str:
        """Why the process failed; empty if it did not."""
        if self.options.cleanup and not self.cleaned:
            return self.failure or "cleanup did not finish: see the log above, and run it again"
        if self.failure or self.cleaned or self._asked_to_end:
            return self.failure
        return "Kopf ended without a reason"

    async def end(self) -> None:
        """Stop working, give the Lease back, close; once."""
        if self._ended_already:
            return
        self._ended_already = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.election.release()
        for runner in self._runners:
            await runner.cleanup()
        await self.client.close()


async def _while(holding: Coroutine[Any, Any, None], working: Coroutine[Any, Any, None]) -> None:
    """Work while a Lease is held; afterwards nothing of it runs any more. The work itself never ends but by a bug."""
    tasks = [asyncio.create_task(working), asyncio.create_task(holding)]
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
    if (files := raise_file_limit()) < ENOUGH_FILES:
        log.warning("files.limited", limit=files, hint=f"allow {ENOUGH_FILES} open files: ulimit -n, LimitNOFILE")
    connect = partial(Client, await sign_in(), reload=sign_in)
    app = App(connect, options, clock=Clock(), identity=own_identity())
    try:
        await preflight.check(app.client, options.namespace, cleanup=options.cleanup)
    except ConfigError:
        await app.client.close()
        raise
    asyncio.get_running_loop().set_exception_handler(lambda _, context: app.supervisor.unseen(context))
    try:
        await _follow(app)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        if app.failure:  # its words are said already: no traceback
            log.warning("process.kopf_failed", error=why)
        else:
            log.exception("process.kopf_failed")
            app.fail(f"Kopf failed: {why}")
    try:
        await app.end()
    except Exception as error:
        log.exception("process.not_ended_in_order")
        app.fail(f"the process did not end in order: {type(error).__name__}: {error}")
    return app.verdict()


async def _follow(app: App) -> None:
    """Let Kopf run the process until a signal, or a failure of its tasks or of ours."""
    registry = kopf.OperatorRegistry()
    handlers.register(registry, app.store)

    signed_in = float("-inf")

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        nonlocal signed_in
        # If the server refuses even renewed credentials, Kopf asks again at once.
        await asyncio.sleep(max(0.0, signed_in + _SIGN_IN_EVERY - app.clock.monotonic()))
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
        await app.end()

    before, loop = asyncio.all_tasks(), asyncio.get_running_loop()
    tasks = await kopf.spawn_tasks(
        registry=registry, settings=settings(), clusterwide=True, standalone=True, stop_flag=app.stop
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, app.obey)  # in place of Kopf's, whose tasks end in the same way if they fail
    await kopf.run_tasks(tasks, ignored=before)
