"""Supervision of tasks: the failure of a task must not affect other tasks.

Every task of the operator runs in one of three methods. `Supervisor.run_loop` repeats a step, `Supervisor.run_forever`
runs a coroutine that never ends, and `Supervisor.guard` wraps a handler of keys. An unexpected exception is logged with
the task and its object, and counted. It is shown in `/readyz` until the task succeeds. The task is retried with
back-off.

A vital task keeps the view of the cluster current. If it fails for `VIEW_STALE_AFTER` seconds, the view is stale: the
operator writes nothing, and a standby takes no Lease. If it fails for `PROCESS_ENDS_AFTER` seconds, the process ends,
and another replica may lead.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog
from prometheus_client import Counter, Histogram

from rescheduler.controllers.runtime import messages
from rescheduler.kube.backoff import Backoff, keep_cancellation
from rescheduler.kube.client import TRANSIENT_ERRORS

log = structlog.get_logger("rescheduler.runtime.tasks")

VIEW_STALE_AFTER, PROCESS_ENDS_AFTER = 10.0, 120.0  # seconds for which a vital task may fail
_FIRST_DELAY, _MAX_DELAY = 0.2, 60.0  # seconds after an unexpected failure
_RETRY_DELAYS = (0.2, 10.0)  # seconds after a failed request: first and longest
_SUCCEEDED_AFTER = 30.0  # seconds after which a coroutine that never ends counts as successful
_FIRST_REPEAT_DELAY, _MAX_REPEAT_DELAY = 0.02, 1.0  # seconds between steps that return 0
_MAX_SHOWN_FAILURES = 3
_MAX_ERROR_LENGTH = 200

Handler = Callable[[str], Awaitable[bool]]
"""Handle one key; return whether it succeeded."""


@dataclass(slots=True)
class TaskFailure:
    """Task that fails now.

    Attributes:
        task: kind of task.
        subject: name of its object; empty if it has none.
        error: text of the last error, in one line.
        since: first failure in a row, in monotonic seconds.
        backoff: delays before the next attempts.
        count: failures in a row.
    """

    task: str
    subject: str
    error: str
    since: float
    backoff: Backoff
    count: int = 0

    def __str__(self) -> str:
        return messages.task_failed(self.task, self.subject, self.count, self.error)


_RECONCILERS = ("node", "drain", "pool", "migration")


class Supervisor:
    """Run tasks, and record which of them fail.

    `on_view_stale` gets the reason why the view is stale, or an empty string when the view is current again.
    `on_give_up` gets the reason why the process must end.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        failures: Counter,
        *,
        durations: Histogram | None = None,
        on_view_stale: Callable[[str], None] = lambda _: None,
        on_give_up: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._monotonic, self._failure_counter, self._on_view_stale, self._on_give_up = (
            monotonic,
            failures,
            on_view_stale,
            on_give_up,
        )
        self._durations = durations
        self._failing: dict[tuple[str, str], TaskFailure] = {}
        self._stale_view_tasks: set[tuple[str, str]] = set()

    @property
    def failure_summary(self) -> str | None:
        """Text about the tasks that fail now; None if none fails."""
        if not self._failing:
            return None
        shown = [str(failure) for failure in list(self._failing.values())[:_MAX_SHOWN_FAILURES]]
        return messages.tasks_failing(shown, len(self._failing) - len(shown))

    def record_failure(self, task: str, subject: str, error: Exception, *, vital: bool = False) -> float:
        """Log and count a failure; return the seconds until the next attempt."""
        now, key = self._monotonic(), (task, subject)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        failure = self._failing.setdefault(
            key, TaskFailure(task, subject, text, now, Backoff(_FIRST_DELAY, _MAX_DELAY))
        )
        failure.error = text if len(text) <= _MAX_ERROR_LENGTH else text[: _MAX_ERROR_LENGTH - 1] + "…"
        failure.count += 1
        self._failure_counter.labels(task).inc()
        log.error("task.failed", task=task, object=subject, times=failure.count, exc_info=error)
        duration = now - failure.since
        if vital and duration >= VIEW_STALE_AFTER:
            self._stale_view_tasks.add(key)
            self._on_view_stale(str(failure))
        if vital and duration >= PROCESS_ENDS_AFTER:
            self._on_give_up(messages.task_failed_for_too_long(str(failure), duration))
        return failure.backoff.next_delay()

    def clear(self, task: str, subject: str = "") -> None:
        """Record that the task has succeeded or ended."""
        key = (task, subject)
        if self._failing.pop(key, None) is None:
            return
        log.info("task.recovered", task=task, object=subject)
        if key in self._stale_view_tasks:
            self._stale_view_tasks.discard(key)
            if not self._stale_view_tasks:
                self._on_view_stale("")

    def forget(self, *tasks: str) -> None:
        """Forget the failures of tasks that no longer run."""
        for task, subject in [key for key in self._failing if key[0] in tasks]:
            self.clear(task, subject)

    def record_unsupervised(self, context: dict[str, Any]) -> None:
        """Log and count the error of an unsupervised task or callback, from the context of the event loop."""
        source = context.get("task") or context.get("future") or context.get("handle")
        name = source.get_name() if isinstance(source, asyncio.Task) else ""
        self._failure_counter.labels("other").inc()
        log.error(
            "task.failed", task="other", object=name, detail=context["message"], exc_info=context.get("exception")
        )

    async def run_loop(
        self,
        task: str,
        step: Callable[[], Awaitable[float | None]],
        *,
        subject: str = "",
        wake: asyncio.Event | None = None,
        debounce: Callable[[], float] = lambda: 0.0,
        retry: tuple[float, float] | Callable[[Exception], Awaitable[float]] = _RETRY_DELAYS,
        vital: bool = False,
    ) -> None:
        """Repeat `step` until it returns None.

        `step` returns the seconds until the next step. `wake` ends this wait early. `debounce` returns the seconds to
        wait after a wake, so that a burst of wakes causes one step. `retry` is for a failed request: first and longest
        delay, or a function that returns the delay. `wake` does not shorten the delay after a failure. A step that
        returns 0 is repeated quickly at first, and later once a second.
        """
        backoff = Backoff(*(retry if isinstance(retry, tuple) else _RETRY_DELAYS))
        repeats = Backoff(_FIRST_REPEAT_DELAY, _MAX_REPEAT_DELAY)

        async def attempt() -> tuple[float | None, bool]:
            """Return the wait in seconds, None for the end, and whether the step succeeded."""
            began = self._monotonic()
            try:
                return await keep_cancellation(step()), True
            except TRANSIENT_ERRORS as error:
                log.warning("task.retried", task=task, object=subject, error=str(error))
                return backoff.next_delay() if isinstance(retry, tuple) else await retry(error), False
            finally:
                self._observe_duration(task, began)

        try:
            while True:
                if wake:
                    wake.clear()
                try:
                    pause, succeeded = await attempt()
                except Exception as error:  # noqa: BLE001 - a bug must not end the task
                    await asyncio.sleep(self.record_failure(task, subject, error, vital=vital))
                    continue
                if not succeeded:
                    await asyncio.sleep(max(_FIRST_REPEAT_DELAY, pause or 0.0))
                    continue
                self.clear(task, subject)
                backoff.reset()
                if pause is None:
                    return
                if pause <= 0:
                    await asyncio.sleep(repeats.next_delay())
                    continue
                repeats.reset()
                await self._wait(wake, pause, debounce)
        finally:
            self.clear(task, subject)

    @staticmethod
    async def _wait(wake: asyncio.Event | None, seconds: float, debounce: Callable[[], float]) -> None:
        if wake is None:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(debounce())

    async def run_forever(
        self, task: str, run: Callable[[], Awaitable[None]], *, subject: str = "", vital: bool = False
    ) -> None:
        """Run a coroutine that never ends, until cancelled; restart it with back-off if it fails."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                success_timer = loop.call_later(_SUCCEEDED_AFTER, self.clear, task, subject)
                try:
                    await keep_cancellation(run())
                except Exception as error:  # noqa: BLE001 - a bug must not end the task
                    wait = self.record_failure(task, subject, error, vital=vital)
                else:
                    wait = self.record_failure(task, subject, RuntimeError("the task ended"), vital=vital)
                finally:
                    success_timer.cancel()
                await asyncio.sleep(wait)
        finally:
            self.clear(task, subject)

    def _observe_duration(self, task: str, began: float) -> None:
        """Observe how long a reconciliation took; other tasks wait most of the time."""
        if self._durations and task in _RECONCILERS:
            self._durations.labels(task).observe(self._monotonic() - began)

    def guard(self, task: str, handle: Handler) -> Handler:
        """Return a handler of keys that never raises, so that a bad key does not affect other keys."""

        async def guarded(key: str) -> bool:
            began = self._monotonic()
            try:
                succeeded = await handle(key)
                self._observe_duration(task, began)
            except Exception as error:  # noqa: BLE001 - a bug must not end the worker
                self.record_failure(task, key, error)
                return False
            if succeeded:
                self.clear(task, key)
            return succeeded

        return guarded
