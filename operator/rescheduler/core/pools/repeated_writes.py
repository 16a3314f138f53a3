"""The pace of writes that another client undoes, such as a GitOps tool that sets labels back to its manifests.

Both clients would otherwise write as fast as they can, for as long as both run.
"""

from dataclasses import dataclass

from rescheduler.core.eviction import write_refusals

_REPORTED_AFTER = 3  # undone writes; a person undoes one by mistake
_FORGOTTEN_AFTER = 300.0
"""Seconds without another write: some GitOps tools look only every 3 minutes."""


@dataclass(frozen=True, slots=True)
class RepeatedWrite:
    """The writes of one value on one object.

    Attributes:
        undone: how often other clients have undone it.
        written_at: time of the last write, in monotonic seconds.
    """

    undone: int
    written_at: float

    def seconds_until_due(self, now: float) -> float:
        """Return the seconds until the value may be written again."""
        return max(0.0, self.written_at + write_refusals.backoff_delay(self.undone + 1) - now)

    def seconds_until_forgotten(self, now: float) -> float:
        """Return the seconds until the value counts as one that nobody undoes."""
        return max(0.0, self.written_at + _FORGOTTEN_AFTER - now)

    def is_reported(self, now: float) -> bool:
        """Whether to report that another client keeps undoing the write."""
        return self.undone >= _REPORTED_AFTER and self.seconds_until_forgotten(now) > 0


def after_write(before: RepeatedWrite | None, now: float) -> RepeatedWrite:
    """Return the record of a write at `now`; the same write soon after the last one means that the last was undone."""
    return RepeatedWrite(before.undone + 1 if before and before.seconds_until_forgotten(now) > 0 else 0, now)
