"""PodDisruptionBudgets: which covers a pod, and whether it would let it go now."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rescheduler.api.selectors import LabelSelector
from rescheduler.api.untrusted import text
from rescheduler.core import shapes
from rescheduler.core.pods import Pod


@dataclass(frozen=True, slots=True)
class Budget:
    """A PodDisruptionBudget, spec and status in one record.

    Attributes:
        selector: None selects nothing.
        rule: what the spec says, "minAvailable 3"; empty where nothing.
        allowed: disruptionsAllowed; `healthy`, `needed`, `expected`: pod counts of its status.
        observed: the status speaks of the spec as it is.
    """

    namespace: str
    name: str
    uid: str
    version: str = ""
    selector: LabelSelector | None = None
    always_allow: bool = False
    rule: str = ""
    allowed: int = 0
    healthy: int = 0
    needed: int = 0
    expected: int = 0
    observed: bool = True

    @property
    def misconfigured(self) -> bool:
        """Observed, every expected pod healthy, and still none allowed: it never will (DESIGN 2)."""
        return self.observed and self.allowed == 0 and self.expected > 0 and self.healthy >= self.expected

    @property
    def remedy(self) -> str:
        """What to change so that it can ever allow one: a budget that is a share of all is not helped by more pods."""
        field, _, value = self.rule.partition(" ")
        if field == "maxUnavailable":
            return f"raise {self.rule} of PodDisruptionBudget {self.name}"
        more = "" if value == "100%" else ", or add replicas"
        return f"lower {self.rule or 'minAvailable'} of PodDisruptionBudget {self.name}{more}"

    def would_allow(self, pod: Pod) -> bool:
        """Whether an eviction sent now should pass, by the server's own rules (eviction.go)."""
        if self.allowed > 0 or pod.phase in ("Pending", "Succeeded", "Failed"):
            return True
        return not pod.ready and (self.always_allow or self.healthy >= self.needed > 0)


_RULES = ("minAvailable", "maxUnavailable")
_MOST_RULE = 64


@lru_cache(maxsize=10_000)
def _selector(json_text: str) -> LabelSelector:
    """The same object for the same selector: a status that changes many times a second brings no new one."""
    return LabelSelector.model_validate_json(json_text)


def budget(raw: Mapping[str, Any]) -> Budget:
    """Project a raw PodDisruptionBudget. Raises UnreadableError without name, namespace or UID, or with a selector unknown here."""
    raw = shapes.budget(raw)
    meta, spec, status = raw["metadata"], raw["spec"], raw["status"]
    selector = spec.get("selector")
    return Budget(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        version=meta.get("resourceVersion", ""),
        selector=None if selector is None else _selector(json.dumps(selector)),
        rule=text(next((f"{field} {spec[field]}" for field in _RULES if field in spec), ""), _MOST_RULE),
        always_allow=spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow",
        allowed=status.get("disruptionsAllowed", 0),
        healthy=status.get("currentHealthy", 0),
        needed=status.get("desiredHealthy", 0),
        expected=status.get("expectedPods", 0),
        observed=status.get("observedGeneration", 0) >= meta.get("generation", 0),
    )


def covering(pod: Pod, budgets: Iterable[Budget]) -> tuple[Budget, ...]:
    """The budgets whose selector matches the pod, by name.

    An empty selector matches every pod of the namespace (policy/v1).
    """
    found = (b for b in budgets if b.namespace == pod.namespace and b.selector and b.selector.matches(pod.labels))
    return tuple(sorted(found, key=lambda b: b.name))
