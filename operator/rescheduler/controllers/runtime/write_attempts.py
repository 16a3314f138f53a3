"""Failed writes of a drain or a node: why each write failed, and when it is retried."""

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

import structlog

from rescheduler.controllers.runtime.clock import Clock
from rescheduler.core.eviction import write_refusals
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.core.eviction.write_refusals import WriteFailure, WriteOperation
from rescheduler.kube.client import ApiError

log = structlog.get_logger("rescheduler.runtime.write_attempts")


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
    """Write attempts of one drain or one node; each log line has `log_fields`."""

    def __init__(self, clock: Clock, **log_fields: str) -> None:
        self._clock, self._log_fields = clock, log_fields
        self._failures: dict[WriteOperation, _Failure] = {}
        self._due_at: dict[Hashable, float] = {}  # monotonic

    def is_due(self, operation: Hashable) -> bool:
        """Whether the operation may be tried now."""
        return self.seconds_until_due(operation) <= 0

    def seconds_until_due(self, operation: Hashable) -> float:
        """Return the seconds until the operation may be tried."""
        return max(0.0, self._due_at.get(operation, float("-inf")) - self._clock.monotonic())

    def seconds_until_next(self, *operations: WriteOperation) -> float:
        """Return the seconds until the next failed operation is due; infinity if none is.

        `operations`: consider only these; without arguments all. An operation that is already due, but was not tried,
        is not needed now and does not count.
        """
        waits = (
            self.seconds_until_due(operation)
            for operation in self._failures
            if operation in (operations or WriteOperation)
        )
        return min((wait for wait in waits if wait > 0), default=float("inf"))

    @property
    def has_failures(self) -> bool:
        """Whether an operation fails."""
        return bool(self._failures)

    @property
    def has_postponed(self) -> bool:
        """Whether an operation is not due yet."""
        return max(map(self.seconds_until_due, self._due_at), default=0.0) > 0

    def reported_failures(self) -> tuple[WriteFailure, ...]:
        """Return the failures that a user must see, in the order of WriteOperation."""
        return tuple(
            WriteFailure(operation, write_refusals.describe(failure.refusal))
            for operation in WriteOperation
            if (failure := self._failures.get(operation)) and failure.is_reported
        )

    def fails(self, operation: WriteOperation) -> bool:
        """Whether the last attempt of the operation failed."""
        return operation in self._failures

    def is_reported(self, operation: WriteOperation) -> bool:
        """Whether the operation fails, and a user must see the failure."""
        failure = self._failures.get(operation)
        return failure is not None and failure.is_reported

    def may_other_write_pass(self, operation: WriteOperation) -> bool:
        """Whether the operation failed, and a smaller write may succeed."""
        failure = self._failures.get(operation)
        return failure is not None and write_refusals.may_other_write_pass(failure.refusal, failure.failures)

    def is_permanent(self, operation: WriteOperation) -> bool:
        """Whether the operation was refused, and only a user can fix the cause."""
        return operation in self._failures and write_refusals.is_permanent(self._failures[operation].refusal)

    async def attempt(self, operation: WriteOperation, write: Callable[[], Awaitable[object]]) -> bool:
        """Try the operation if it is due; whether it succeeded.

        Raises the errors after which the caller must decide again: UnreachableError, NotLeaderError and conflicts.
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
        """Record a failure; return the seconds until the next attempt."""
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
        """Do not try the operation for these seconds, even if the current attempt fails."""
        self._due_at[operation] = self._clock.monotonic() + seconds

    def reassign_failure(self, operation: WriteOperation, cause: WriteOperation) -> None:
        """Record the failure of an operation for a part of it; the operation may continue without that part.

        The failure count of the operation stays. If it also fails without the part, its delay grows further.
        """
        if failure := self._failures.get(operation):
            self._failures[cause], self._due_at[cause] = failure, self._due_at[operation]
            self._due_at.pop(operation)

    def clear(self, *operations: WriteOperation) -> None:
        """Forget the failures of operations that succeeded or are no longer needed."""
        for operation in operations:
            if self._failures.pop(operation, None):
                self._due_at.pop(operation, None)
