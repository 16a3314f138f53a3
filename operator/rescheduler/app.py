"""The process: start, leader election, cleanup, and shutdown. `wiring` builds its parts.

Kopf watches nodes and handles the lifetime of the process. `on.startup` starts the controllers. `on.cleanup` stops them
and releases the Lease. A process that loses the Lease stops all work until it holds the Lease again.
"""

import asyncio
import os
import signal
import socket
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import kopf
import structlog

from rescheduler import handlers, messages, wiring
from rescheduler.api import GROUP, names
from rescheduler.controllers import cleanup
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.http_endpoints import serve
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.kube import paths, preflight
from rescheduler.kube.client import Client
from rescheduler.kube.connection_limits import RECOMMENDED_OPEN_FILES, raise_file_limit
from rescheduler.kube.connections import ConfigError, load_config
from rescheduler.kube.event_recorder import EventType, InvolvedObject
from rescheduler.kube.kopf_session import NodeWatchShield
from rescheduler.kube.leader_election import LEASE_NAME, SHARED_LEASE_NAME
from rescheduler.wiring import ClientFactory

log = structlog.get_logger("rescheduler.app")

_REPORT_INTERVAL = 60.0  # seconds
_MAX_REPORTED = 200
_LOGIN_INTERVAL = 5.0  # seconds
_EVENT_LOOP_STALLED_AFTER = 30.0  # seconds without a heartbeat of the event loop


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the command line.

    Attributes:
        namespace: namespace of the Lease and of the operator's Deployment.
        metrics_port: port of `/metrics`; 0 means any free port.
        health_port: port of `/healthz` and `/readyz`; 0 means any free port.
        cleanup: undo all changes in the cluster and end.
        deployment: name of the operator's Deployment, which the cleanup scales to 0.
    """

    namespace: str = "rescheduler-system"
    metrics_port: int = 8080
    health_port: int = 8081
    cleanup: bool = False
    deployment: str = "rescheduler"


class NoDiffBase(kopf.AnnotationsDiffBaseStorage):
    """Storage that keeps no state, so that Kopf does not copy each node three times for unused handlers."""

    def build(self, **_: Any) -> Any:
        """Return an empty essence: no handler compares states."""
        return {}

    def fetch(self, **_: Any) -> Any:
        """Return None: no previous state is stored."""
        return None


def kopf_settings() -> kopf.OperatorSettings:
    """Return settings with which Kopf only watches and writes nothing."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True  # otherwise another operator with the "default" peering could pause this one
    settings.posting.enabled = False  # `kubectl describe node` does not show the Events of Kopf
    settings.persistence.finalizer = f"{GROUP}/unused"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False)
    settings.persistence.diffbase_storage = NoDiffBase(prefix=GROUP, v1=False)
    settings.scanning.disabled = True  # no watch of all CRDs of the cluster: the kind Node always exists
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.watching.reconnect_backoff = 1.0  # seconds between two lists, if each watch fails at once
    settings.watching.chunk_size = paths.NODE_PAGE_SIZE
    settings.networking.request_timeout = 30
    # Kopf keeps an idle worker for each object for this long. With a limit on workers, events of other objects would
    # wait for an idle worker: only 64 objects in 5 s (measured with 1,000 nodes). An idle worker keeps the raw object.
    settings.queueing.idle_timeout = 0.01
    settings.execution.max_workers = 1  # no synchronous handlers
    return settings


def own_identity() -> str:
    """Return the name of the pod, or the host name with a random suffix."""
    return os.environ.get("POD_NAME") or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"


