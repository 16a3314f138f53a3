"""Rules of the Lease election: when a process may take a Lease, judged by its own clock.

Clocks of machines differ. Therefore `renewTime` is never compared with a clock. It is only compared with its previous
value, as in the leader election of client-go.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LeaseTimings:
    """Durations of an election, in seconds.

    Attributes:
        lease_duration: a Lease without a change for this long is free.
        renew_deadline: a holder without a renewal for this long stops; less than `lease_duration`.
        retry_period: time between two attempts to renew or take the Lease.
    """

    lease_duration: float
    renew_deadline: float
    retry_period: float


PROCESS_TIMINGS = LeaseTimings(15.0, 10.0, 2.0)
"""Timings of the election between the processes of an installation."""
INSTALLATION_TIMINGS = LeaseTimings(120.0, 60.0, 5.0)
"""Timings of the election between installations. They outlast an upgrade, so another installation does not take over."""


@dataclass(frozen=True, slots=True)
class ObservedLease:
    """Lease as this process has observed it.

    Attributes:
        holder: identity in the Lease; empty if no process holds it.
        renew_time: `renewTime` as the holder wrote it last.
        observed_at: when this process first saw these values, in monotonic seconds.
        holder_is_alive: this process saw the holder renew the Lease.
    """

    holder: str = ""
    renew_time: str = ""
    observed_at: float = 0.0
    holder_is_alive: bool = False

    def updated(self, holder: str, renew_time: str, now: float) -> "ObservedLease":
        """Return the observation after one more read of the Lease."""
        if (holder, renew_time) == (self.holder, self.renew_time):
            return self
        return ObservedLease(holder, renew_time, now, holder_is_alive=bool(holder) and holder == self.holder)

    def expires_at(self, timings: LeaseTimings) -> float:
        """Return when the Lease is free without a renewal, in monotonic seconds."""
        return self.observed_at + timings.lease_duration

    def is_free(self, identity: str, timings: LeaseTimings, now: float) -> bool:
        """Whether `identity` may take the Lease, or renew it."""
        return self.holder in ("", identity) or now >= self.expires_at(timings)
