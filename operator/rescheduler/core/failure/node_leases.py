"""The Leases of kubelets, by when we saw each change: who has fallen silent, and whether that is us.

Never by what a kubelet wrote into its Lease: its clock is its own. Silence is a suspicion and never a proof.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, inf
from typing import Any

DEFAULT_LEASE_DURATION = 40.0  # seconds; of the Lease of a kubelet, unless it is configured otherwise
_MIN_DURATION, _MAX_DURATION = DEFAULT_LEASE_DURATION, 600.0
"""Durations outside of these count as these: a Lease that says that it lasts a day is still found silent after 5 m."""
_OUTAGE_WINDOW = 60.0  # seconds; those of one outage fall silent within so long of each other
_BLACKOUT_MIN_NODES, _BLACKOUT_MIN_FRACTION = 3, 0.6


def bounded_duration(duration_seconds: Any) -> float:
    """Return the duration of a Lease in seconds, from its `leaseDurationSeconds`: others write it, so it is bounded."""
    if isinstance(duration_seconds, bool) or not isinstance(duration_seconds, int) or duration_seconds <= 0:
        return DEFAULT_LEASE_DURATION
    return float(min(max(duration_seconds, _MIN_DURATION), _MAX_DURATION))


def renewal_interval(duration: float) -> float:
    """Return the seconds within which a kubelet renews a Lease of this duration: a quarter of it, with its jitter."""
    return duration * 11 / 40


def late_after(duration: float) -> float:
    """Return the seconds after which a Lease of this duration may be falling silent with those that are."""
    return duration * 12 / 40


def silent_after(duration: float) -> float:
    """Return the seconds after which a Lease of this duration is silent: two renewals of its kubelet."""
    return duration / 2


@dataclass(frozen=True, slots=True)
class LeaseRenewal:
    """What was last seen of one Lease: its renewal, when that was, by our clock, and how long it lasts; seconds."""

    renew_time: str
    seen_at: float
    duration: float = DEFAULT_LEASE_DURATION


@dataclass(slots=True)
class LeaseTracker:
    """When each node's Lease was last seen to change; monotonic seconds by the node's name.

    Attributes:
        seen: the renewal last seen, and when.
        unheard: those who were not seen to renew since `anew`, and who may have been silent for longer than we know.
        presumed: when those fell silent whom we have not heard of, as far as others, or we before, can tell.
    """

    renewals: dict[str, LeaseRenewal] = field(default_factory=dict)
    unconfirmed: set[str] = field(default_factory=set)
    presumed_silent_since: dict[str, float] = field(default_factory=dict)

    def record_lease(self, name: str, renew_time: str, now: float, duration: float = DEFAULT_LEASE_DURATION) -> None:
        """Take in a Lease; one that has not been renewed since changes nothing."""
        known = self.renewals.get(name)
        if known is None or known.renew_time != renew_time:
            self.renewals[name] = LeaseRenewal(renew_time, now, duration)
            self._mark_renewed(name)

    def forget(self, name: str) -> None:
        """The Lease is gone."""
        self.renewals.pop(name, None)
        self._mark_renewed(name)

    def _mark_renewed(self, name: str) -> None:
        self.unconfirmed.discard(name)
        self.presumed_silent_since.pop(name, None)

    def reset(self, now: float, *, blackout: bool = False) -> None:
        """At our start, or after we were blind for a while: all count as heard of just now.

        `blackout`: there was one when we went blind. It goes on until those who were silent then are heard of.
        """
        before = {name: self.last_renewed(name) for name in self.renewals} if blackout else {}
        self.renewals = {name: replace(pulse, seen_at=now) for name, pulse in self.renewals.items()}
        self.unconfirmed, self.presumed_silent_since = set(self.renewals), before

    def presume_silent(self, silence_offsets: Mapping[str, float], now: float) -> None:
        """Nodes that neither we nor the node controller have heard of were silent before: a blackout outlasts our start.

        `dark`: how long before the last of them each fell silent, by the node controller's stamps; seconds.
        """
        for name in sorted(self.unconfirmed):
            pulse = self.renewals[name]
            if name in silence_offsets:
                self.presumed_silent_since[name] = min(
                    pulse.seen_at, now - silent_after(pulse.duration) - silence_offsets[name]
                )
            if name in silence_offsets or now - pulse.seen_at >= silent_after(pulse.duration):
                self.unconfirmed.discard(name)

    def last_renewed(self, name: str) -> float:
        """When the node was last heard of, as far as we or the node controller can tell."""
        return self.presumed_silent_since.get(name, self.renewals[name].seen_at)

    def duration_of(self, name: str) -> float:
        """The duration of the node's Lease; seconds."""
        known = self.renewals.get(name)
        return known.duration if known else DEFAULT_LEASE_DURATION

    def silent_nodes(self, limits: Mapping[str, float], now: float) -> frozenset[str]:
        """Nodes that were not heard of for longer than they may be; `limits`: seconds by name, others have none."""
        return frozenset(
            name
            for name, limit in limits.items()
            if (known := self.renewals.get(name)) and now - known.seen_at >= limit
        )

    def renewing_nodes(self, names: Iterable[str], now: float) -> frozenset[str]:
        """Those of these nodes whose kubelet lives, by their Leases."""
        return frozenset(
            name
            for name in names
            if (known := self.renewals.get(name))
            and name not in self.unconfirmed
            and name not in self.presumed_silent_since
            and now - known.seen_at < renewal_interval(known.duration)
        )

    def next_renewal_within(self) -> float:
        """For how many seconds there may be no renewal at all of those in view; for ever if none is."""
        return min((renewal_interval(pulse.duration) for pulse in self.renewals.values()), default=inf)

    def blackout_size(self, now: float) -> int:
        """How many Leases fell silent together, where that is so many that it must be us, or the network; else 0."""
        if len(self.renewals) < _BLACKOUT_MIN_NODES:
            return 0
        quiet = {
            name: last
            for name, pulse in self.renewals.items()
            if now - (last := self.last_renewed(name)) >= silent_after(pulse.duration)
        }
        least = ceil(_BLACKOUT_MIN_FRACTION * len(self.renewals))
        if len(quiet) < least:
            return 0
        # Kubelets that renew more slowly fall silent one after another for longer.
        together = max(_OUTAGE_WINDOW, *(renewal_interval(self.duration_of(name)) for name in quiet))
        ends = sorted(quiet.values())
        most = max(bisect_left(ends, first + together) - index for index, first in enumerate(ends))
        return most if most >= least else 0
