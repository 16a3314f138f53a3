"""The writes of one drain or node that failed: why each failed, and when each may be tried again."""

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

import structlog

from rescheduler.controllers.runtime.clock import Clock
from rescheduler.core.eviction import write_refusals
from rescheduler.core.eviction.api_responses import Refusal
from rescheduler.core.eviction.write_refusals import Act, Trouble
from rescheduler.kube.client import ApiError

log = structlog.get_logger("rescheduler.attempts")


@dataclass(frozen=True, slots=True)
class _Failure:
    refusal: Refusal
    failures: int
    since: float  # monotonic
    last: float

    @property
    def is_reported(self) -> bool:
        return write_refusals.is_reported(self.refusal, self.failures, self.last - self.since)


class Attempts:
    """One drain's, or one node's; `about` is in each line of the log."""

    def __init__(self, clock: Clock, **about: str) -> None:
        self._clock, self._about = clock, about
        self._failed: dict[Act, _Failure] = {}
        self._due: dict[Hashable, float] = {}  # monotonic

    def due(self, act: Hashable) -> bool:
        """Whether it may be tried now."""
        return self.wait(act) <= 0

    def wait(self, act: Hashable) -> float:
        """Return the seconds until it may be tried."""
        return max(0.0, self._due.get(act, float("-inf")) - self._clock.monotonic())

    def soonest(self, *acts: Act) -> float:
        """Return the seconds until one of these acts (all, if none is named) that failed is due; infinity if none will be.

        What is due already and was not tried is not wanted now: nobody has to hurry for it.
        """
        waits = (self.wait(act) for act in self._failed if act in (acts or Act))
        return min((wait for wait in waits if wait > 0), default=float("inf"))

    @property
    def any(self) -> bool:
        """Whether anything fails."""
        return bool(self._failed)

    @property
    def rests(self) -> bool:
        """Whether something is not to be tried yet."""
        return max(map(self.wait, self._due), default=0.0) > 0

    def troubles(self) -> tuple[Trouble, ...]:
        """Return what a person is to hear of, always in the same order."""
        return tuple(
            Trouble(act, write_refusals.cause(found.refusal))
            for act in Act
            if (found := self._failed.get(act)) and found.is_reported
        )

    def troubled(self, act: Act) -> bool:
        """Whether the act fails, and a person is to hear of it."""
        found = self._failed.get(act)
        return found is not None and found.is_reported

    def may_differ(self, act: Act) -> bool:
        """Whether the act failed, and a smaller write may go through."""
        found = self._failed.get(act)
        return found is not None and write_refusals.may_differ(found.refusal, found.failures)

    def lasting(self, act: Act) -> bool:
        """Whether the act was refused, and only a person can end that."""
        return act in self._failed and write_refusals.is_lasting(self._failed[act].refusal)

    async def make(self, act: Act, work: Callable[[], Awaitable[object]]) -> bool:
        """Do it if it is due; whether it went through.

        Raises what makes all else pointless too: no answer, no lead, and a conflict, after which all is decided again.
        """
        if not self.due(act):
            return False
        try:
            await work()
        except ApiError as error:
            if write_refusals.is_conflict(error.refusal):
                raise
            self.failed(act, error)
            return False
        self.clear(act)
        return True

    def failed(self, act: Act, error: Exception) -> float:
        """Note a failure; seconds until it may be tried again."""
        before = self._failed.get(act)
        refusal = error.refusal if isinstance(error, ApiError) else Refusal(0, message=str(error))
        failures = before.failures + 1 if before else 1
        wait = write_refusals.wait(refusal, failures)
        now = self._clock.monotonic()
        self._due[act] = now + wait
        self._failed[act] = _Failure(refusal, failures, before.since if before else now, now)
        log.warning("write.failed", **self._about, act=act.name.lower(), error=str(error), again=round(wait, 1))
        return wait

    def rest(self, act: Hashable, seconds: float) -> None:
        """Do not try it again for so long, whatever comes of it now."""
        self._due[act] = self._clock.monotonic() + seconds

    def blame(self, act: Act, other: Act) -> None:
        """The act failed because of another that it includes: note that of the other, and let the act go on without it.

        What was counted stays: an act that fails without the other too is retried ever later.
        """
        if found := self._failed.get(act):
            self._failed[other], self._due[other] = found, self._due[act]
            self._due.pop(act)

    def clear(self, *acts: Act) -> None:
        """These are not wanted any more, or went through."""
        for act in acts:
            if self._failed.pop(act, None):
                self._due.pop(act, None)
