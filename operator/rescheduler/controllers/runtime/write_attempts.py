"""The writes of one drain or node that failed: why each failed, and when each may be tried again."""

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

import structlog

from rescheduler.controllers.runtime.clock import Clock
from rescheduler.core.eviction import write_refusals
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.core.eviction.write_refusals import WriteFailure, WriteOperation
from rescheduler.kube.client import ApiError

log = structlog.get_logger("rescheduler.attempts")


@dataclass(frozen=True, slots=True)
class _Failure:
    refusal: ErrorResponse
    failures: int
    since: float  # monotonic
    last_failed_at: float

    @property
    def is_reported(self) -> bool:
        return write_refusals.is_reported(self.refusal, self.failures, self.last_failed_at - self.since)


class WriteAttempts:
    """One drain's, or one node's; `about` is in each line of the log."""

    def __init__(self, clock: Clock, **log_fields: str) -> None:
        self._clock, self._log_fields = clock, log_fields
        self._failures: dict[WriteOperation, _Failure] = {}
        self._due_at: dict[Hashable, float] = {}  # monotonic

    def is_due(self, operation: Hashable) -> bool:
        """Whether it may be tried now."""
        return self.seconds_until_due(operation) <= 0

    def seconds_until_due(self, operation: Hashable) -> float:
        """Return the seconds until it may be tried."""
        return max(0.0, self._due_at.get(operation, float("-inf")) - self._clock.monotonic())

    def seconds_until_next(self, *acts: WriteOperation) -> float:
        """Return the seconds until one of these acts (all, if none is named) that failed is due; infinity if none will be.

        What is due already and was not tried is not wanted now: nobody has to hurry for it.
        """
        waits = (self.seconds_until_due(act) for act in self._failures if act in (acts or WriteOperation))
        return min((wait for wait in waits if wait > 0), default=float("inf"))

    @property
    def has_failures(self) -> bool:
        """Whether anything fails."""
        return bool(self._failures)

    @property
    def has_postponed(self) -> bool:
        """Whether something is not to be tried yet."""
        return max(map(self.seconds_until_due, self._due_at), default=0.0) > 0

    def reported_failures(self) -> tuple[WriteFailure, ...]:
        """Return what a person is to hear of, always in the same order."""
        return tuple(
            WriteFailure(act, write_refusals.describe(found.refusal))
            for act in WriteOperation
            if (found := self._failures.get(act)) and found.is_reported
        )

    def is_reported(self, operation: WriteOperation) -> bool:
        """Whether the act fails, and a person is to hear of it."""
        found = self._failures.get(operation)
        return found is not None and found.is_reported

    def may_other_write_pass(self, operation: WriteOperation) -> bool:
        """Whether the act failed, and a smaller write may go through."""
        found = self._failures.get(operation)
        return found is not None and write_refusals.may_other_write_pass(found.refusal, found.failures)

    def is_permanent(self, operation: WriteOperation) -> bool:
        """Whether the act was refused, and only a person can end that."""
        return operation in self._failures and write_refusals.is_permanent(self._failures[operation].refusal)

    async def attempt(self, operation: WriteOperation, write: Callable[[], Awaitable[object]]) -> bool:
        """Do it if it is due; whether it went through.

        Raises what makes all else pointless too: no answer, no lead, and a conflict, after which all is decided again.
        """
        if not self.is_due(operation):
            return False
        try:
            await write()
        except ApiError as error:
            if write_refusals.is_conflict(error.response):
                raise
            self.record_failure(operation, error)
            return False
        self.clear(operation)
        return True

    def record_failure(self, operation: WriteOperation, error: Exception) -> float:
        """Note a failure; seconds until it may be tried again."""
        before = self._failures.get(operation)
        refusal = error.response if isinstance(error, ApiError) else ErrorResponse(0, message=str(error))
        failures = before.failures + 1 if before else 1
        wait = write_refusals.retry_delay(refusal, failures)
        now = self._clock.monotonic()
        self._due_at[operation] = now + wait
        self._failures[operation] = _Failure(refusal, failures, before.since if before else now, now)
        log.warning(
            "write.failed", **self._log_fields, act=operation.name.lower(), error=str(error), again=round(wait, 1)
        )
        return wait

    def postpone(self, operation: Hashable, seconds: float) -> None:
        """Do not try it again for so long, whatever comes of it now."""
        self._due_at[operation] = self._clock.monotonic() + seconds

    def reassign_failure(self, operation: WriteOperation, cause: WriteOperation) -> None:
        """The act failed because of another that it includes: note that of the other, and let the act go on without it.

        What was counted stays: an act that fails without the other too is retried ever later.
        """
        if found := self._failures.get(operation):
            self._failures[cause], self._due_at[cause] = found, self._due_at[operation]
            self._due_at.pop(operation)

    def clear(self, *acts: WriteOperation) -> None:
        """These are not wanted any more, or went through."""
        for act in acts:
            if self._failures.pop(act, None):
                self._due_at.pop(act, None)
