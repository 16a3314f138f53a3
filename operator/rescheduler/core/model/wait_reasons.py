"""Why a drain may not go on: the reasons of `Progressing=False`."""

from dataclasses import dataclass
from enum import StrEnum


class ProgressingReason(StrEnum):
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


QUEUED_REASONS = (
    ProgressingReason.MAX_CONCURRENT,
    ProgressingReason.MAX_UNAVAILABLE,
    ProgressingReason.TOPOLOGY,
    ProgressingReason.POOL_BUDGET,
)
"""Nodes held back so wait for their turn: it comes."""
RECHECK_REASONS = (ProgressingReason.FLAPPING, ProgressingReason.CANCELLED, ProgressingReason.STORM)
"""What has begun and rests so is begun anew: it asks again whether it may."""

SUSPECTED = "Suspected"
"""The reason of `Progressing=True` of a drain for which nothing but a silent Lease speaks."""


@dataclass(frozen=True, slots=True)
class WaitReason:
    """One reason to wait, in words that a person can act on."""

    reason: ProgressingReason
    message: str
