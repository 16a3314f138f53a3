"""The Leases of kubelets, by when we saw each change: who has fallen silent, and whether that is us.

Never by what a kubelet wrote into its Lease: its clock is its own. Silence is a suspicion and never a proof.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, inf
from typing import Any

DURATION = 40.0  # seconds; of the Lease of a kubelet, unless it is configured otherwise
_SHORTEST, _LONGEST = DURATION, 600.0
"""Durations outside of these count as these: a Lease that says that it lasts a day is still found silent after 5 m."""
_TOGETHER = 60.0  # seconds; those of one outage fall silent within so long of each other
_LEAST, _SHARE = 3, 0.6


def duration(said: Any) -> float:
    """Return the duration of a Lease in seconds, from its `leaseDurationSeconds`: others write it, so it is bounded."""
    if isinstance(said, bool) or not isinstance(said, int) or said <= 0:
        return DURATION
    return float(min(max(said, _SHORTEST), _LONGEST))


def renewed(duration: float) -> float:
    """Return the seconds within which a kubelet renews a Lease of this duration: a quarter of it, with its jitter."""
    return duration * 11 / 40


def late(duration: float) -> float:
    """Return the seconds after which a Lease of this duration may be falling silent with those that are."""
    return duration * 12 / 40


def silence(duration: float) -> float:
    """Return the seconds after which a Lease of this duration is silent: two renewals of its kubelet."""
    return duration / 2


@dataclass(frozen=True, slots=True)
class Pulse:
    """What was last seen of one Lease: its renewal, when that was, by our clock, and how long it lasts; seconds."""

    renewal: str
    at: float
    duration: float = DURATION


@dataclass(slots=True)
class Pulses:
    """When each node's Lease was last seen to change; monotonic seconds by the node's name.

    Attributes:
        seen: the renewal last seen, and when.
        unheard: those who were not seen to renew since `anew`, and who may have been silent for longer than we know.
        presumed: when those fell silent whom we have not heard of, as far as others, or we before, can tell.
    """

    seen: dict[str, Pulse] = field(default_factory=dict)
    unheard: set[str] = field(default_factory=set)
    presumed: dict[str, float] = field(default_factory=dict)

    def beat(self, name: str, renewal: str, now: float, lasts: float = DURATION) -> None:
        """Take in a Lease; one that has not been renewed since changes nothing."""
        known = self.seen.get(name)
        if known is None or known.renewal != renewal:
            self.seen[name] = Pulse(renewal, now, lasts)
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
        self.seen = {name: replace(pulse, at=now) for name, pulse in self.seen.items()}
        self.unheard, self.presumed = set(self.seen), before

    def presume(self, dark: Mapping[str, float], now: float) -> None:
        """Nodes that neither we nor the node controller have heard of were silent before: a blackout outlasts our start.

        `dark`: how long before the last of them each fell silent, by the node controller's stamps; seconds.
        """
        for name in sorted(self.unheard):
            pulse = self.seen[name]
            if name in dark:
                self.presumed[name] = min(pulse.at, now - silence(pulse.duration) - dark[name])
            if name in dark or now - pulse.at >= silence(pulse.duration):
                self.unheard.discard(name)

    def last(self, name: str) -> float:
        """When the node was last heard of, as far as we or the node controller can tell."""
        return self.presumed.get(name, self.seen[name].at)

    def lasts(self, name: str) -> float:
        """The duration of the node's Lease; seconds."""
        known = self.seen.get(name)
        return known.duration if known else DURATION

    def silent(self, limits: Mapping[str, float], now: float) -> frozenset[str]:
        """Nodes that were not heard of for longer than they may be; `limits`: seconds by name, others have none."""
        return frozenset(
            name for name, limit in limits.items() if (known := self.seen.get(name)) and now - known.at >= limit
        )

    def heard(self, names: Iterable[str], now: float) -> frozenset[str]:
        """Those of these nodes whose kubelet lives, by their Leases."""
        return frozenset(
            name
            for name in names
            if (known := self.seen.get(name))
            and name not in self.unheard
            and name not in self.presumed
            and now - known.at < renewed(known.duration)
        )

    def rest(self) -> float:
        """For how many seconds there may be no renewal at all of those in view; for ever if none is."""
        return min((renewed(pulse.duration) for pulse in self.seen.values()), default=inf)

    def blackout(self, now: float) -> int:
        """How many Leases fell silent together, where that is so many that it must be us, or the network; else 0."""
        if len(self.seen) < _LEAST:
            return 0
        quiet = {
            name: last
            for name, pulse in self.seen.items()
            if now - (last := self.last(name)) >= silence(pulse.duration)
        }
        least = ceil(_SHARE * len(self.seen))
        if len(quiet) < least:
            return 0
        # Kubelets that renew more slowly fall silent one after another for longer.
        together = max(_TOGETHER, *(renewed(self.lasts(name)) for name in quiet))
        ends = sorted(quiet.values())
        most = max(bisect_left(ends, first + together) - index for index, first in enumerate(ends))
        return most if most >= least else 0
