"""End of the process: success after a signal, failure after everything else."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import kopf
import pytest

from rescheduler import app as program
from rescheduler.app import App, Options
from rescheduler.controllers.failure.lease_monitor import LeaseMonitor
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.kube.client import UnreachableError
from rescheduler.kube.connection_limits import WatchLimiter
from rescheduler.kube.leader_election import Election
from unit.supervision import silent

Run = Callable[[App], Awaitable[None]]


class FakeClient:
    """Client without an API server."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.closed = False
        self.watch_limiter = WatchLimiter(1)

    def report(self, event: str, subject: str, error: str) -> None: ...

    async def close(self) -> None:
        self.closed = True

    async def get(self, path: str, **_: Any) -> Any:
        raise UnreachableError(path)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with silent():
        yield


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[str]]:
    """Return a function that runs the program with a fake Kopf, and returns the failure."""

    async def ready(*_: Any, **__: Any) -> None: ...

    monkeypatch.setattr(program, "load_config", ready)
    monkeypatch.setattr(program, "Client", FakeClient)
    monkeypatch.setattr("rescheduler.app.preflight.check", ready)

    async def run(kopfs: Run, **options: Any) -> str:
        made: list[App] = []

        class Watched(App):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                made.append(self)

        async def run_tasks(*_: Any, **__: Any) -> None:
            await kopfs(made[0])

        monkeypatch.setattr(program, "App", Watched)
        monkeypatch.setattr(kopf, "spawn_tasks", ready)
        monkeypatch.setattr(kopf, "run_tasks", run_tasks)
        failure = await program.run(Options(**options))
        assert made[0].client.closed  # type: ignore[attr-defined]
        return failure

    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_success(ends: Any, number: int) -> None:
    async def until_stopped(app: App) -> None:
        os.kill(os.getpid(), number)
        await app.stop_flag.wait()

    assert await ends(until_stopped) == ""


async def test_a_task_of_kopf_that_fails_is_a_failure(ends: Any) -> None:
    async def fail(_: App) -> None:
        raise RuntimeError("the watch of nodes was refused")

    assert await ends(fail) == "Kopf failed: RuntimeError: the watch of nodes was refused"


async def test_a_failed_shutdown_is_a_failure_without_traceback(ends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(app: App) -> None:
        await app.client.close()
        raise KeyError("spec")

    async def obey(app: App) -> None:
        app.request_stop()

    monkeypatch.setattr(App, "shut_down", fail)
    assert await ends(obey) == "the shutdown failed: KeyError: 'spec'"


async def test_a_kopf_that_ends_by_itself_is_a_failure(ends: Any) -> None:
    async def end(_: App) -> None: ...

    assert "Kopf ended" in await ends(end)


async def test_a_bug_in_the_election_ends_it_as_a_failure(ends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any, **__: Any) -> Any:
        raise KeyError("spec")

    async def first(_: Any) -> None: ...

    monkeypatch.setattr(Election, "acquire", fail)
    monkeypatch.setattr(LeaseMonitor, "wait_for_sync", first)

    async def begin(app: App) -> None:
        app.manager.synced.set()
        app.start_tasks()
        await app.stop_flag.wait()

    assert "the work of the leader ended: KeyError" in await ends(begin)


async def test_a_vital_task_that_fails_for_long_ends_it_as_a_failure(ends: Any) -> None:
    async def fail(app: App) -> None:
        task = app.supervisor
        task.record_failure("resync", "", ValueError("x"), vital=True)
        task._failing["resync", ""].since -= 121
        task.record_failure("resync", "", ValueError("x"), vital=True)
        assert app.store.state_builder.failing_view_task
        await app.stop_flag.wait()

    assert "task resync failed 2 times in a row (ValueError: x), for 121 s" in await ends(fail)


async def test_a_cleanup_that_did_not_finish_is_a_failure(ends: Any) -> None:
    async def until_stopped(app: App) -> None:
        app.request_stop()
        await app.stop_flag.wait()

    assert "cleanup did not finish" in await ends(until_stopped, cleanup=True)

    async def cleaned(app: App) -> None:
        app.cleanup_done = True

    assert await ends(cleaned, cleanup=True) == ""


async def test_readyz_says_that_the_lists_are_old_and_that_they_are_current_again() -> None:
    app = App(FakeClient, Options(), clock=Clock(), identity="a")  # type: ignore[arg-type]
    app.manager.synced.set()
    app.store.set_listed(app.clock.now() - timedelta(seconds=170))
    assert app._ready() is None
    app.store.set_listed(app.clock.now() - timedelta(seconds=190))
    assert "were listed 190 s ago: a right is missing" in (app._ready() or "")
    app.store.set_listed(app.clock.now())
    assert app._ready() is None
    await asyncio.sleep(0)


async def test_readyz_names_the_task_that_fails_and_its_object() -> None:
    app = App(FakeClient, Options(), clock=Clock(), identity="a")  # type: ignore[arg-type]
    app.manager.synced.set()
    assert app._ready() is None
    app.supervisor.record_failure("drain", "n1", ValueError("no such volume"))
    assert "task drain of n1 failed once (ValueError: no such volume)" in (app._ready() or "")
    app.supervisor.clear("drain", "n1")
    assert app._ready() is None
    await asyncio.sleep(0)
