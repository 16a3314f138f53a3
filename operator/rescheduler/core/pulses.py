"""The Leases of kubelets, by when we saw each change: who has fallen silent, and whether that is us.

Never by what a kubelet wrote into its Lease: its clock is its own. Silence is a suspicion and never a proof.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

SILENCE = 20.0  # seconds; two renewals of a kubelet's Lease
LATE = 12.0
"""Seconds; a kubelet renews its Lease every 10 s: one so late may be falling silent with those that are."""
_TOGETHER = 60.0  # seconds; those of one outage fall silent within so long of each other
_LEAST, _SHARE = 3, 0.6


@dataclass(slots=True)
class Pulses:
    """When each node's Lease was last seen to change; monotonic seconds by the node's name.

    Attributes:
        seen: the renewal last seen, and when.
        unheard: those who were not seen to renew since `anew`, and who may have been silent for longer than we know.
        presumed: when those fell silent whom we have not heard of, as far as others, or we before, can tell.
    """

    seen: dict[str, tuple[str, float]] = field(default_factory=dict)
    unheard: set[str] = field(default_factory=set)
    presumed: dict[str, float] = field(default_factory=dict)

    def beat(self, name: str, renewal: str, now: float) -> None:
        """Take in a Lease; one that has not been renewed since changes nothing."""
        known = self.seen.get(name)
        if known is None or known[0] != renewal:
            self.seen[name] = (renewal, now)
            self._hear(name)

    def forget(self, name: str) -> None:
        """The Lease is gone."""
        self.seen.pop(name, None)
        self._hear(name)

    def _hear(self, name: str) -> None:
        self.unheard.discard(name)
        self.presumed.pop(name, None)

    def anew(self, now: float, *, blackout: bool = False) -> None:
        """At our start, or after we were blind for a while: all count as heard of just now.

        `blackout`: there was one when we went blind. It goes on until those who were silent then are heard of.
        """
        before = {name: self.last(name) for name in self.seen} if blackout else {}
        self.seen = {name: (renewal, now) for name, (renewal, _) in self.seen.items()}
        self.unheard, self.presumed = set(self.seen), before

    def presume(self, dark: Mapping[str, float], now: float) -> None:
        """Nodes that neither we nor the node controller have heard of were silent before: a blackout outlasts our start.

        `dark`: how long before the last of them each fell silent, by the node controller's stamps; seconds.
        """
        for name in sorted(self.unheard):
            if name in dark:
                self.presumed[name] = min(self.seen[name][1], now - SILENCE - dark[name])
            if name in dark or now - self.seen[name][1] >= SILENCE:
                self.unheard.discard(name)

    def last(self, name: str) -> float:
        """When the node was last heard of, as far as we or the node controller can tell."""
        return self.presumed.get(name, self.seen[name][1])

    def silent(self, limits: Mapping[str, float], now: float) -> frozenset[str]:
        """Nodes that were not heard of for longer than they may be; `limits`: seconds by name, others have none."""
        return frozenset(
            name for name, limit in limits.items() if (known := self.seen.get(name)) and now - known[1] >= limit
        )

    def blackout(self, now: float) -> int:
        """How many Leases fell silent together, where that is so many that it must be us, or the network; else 0."""
        if len(self.seen) < _LEAST:
            return 0
        ends = sorted(last for name in self.seen if now - (last := self.last(name)) >= SILENCE)
        least = ceil(_SHARE * len(self.seen))
        if len(ends) < least:
            return 0
        most = max(bisect_left(ends, first + _TOGETHER) - index for index, first in enumerate(ends))
        return most if most >= least else 0