class App:
    """All parts of one operator process, and its lifetime."""

    def __init__(self, make_client: ClientFactory, options: Options, *, clock: Clock, identity: str) -> None:
        self.options, self.identity = options, identity
        self.clock, self.metrics = clock, Metrics()
        self.stop_flag = asyncio.Event()
        self._reported: dict[tuple[str, str], float] = {}
        self.cleanup_done, self.failure = False, ""
        self._installation_decided = asyncio.Event()  # set when it is known which installation acts
        self._stopped_by_signal = self._is_shut_down = False
        self._tasks: list[asyncio.Task[None]] = []
        self._http_runners: list[Any] = []
        base = wiring.build_base(
            make_client=make_client,
            clock=clock,
            metrics=self.metrics,
            namespace=options.namespace,
            identity=identity,
            guard=self._may_write,
            on_server_date=self._compare_clocks,
            report=self._report,
            on_give_up=self.fail,
        )
        self.client, self.store = base.client, base.store
        self.supervisor, self.recorder = base.supervisor, base.recorder
        elections = wiring.build_elections(
            base=base, namespace=options.namespace, identity=identity, cleanup=options.cleanup
        )
        self.election, self.installation_election = elections.process, elections.installation
        controllers = wiring.build_controllers(
            base=base,
            namespace=options.namespace,
            own_pod=f"{options.namespace}/{identity}",
            cleanup=options.cleanup,
        )
        self.manager, self.lease_monitor = controllers.manager, controllers.lease_monitor

    def _may_write(self) -> bool:
        return self.election.holds_lease() and self.installation_election.holds_lease()

    def _compare_clocks(self, date: str) -> None:
        seconds_behind = self.clock.compare_with_server(date)
        if seconds_behind is None or self.failure:
            return
        log.error("clock.stepped", seconds=round(seconds_behind, 1), server=date)
        self.fail(messages.clock_stepped(seconds_behind))

    def _report(self, event: str, subject: str, error: str) -> None:
        """Count and log a problem: once a minute for each event and subject, and 200 of them a minute at most."""
        self.metrics.troubles.labels(event).inc()
        now = self.clock.monotonic()
        if now - self._reported.get((event, subject), float("-inf")) < _REPORT_INTERVAL:
            return
        if len(self._reported) >= _MAX_REPORTED:
            self._reported = {key: at for key, at in self._reported.items() if now - at < _REPORT_INTERVAL}
        if len(self._reported) < _MAX_REPORTED:
            self._reported[event, subject] = now
            log.warning(event, subject=subject, error=error)

    def _healthy(self) -> str | None:
        seconds = self.clock.monotonic() - self.manager.last_beat_at
        return messages.event_loop_stalled(seconds) if seconds > _EVENT_LOOP_STALLED_AFTER else None

    def _ready(self) -> str | None:
        if not_served := self.store.cache.version_not_served:
            return not_served
        if not self.manager.synced.is_set():
            return messages.not_listed()
        if seconds := self.store.state_builder.seconds_list_stale(self.clock.now()):
            return messages.list_stale(seconds)
        if missing := sorted(map(paths.crd_name, self.store.cache.not_installed)):
            return messages.crds_missing(missing, names.INSTALL_HINT)
        return self._why_inactive() or self.supervisor.failure_summary

    def _why_inactive(self) -> str | None:
        """Return why this installation does not act although this process leads it; None if it acts, or is a standby."""
        if not self.election.holds_lease() or self.installation_election.holds_lease():
            return None
        lease = f"{paths.SYSTEM_NAMESPACE}/{SHARED_LEASE_NAME}"
        if other_namespace := self.installation_election.other_holder:
            return messages.other_installation(other_namespace, lease)
        error = self.installation_election.error
        return messages.shared_lease_failed(lease, error) if error else None

    def fail(self, reason: str) -> None:
        """End the process because of a failure; the first reason counts."""
        if not self.failure:
            self.failure = reason
            log.error("process.failed", why=reason)
        self.stop_flag.set()

    async def start(self) -> None:
        """Start the endpoints and the tasks. Raises OSError if a port is in use."""
        self._http_runners = await serve(
            healthy=self._healthy,
            ready=self._ready,
            registry=self.metrics.registry,
            health_port=self.options.health_port,
            metrics_port=self.options.metrics_port,
        )
        self.start_tasks()

    def start_tasks(self) -> None:
        """Start the tasks of the process: the view of the cluster, the Events, and the work of the leader."""
        leader_work = self._run_cleanup() if self.options.cleanup else self._run_leader()
        for name, work in (
            ("the view of the cluster", self.manager.watch()),
            ("the writing of Events", self.supervisor.run_forever("events", self.recorder.run)),
            ("the work of the leader", leader_work),
        ):
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(self._on_task_end)
            self._tasks.append(task)

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("process.task_ended", task=task.get_name(), exc_info=error)
            self.fail(messages.task_ended(task.get_name(), error))
        elif not self.options.cleanup and not task.cancelled():
            self.fail(messages.task_ended(task.get_name(), None))
        self.stop_flag.set()

    async def _run_leader(self) -> None:
        # A process without a view must not hold the Lease: another replica may be ready.
        await self.manager.synced.wait()
        await self.lease_monitor.wait_for_sync()
        while True:
            log.info("leader.waiting", identity=self.identity, namespace=self.options.namespace)
            # A process with a stale view would lead and do nothing: another replica may have a current view.
            await self.election.acquire(may_lead=lambda: not self.store.state_builder.view_failure)
            await self._lead_installation()

    async def _run_cleanup(self) -> None:
        """Undo all changes in the cluster once, within the time limit; then end."""
        run = cleanup.Cleanup(self.client, self.store, self.manager, self.options.namespace, self.options.deployment)
        try:
            async with asyncio.timeout(cleanup.TIMEOUT):
                await self._undo_as_leader(run)
        except TimeoutError:
            run.report(finished=False)
        else:
            self.cleanup_done = run.report(finished=True)

    async def _undo_as_leader(self, run: cleanup.Cleanup) -> None:
        await self.manager.synced.wait()
        await run.scale_down()
        log.info("leader.waiting", identity=self.identity, namespace=self.options.namespace)
        await self.election.acquire(self._report_waiting_cleanup)
        undoing = asyncio.create_task(self._undo_own_work(run.undo))
        working = asyncio.create_task(self._lead_installation(reconcile=False))
        try:
            await asyncio.wait({undoing, working}, return_when=asyncio.FIRST_COMPLETED)
            if not undoing.done():
                await working
                raise TimeoutError  # the Lease was lost: report what is left
            await undoing
        finally:
            undoing.cancel()
            working.cancel()
            await asyncio.gather(undoing, working, return_exceptions=True)

    def _report_waiting_cleanup(self) -> None:
        log.warning("cleanup.waiting", lease_holder=self.election.other_holder, error=self.election.error)

    async def _undo_own_work(self, undo: Callable[[], Awaitable[None]]) -> None:
        """Undo the changes of this installation, unless another installation acts in the cluster."""
        await self._installation_decided.wait()
        if self.installation_election.holds_lease():
            await undo()
            await self.installation_election.release()
        else:
            log.warning("cleanup.skipped", why=self._why_inactive())

    async def _lead_installation(self, *, reconcile: bool = True) -> None:
        """Lead this installation while this process holds its Lease."""
        await _run_while_held(self.election.renew_until_lost(), self._lead_cluster(reconcile=reconcile))
        log.error("leader.lost", identity=self.identity, holder=self.election.holder)

    async def _lead_cluster(self, *, reconcile: bool) -> None:
        """Act in the cluster while this installation holds the shared Lease."""
        while True:
            await self.installation_election.acquire(self._report_other_installation)
            self._installation_decided.set()
            await _run_while_held(self.installation_election.renew_until_lost(), self.manager.lead(reconcile=reconcile))
            log.error("installation.lost", namespace=self.options.namespace, holder=self.installation_election.holder)

    def _report_other_installation(self) -> None:
        """Report that another installation holds the shared Lease, or that the Lease cannot be written."""
        reason = self._why_inactive()
        if reason is None:
            return
        log.warning(
            "installation.standby",
            namespace=self.options.namespace,
            other=self.installation_election.other_holder,
            why=reason,
        )
        if self.installation_election.other_holder_is_alive:
            self._installation_decided.set()
            lease = InvolvedObject("coordination.k8s.io/v1", "Lease", LEASE_NAME, "", self.options.namespace)
            message = messages.other_installation_event(reason)
            self.recorder.emit(lease, EventType.WARNING, "OtherInstallation", message, election=True)

    def request_stop(self) -> None:
        """End the process after a signal; this is not a failure."""
        self._stopped_by_signal = True
        self.stop_flag.set()

    def failure_reason(self) -> str:
        """Return why the process failed; empty if it did not."""
        if self.options.cleanup and not self.cleanup_done:
            return self.failure or messages.cleanup_unfinished()
        if self.failure or self.cleanup_done or self._stopped_by_signal:
            return self.failure
        return messages.kopf_ended()

    async def shut_down(self) -> None:
        """Stop the tasks, release the Lease, and close the connections; further calls do nothing."""
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
    """Run `work` while `hold` keeps a Lease, and cancel it when the Lease is lost. Raises the error of a failed task."""
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
    """Run the operator or the cleanup until it ends; return why it failed, empty if it did not.

    Raises ConfigError if the operator cannot start.
    """
    if (files := raise_file_limit()) < RECOMMENDED_OPEN_FILES:
        log.warning("open_files.limited", limit=files, hint=messages.low_file_limit(RECOMMENDED_OPEN_FILES))
    connect = partial(Client, await load_config(), reload=load_config)
    app = App(connect, options, clock=Clock(), identity=own_identity())
    try:
        scaled = options.deployment if options.cleanup else ""
        await preflight.check(app.client, options.namespace, scaled_deployment=scaled)
    except ConfigError:
        await app.client.close()
        raise
    asyncio.get_running_loop().set_exception_handler(lambda _, context: app.supervisor.record_unsupervised(context))
    try:
        await _run_kopf(app)
    except Exception as error:
        if app.failure:  # Kopf fails because the process ends: a traceback would hide the reason
            log.warning("process.kopf_failed", error=f"{type(error).__name__}: {error}")
        else:
            log.exception("process.kopf_failed")
            app.fail(messages.kopf_failed(error))
    try:
        await app.shut_down()
    except Exception as error:
        log.exception("process.shutdown_failed")
        app.fail(messages.shutdown_failed(error))
    return app.failure_reason()


