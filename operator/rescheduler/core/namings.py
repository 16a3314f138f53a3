"""What selects pods by `pod-template-hash`: it would lose a pod whose hash is overwritten, so that one is not let go."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rescheduler.api import names
from rescheduler.api.selectors import LabelSelector
from rescheduler.core import shapes
from rescheduler.core.budgets import Budget
from rescheduler.core.pods import Pod


@dataclass(frozen=True, slots=True)
class Naming:
    """A Service's or NetworkPolicy's selector that names the hash; None where it does not."""

    name: str
    selector: LabelSelector | None


def naming(kind: str, field: str) -> Callable[[Mapping[str, Any]], Naming]:
    """Projects raw objects of a kind."""

    def project(raw: Mapping[str, Any]) -> Naming:
        raw = shapes.service(raw) if kind == "Service" else shapes.network_policy(raw)
        found = raw["spec"].get(field) or {}
        selector = LabelSelector.model_validate({"matchLabels": found} if kind == "Service" else found)
        return Naming(f"{kind} {raw['metadata']['name']}", selector if _names_hash(selector) else None)

    return project


def named(pod: Pod, namings: Iterable[Naming], covering: Iterable[Budget]) -> str:
    """What selects this pod by its hash, and would lose it; empty where nothing does."""
    for found in namings:
        if found.selector and found.selector.matches(pod.labels):
            return found.name
    return next((f"PodDisruptionBudget {b.name}" for b in covering if b.selector and _names_hash(b.selector)), "")


def _names_hash(selector: LabelSelector) -> bool:
    return names.HASH in selector.match_labels or any(r.key == names.HASH for r in selector.match_expressions)
