"""Track the Leases of kubelets: find silent nodes, and blackouts of the operator's own view.

Times are those at which the operator observed a change. The times in a Lease are never used, because clocks of nodes are
skewed. A silent Lease is a suspicion and never a proof.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from math import ceil, inf
from typing import Any, NamedTuple

from rescheduler.api.policies import ReschedulePolicy
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node

DEFAULT_LEASE_DURATION = 40.0  # seconds; the default of the kubelet
_MIN_DURATION, _MAX_DURATION = DEFAULT_LEASE_DURATION, 600.0
"""Seconds; bounds of a duration. A node whose Lease claims to last a day is still silent after 5 m."""
_OUTAGE_WINDOW = 60.0  # seconds; Leases of one outage stop within this time of each other
_BLACKOUT_MIN_NODES, _BLACKOUT_MIN_FRACTION = 3, 0.6


def bounded_duration(duration_seconds: Any) -> float:
    """Return the duration of a Lease in seconds, from its `leaseDurationSeconds`; bounded, because any node writes it."""
    if isinstance(duration_seconds, bool) or not isinstance(duration_seconds, int) or duration_seconds <= 0:
        return DEFAULT_LEASE_DURATION
    return float(min(max(duration_seconds, _MIN_DURATION), _MAX_DURATION))


def renewal_interval(duration: float) -> float:
    """Return the seconds within which a kubelet renews a Lease of this duration: a quarter of it, with jitter."""
    return duration * 11 / 40


def late_after(duration: float) -> float:
    """Return the seconds after which a Lease of this duration is late, and may become silent with others."""
    return duration * 12 / 40


def silent_after(duration: float) -> float:
    """Return the seconds after which a Lease of this duration is silent: two renewals of its kubelet."""
    return duration / 2


def lease_timeout(policy: ReschedulePolicy | None, duration: float) -> float | None:
    """Return the seconds without a renewal after which a node is suspected; None if the policy suspects no node.

    The timeout is at least one renewal interval of a Lease of this duration.
    """
    if policy is None or not policy.spec.failure.enabled or not policy.spec.failure.lease_timeout:
        return None
    return max(renewal_interval(duration), policy.spec.failure.lease_timeout.total_seconds())


def silence_offsets(nodes: Iterable[Node]) -> dict[str, float]:
    """Return for each node with Ready=Unknown how many seconds before the last of them its status changed."""
    unknown_since = {
        node.name: ready.last_transition
        for node in nodes
        if (ready := node.condition("Ready")) and ready.status == CONDITION_UNKNOWN and ready.last_transition
    }
    last = max(unknown_since.values(), default=None)
    return {name: (last - since).total_seconds() for name, since in unknown_since.items() if last}


class LeaseRenewal(NamedTuple):
    """The last observed renewal of one Lease.

    Attributes:
        renew_time: the `renewTime` of the Lease, used only to detect a change.
        seen_at: when the operator observed it, in monotonic seconds.
        duration: the duration of the Lease, in seconds.
    """

    renew_time: str
    seen_at: float
    duration: float = DEFAULT_LEASE_DURATION


@dataclass(slots=True)
class LeaseTracker:
    """The renewals of all Leases, by the name of the node.

    Attributes:
        renewals: the last observed renewal, the oldest first.
        unconfirmed: nodes without a renewal since `reset`; they may have been silent before it.
        presumed_silent_since: for nodes without a renewal since `reset`, when they became silent by the node controller
            or by the operator before the reset; monotonic seconds.
    """

    renewals: dict[str, LeaseRenewal] = field(default_factory=dict)
    unconfirmed: set[str] = field(default_factory=set)
    presumed_silent_since: dict[str, float] = field(default_factory=dict)

    def record_lease(self, name: str, renew_time: str, now: float, duration: float = DEFAULT_LEASE_DURATION) -> None:
        """Record a Lease; a Lease with an unchanged `renewTime` changes nothing."""
        known = self.renewals.get(name)
        if known is None or known.renew_time != renew_time:
            self.renewals.pop(name, None)  # the new renewal is the last of the order
            self.renewals[name] = LeaseRenewal(renew_time, now, duration)
            self._mark_renewed(name)

    def forget(self, name: str) -> None:
        """Forget a deleted Lease."""
        self.renewals.pop(name, None)
        self._mark_renewed(name)

    def _mark_renewed(self, name: str) -> None:
        self.unconfirmed.discard(name)
        self.presumed_silent_since.pop(name, None)

    def reset(self, now: float, *, blackout: bool = False) -> None:
        """Count all Leases as renewed now, at the start of the operator or after its view was interrupted.

        `blackout`: there was a blackout before. It lasts until the silent Leases are renewed.
        """
        before = {name: self.last_renewed(name) for name in self.renewals} if blackout else {}
        self.renewals = {name: renewal._replace(seen_at=now) for name, renewal in self.renewals.items()}
        self.unconfirmed, self.presumed_silent_since = set(self.renewals), before

    def presume_silent(self, silence_offsets: Mapping[str, float], now: float) -> None:
        """Presume that nodes were silent before the reset if the node controller does not hear of them either.

        A blackout must outlast a restart of the operator. `silence_offsets`: by node, how many seconds before the last of
        these nodes the node controller noticed it.
        """
        for name in sorted(self.unconfirmed):
            renewal = self.renewals[name]
            if name in silence_offsets:
                self.presumed_silent_since[name] = min(
                    renewal.seen_at, now - silent_after(renewal.duration) - silence_offsets[name]
                )
            if name in silence_offsets or now - renewal.seen_at >= silent_after(renewal.duration):
                self.unconfirmed.discard(name)

    def last_renewed(self, name: str) -> float:
        """Return when the Lease was last renewed, observed or presumed; monotonic seconds."""
        return self.presumed_silent_since.get(name, self.renewals[name].seen_at)

    def duration_of(self, name: str) -> float:
        """Return the duration of the node's Lease, in seconds."""
        known = self.renewals.get(name)
        return known.duration if known else DEFAULT_LEASE_DURATION

    def overdue_nodes(self, now: float) -> list[str]:
        """Return the nodes whose Lease has not been renewed for the shortest of all limits; no other node is silent.

        It looks only at these: of 5,000 nodes every second, all others would cost a large part of the processor.
        """
        latest = now - renewal_interval(_MIN_DURATION)
        return [name for name, _ in takewhile(lambda renewal: renewal[1].seen_at <= latest, self.renewals.items())]

    def silent_nodes(self, limits: Mapping[str, float], now: float) -> frozenset[str]:
        """Return the nodes whose Lease has not been renewed for their limit; `limits`: seconds by name."""
        return frozenset(
            name
            for name, limit in limits.items()
            if (known := self.renewals.get(name)) and now - known.seen_at >= limit
        )

    def renewing_nodes(self, names: Iterable[str], now: float) -> frozenset[str]:
        """Return the nodes whose Lease is renewed in time, so that their kubelet is alive."""
        return frozenset(
            name
            for name in names
            if (known := self.renewals.get(name))
            and name not in self.unconfirmed
            and name not in self.presumed_silent_since
            and now - known.seen_at < renewal_interval(known.duration)
        )

    def next_renewal_within(self) -> float:
        """Return the seconds within which at least one Lease is renewed; infinite without any Lease."""
        return min((renewal_interval(renewal.duration) for renewal in self.renewals.values()), default=inf)

    def blackout_size(self, now: float) -> int:
        """Return the number of Leases that stopped together if it means a blackout, else 0.

        So many nodes do not fail at once: the network or the operator's view has failed.
        """
        if len(self.renewals) < _BLACKOUT_MIN_NODES:
            return 0
        threshold = ceil(_BLACKOUT_MIN_FRACTION * len(self.renewals))
        overdue = self.presumed_silent_since.keys() | self.overdue_nodes(now)
        if len(overdue) < threshold:
            return 0
        silent = {
            name: last
            for name in overdue
            if now - (last := self.last_renewed(name)) >= silent_after(self.duration_of(name))
        }
        if len(silent) < threshold:
            return 0
        # With long durations the Leases of one outage stop further apart than the window.
        window = max(_OUTAGE_WINDOW, *(renewal_interval(self.duration_of(name)) for name in silent))
        stops = sorted(silent.values())
        together = max(bisect_left(stops, first + window) - index for index, first in enumerate(stops))
        return together if together >= threshold else 0
