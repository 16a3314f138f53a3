"""Reasons why a drain waits: the reasons of `Progressing=False`."""

from dataclasses import dataclass
from enum import StrEnum


class ProgressingReason(StrEnum):
    """Reason of the condition `Progressing` of a waiting drain (docs/reference/conditions.md)."""

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
"""A drain that waits for one of these reasons waits for a slot. It starts when another drain ends."""
RECHECK_REASONS = (ProgressingReason.FLAPPING, ProgressingReason.CANCELLED, ProgressingReason.STORM)
"""A started drain that waits for one of these reasons must be admitted again before it continues."""

SUSPECTED = "Suspected"
"""Reason of `Progressing=True` of a drain whose only evidence of a failure is a Lease without renewals."""


@dataclass(frozen=True, slots=True)
class WaitReason:
    """Reason why a drain waits, with a message for users."""

    reason: ProgressingReason
    message: str
