"""Supervision: a task that fails costs only itself.

Every task of the operator runs in `Supervisor.loop` (a step that is repeated), `Supervisor.keep` (a coroutine that never
ends) or `Supervisor.guard` (a handler of keys). An unexpected exception is logged with the task and its object, counted,
shown in `/readyz` until the task has succeeded again, and followed by a new try with back-off.

A vital task keeps the view of the cluster current. If a vital task fails for `DOUBT` seconds, the view counts as stale
and nothing is acted on; a standby takes no Lease. If it fails for `GIVE_UP` seconds, the process ends, and another replica
may lead.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog
from prometheus_client import Counter

from rescheduler.kube.backoff import Backoff
from rescheduler.kube.client import TRANSIENT_ERRORS

log = structlog.get_logger("rescheduler.tasks")

VIEW_STALE_AFTER, PROCESS_ENDS_AFTER = 10.0, 120.0  # seconds for which a vital task may fail
_FIRST_DELAY, _MAX_DELAY = 0.2, 60.0  # seconds after an unexpected failure
_RETRY_DELAYS = (0.2, 10.0)  # seconds after a failed request: first and longest
_SUCCEEDED_AFTER = 30.0  # seconds; a coroutine that never ends has succeeded when it has run for so long
_FIRST_REPEAT_DELAY, _MAX_REPEAT_DELAY = 0.02, 1.0  # seconds between steps that ask to be repeated at once
_MAX_SHOWN_FAILURES = 3
_MAX_ERROR_LENGTH = 200

Handler = Callable[[str], Awaitable[bool]]
"""Handle one key; whether that succeeded."""


@dataclass(slots=True)
class TaskFailure:
    """A task that fails now. `since`: monotonic seconds; `times`: failures in a row."""

    task: str
    subject: str
    error: str
    since: float
    backoff: Backoff
    count: int = 0

    def __str__(self) -> str:
        name = f"{self.task} of {self.subject}" if self.subject else self.task
        times = "once" if self.count == 1 else f"{self.count} times in a row"
        return f"task {name} failed {times} ({self.error})"


class Supervisor:
    """Runs tasks, and knows which of them fail.

    `doubt` gets the reason why the view is stale, or an empty string when it is current again. `gave_up` gets the reason
    why the process must end.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        failures: Counter,
        *,
        on_view_stale: Callable[[str], None] = lambda _: None,
        on_give_up: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._monotonic, self._failure_counter, self._on_view_stale, self._on_give_up = (
            monotonic,
            failures,
            on_view_stale,
            on_give_up,
        )
        self._failing: dict[tuple[str, str], TaskFailure] = {}
        self._stale_view_tasks: set[tuple[str, str]] = set()

    @property
    def failure_summary(self) -> str | None:
        """Which tasks fail now; None if none does."""
        if not self._failing:
            return None
        shown = [str(failure) for failure in list(self._failing.values())[:_MAX_SHOWN_FAILURES]]
        more = len(self._failing) - len(shown)
        listed = "; ".join(shown) + (f"; and {more} more" if more else "")
        return f"{listed}: find task.failed in the operator's log"

    def record_failure(self, task: str, subject: str, error: Exception, *, vital: bool = False) -> float:
        """Log and count a failure; return the seconds until the next try."""
        now, key = self._monotonic(), (task, subject)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        failure = self._failing.setdefault(
            key, TaskFailure(task, subject, text, now, Backoff(_FIRST_DELAY, _MAX_DELAY))
        )
        failure.error = text if len(text) <= _MAX_ERROR_LENGTH else text[: _MAX_ERROR_LENGTH - 1] + "…"
        failure.count += 1
        self._failure_counter.labels(task).inc()
        log.error("task.failed", task=task, object=subject, times=failure.count, exc_info=error)
        lasted = now - failure.since
        if vital and lasted >= VIEW_STALE_AFTER:
            self._stale_view_tasks.add(key)
            self._on_view_stale(str(failure))
        if vital and lasted >= PROCESS_ENDS_AFTER:
            self._on_give_up(f"{failure}, for {lasted:.0f} s")
        return failure.backoff.next_delay()

    def clear(self, task: str, subject: str = "") -> None:
        """The task has succeeded, or is over."""
        key = (task, subject)
        if self._failing.pop(key, None) is None:
            return
        log.info("task.recovered", task=task, object=subject)
        if key in self._stale_view_tasks:
            self._stale_view_tasks.discard(key)
            if not self._stale_view_tasks:
                self._on_view_stale("")

    def forget(self, *tasks: str) -> None:
        """These kinds of tasks do not run any more."""
        for task, subject in [key for key in self._failing if key[0] in tasks]:
            self.clear(task, subject)

    def record_unsupervised(self, context: dict[str, Any]) -> None:
        """Log and count what ended a task that nobody supervises, or a callback."""
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

        `step` returns the seconds until the next one; `wake` shortens them, and `settle` says how long a burst of wakes
        is one step. After a failed request (`retry`: first and longest wait, or what to do and the seconds to wait) and
        after an unexpected failure nothing shortens the wait. A step that asks to be repeated at once is repeated at
        most once a second in the long run.
        """
        again = Backoff(*(retry if isinstance(retry, tuple) else _RETRY_DELAYS))
        hurry = Backoff(_FIRST_REPEAT_DELAY, _MAX_REPEAT_DELAY)

        async def once() -> tuple[float | None, bool]:
            """Return the pause, and whether the step has succeeded."""
            try:
                return await step(), True
            except TRANSIENT_ERRORS as error:
                log.warning("task.retried", task=task, object=subject, error=str(error))
                return again.next_delay() if isinstance(retry, tuple) else await retry(error), False

        try:
            while True:
                if wake:
                    wake.clear()
                try:
                    pause, succeeded = await once()
                except Exception as error:  # noqa: BLE001 - whatever it is, it costs this task only
                    await asyncio.sleep(self.record_failure(task, subject, error, vital=vital))
                    continue
                if not succeeded:
                    await asyncio.sleep(max(_FIRST_REPEAT_DELAY, pause or 0.0))
                    continue
                self.clear(task, subject)
                again.reset()
                if pause is None:
                    return
                if pause <= 0:
                    await asyncio.sleep(hurry.next_delay())
                    continue
                hurry.reset()
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
        """Run what never ends until cancelled; start it again when it fails."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                steady = loop.call_later(_SUCCEEDED_AFTER, self.clear, task, subject)
                try:
                    await run()
                except Exception as error:  # noqa: BLE001 - whatever it is, it costs this task only
                    wait = self.record_failure(task, subject, error, vital=vital)
                else:
                    wait = self.record_failure(task, subject, RuntimeError("it ended"), vital=vital)
                finally:
                    steady.cancel()
                await asyncio.sleep(wait)
        finally:
            self.clear(task, subject)

    def guard(self, task: str, handle: Handler) -> Handler:
        """Return a handler of keys that never raises: a key whose handler raises costs only that key."""

        async def guarded(key: str) -> bool:
            try:
                succeeded = await handle(key)
            except Exception as error:  # noqa: BLE001 - whatever it is, it costs this key only
                self.record_failure(task, key, error)
                return False
            if succeeded:
                self.clear(task, key)
            return succeeded

        return guarded
