"""Why a drain may not go on: the reasons of `Progressing=False`."""

from dataclasses import dataclass
from enum import StrEnum


class Hold(StrEnum):
    """The reasons by name."""

    GATED = "Gated"
    WINDOW = "Window"
    MAX_CONCURRENT = "MaxConcurrent"
    MAX_UNAVAILABLE = "MaxUnavailable"
    TOPOLOGY = "Topology"
    POOL_BUDGET = "PoolBudget"
    CONTROL_PLANE = "ControlPlane"
    STORM = "Storm"
    FLAPPING = "Flapping"
    SUSPENDED = "Suspended"
    AUDIT = "Audit"
    OWNED_ELSEWHERE = "OwnedElsewhere"
    NO_POLICY = "NoPolicy"
    CANCELLED = "Cancelled"
    DISABLED = "Disabled"
    UNCORDONED = "Uncordoned"
    STALE_VIEW = "StaleView"


IN_LINE = (Hold.MAX_CONCURRENT, Hold.MAX_UNAVAILABLE, Hold.TOPOLOGY, Hold.POOL_BUDGET)
"""Nodes held back so wait for their turn: it comes."""
RESTING = (Hold.FLAPPING, Hold.CANCELLED, Hold.STORM)
"""What has begun and rests so is begun anew: it asks again whether it may."""

SUSPECTED = "Suspected"
"""The reason of `Progressing=True` of a drain for which nothing but a silent Lease speaks."""


@dataclass(frozen=True, slots=True)
class Held:
    """One reason to wait, in words that a person can act on."""

    reason: Hold
    message: str
