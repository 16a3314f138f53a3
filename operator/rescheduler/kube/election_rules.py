"""Who may take a Lease, and when: by our own clock and by the changes that we see.

Clocks of machines differ: what others wrote into the Lease is compared with what they wrote before, and with nothing else.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds.

    Attributes:
        duration: after so long without a change the Lease is free.
        deadline: after so long without a renewal its holder stops; less than `duration`.
        retry: between two tries to renew or take it.
    """

    duration: float
    deadline: float
    retry: float


PROCESS = Terms(15.0, 10.0, 2.0)
"""Which process of an installation leads."""
INSTALLATION = Terms(120.0, 60.0, 5.0)
"""Which installation acts in the cluster: an upgrade or a restart must not hand it to another one."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A Lease as it was seen over time.

    Attributes:
        holder: who holds it; empty if nobody does.
        renewal: what the holder wrote last.
        since: when this was first seen; monotonic seconds.
        alive: the holder was seen to renew it.
    """

    holder: str = ""
    renewal: str = ""
    since: float = 0.0
    alive: bool = False

    def then(self, holder: str, renewal: str, now: float) -> "Seen":
        """Return what is known after another look."""
        if (holder, renewal) == (self.holder, self.renewal):
            return self
        return Seen(holder, renewal, now, alive=bool(holder) and holder == self.holder)

    def expires(self, terms: Terms) -> float:
        """Return when the Lease is free for anybody unless it is renewed; monotonic seconds."""
        return self.since + terms.duration

    def is_free(self, identity: str, terms: Terms, now: float) -> bool:
        """Whether `identity` may take the Lease, or renew it."""
        return self.holder in ("", identity) or now >= self.expires(terms)
