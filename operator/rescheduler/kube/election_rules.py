"""Who may take a Lease, and when: by our own clock and by the changes that we see.

Clocks of machines differ: what others wrote into the Lease is compared with what they wrote before, and with nothing else.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LeaseTimings:
    """Seconds.

    Attributes:
        duration: after so long without a change the Lease is free.
        deadline: after so long without a renewal its holder stops; less than `duration`.
        retry: between two tries to renew or take it.
    """

    lease_duration: float
    renew_deadline: float
    retry_period: float


PROCESS_TIMINGS = LeaseTimings(15.0, 10.0, 2.0)
"""Which process of an installation leads."""
INSTALLATION_TIMINGS = LeaseTimings(120.0, 60.0, 5.0)
"""Which installation acts in the cluster: an upgrade or a restart must not hand it to another one."""


@dataclass(frozen=True, slots=True)
class ObservedLease:
    """A Lease as it was seen over time.

    Attributes:
        holder: who holds it; empty if nobody does.
        renewal: what the holder wrote last.
        since: when this was first seen; monotonic seconds.
        alive: the holder was seen to renew it.
    """

    holder: str = ""
    renew_time: str = ""
    observed_at: float = 0.0
    holder_is_alive: bool = False

    def updated(self, holder: str, renew_time: str, now: float) -> "ObservedLease":
        """Return what is known after another look."""
        if (holder, renew_time) == (self.holder, self.renew_time):
            return self
        return ObservedLease(holder, renew_time, now, holder_is_alive=bool(holder) and holder == self.holder)

    def expires_at(self, timings: LeaseTimings) -> float:
        """Return when the Lease is free for anybody unless it is renewed; monotonic seconds."""
        return self.observed_at + timings.lease_duration

    def is_free(self, identity: str, timings: LeaseTimings, now: float) -> bool:
        """Whether `identity` may take the Lease, or renew it."""
        return self.holder in ("", identity) or now >= self.expires_at(timings)
