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
    STORM = "Storm"
    SUSPENDED = "Suspended"
    AUDIT = "Audit"
    NO_POLICY = "NoPolicy"
    DISABLED = "Disabled"
    UNCORDONED = "Uncordoned"
    STALE_VIEW = "StaleView"


IN_LINE = (Hold.MAX_CONCURRENT, Hold.MAX_UNAVAILABLE, Hold.TOPOLOGY)
"""Nodes held back so wait for their turn: it comes."""


@dataclass(frozen=True, slots=True)
class Held:
    """One reason to wait, in words that a person can act on."""

    reason: Hold
    message: str
