"""Findings of a check: the result of one question about the cluster."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """Weight of a finding. The order is the order of the output."""

    PROBLEM = "problem"  # hinders a drain, or a command of the plugin
    WARNING = "warning"  # can hinder a drain, or costs something during one
    NOTE = "note"  # good to know
    OK = "ok"  # checked, and nothing was found


LEVELS = tuple(Level)


class Topic(StrEnum):
    """The question that a finding answers. The order is the order of findings of one level."""

    RIGHTS = "rights"
    FEATURES = "features"
    INSTALLATION = "installation"
    BUDGETS = "budgets"
    PODS = "pods"
    REPLICAS = "replicas"
    ADMISSION = "admission"
    NEIGHBOURS = "neighbours"


_TOPICS = tuple(Topic)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one question.

    Attributes:
        state: what is the case, in one line.
        meaning: what it means for a drain; empty if the state says it.
        next_step: what the user can do; empty if nothing need be done.
        objects: the objects that the finding is about, such as `shop/db-0`.
    """

    level: Level
    topic: Topic
    state: str
    meaning: str = ""
    next_step: str = ""
    objects: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the finding with all its objects."""
        return {
            "level": self.level,
            "topic": self.topic,
            "state": self.state,
            "meaning": self.meaning,
            "nextStep": self.next_step,
            "objects": list(self.objects),
        }


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, the most important first. Findings of one level and topic keep their order."""
    return sorted(findings, key=lambda found: (LEVELS.index(found.level), _TOPICS.index(found.topic)))


def has_problem(findings: Iterable[Finding]) -> bool:
    """Whether a finding hinders a drain or a command."""
    return any(found.level is Level.PROBLEM for found in findings)