async def _run_kopf(app: App) -> None:
    """Let Kopf run the process until a signal, or until a task fails."""
    registry = kopf.OperatorRegistry()
    handlers.register(registry, app.store)

    logged_in_at = float("-inf")

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        nonlocal logged_in_at
        # Kopf logs in again at once if the server refuses the new credentials: a hot loop without this wait.
        await asyncio.sleep(max(0.0, logged_in_at + _LOGIN_INTERVAL - app.clock.monotonic()))
        logged_in_at = app.clock.monotonic()
        return kopf.AiohttpSession(
            server=app.client.server, aiohttp_session=await app.client.session(NodeWatchShield())
        )

    @kopf.on.startup(registry=registry)
    async def startup(**_: Any) -> None:
        try:
            await app.start()
        except OSError as error:
            app.fail(messages.cannot_listen(error))
            raise kopf.PermanentError(messages.cannot_listen(error)) from error

    @kopf.on.cleanup(registry=registry)
    async def shutdown(**_: Any) -> None:
        await app.shut_down()

    before, loop = asyncio.all_tasks(), asyncio.get_running_loop()
    tasks = await kopf.spawn_tasks(
        registry=registry, settings=kopf_settings(), clusterwide=True, standalone=True, stop_flag=app.stop_flag
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        # Replaces Kopf's handler: with it, a signal would look like a failure of a task.
        loop.add_signal_handler(number, app.request_stop)
    await kopf.run_tasks(tasks, ignored=before)
