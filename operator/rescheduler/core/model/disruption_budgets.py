"""PodDisruptionBudgets: which covers a pod, and whether it would let it go now."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from rescheduler.api.selectors import LabelSelector
from rescheduler.api.untrusted import text
from rescheduler.core.model import object_schemas
from rescheduler.core.model.pods import Pod

_MOST_WORDS = 500  # characters of a condition's message that are kept


@dataclass(frozen=True, slots=True)
class Budget:
    """A PodDisruptionBudget, spec and status in one record.

    Attributes:
        selector: None selects nothing.
        rule: what the spec says, "minAvailable 3"; empty where nothing.
        allowed: disruptionsAllowed; `healthy`, `needed`, `expected`: pod counts of its status.
        disrupted: pods that were evicted and are not replaced yet, as far as the status knows.
        observed: the status speaks of the spec as it is.
        sync_failed: why the disruption controller cannot compute it, in its words; empty if it can.
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
    disrupted: int = 0
    observed: bool = True
    sync_failed: str = ""

    @property
    def misconfigured(self) -> bool:
        """Observed, every expected pod healthy, none on its way out, and still none allowed: it never will."""
        whole = self.expected > 0 and self.healthy >= self.expected and not self.disrupted
        return self.observed and self.allowed <= 0 and whole

    @property
    def remedy(self) -> str:
        """What to change so that it can ever allow one: a budget that is a share of all is not helped by more pods."""
        field, _, value = self.rule.partition(" ")
        if field == "maxUnavailable":
            return f"raise {self.rule} of PodDisruptionBudget {self.name}"
        more = "" if value == "100%" else ", or add replicas"
        return f"lower {self.rule or 'minAvailable'} of PodDisruptionBudget {self.name}{more}"

    def spends(self, pod: Pod) -> bool:
        """Whether an eviction of the pod takes one of those allowed, by the server's own rules (eviction.go)."""
        free = not pod.ready and (self.always_allow or self.healthy >= self.needed > 0)
        return pod.counts_in_budgets and not free

    def would_allow(self, pod: Pod) -> bool:
        """Whether an eviction sent now should pass, by the server's own rules (eviction.go)."""
        return not self.spends(pod) or (self.observed and self.allowed > 0)

    def spent(self) -> "Budget":
        """Return the budget as it is after one more eviction."""
        return replace(self, allowed=max(0, self.allowed - 1), disrupted=self.disrupted + 1)

    def exhausted(self) -> "Budget":
        """Return the budget as it is if others have taken all that it allowed."""
        return replace(self, allowed=0, disrupted=self.disrupted + 1)


_RULES = ("minAvailable", "maxUnavailable")
_MOST_RULE = 64


@lru_cache(maxsize=10_000)
def _selector(json_text: str) -> LabelSelector:
    """The same object for the same selector: a status that changes many times a second brings no new one."""
    return LabelSelector.model_validate_json(json_text)


def budget(raw: Mapping[str, Any]) -> Budget:
    """Project a raw PodDisruptionBudget. Raises UnreadableError without name, namespace or UID, or with a selector unknown here."""
    raw = object_schemas.budget(raw)
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
        disrupted=len(disrupted) if isinstance(disrupted := status.get("disruptedPods"), Mapping) else 0,
        observed=status.get("observedGeneration", 0) >= meta.get("generation", 0),
        sync_failed=_sync_failed(status),
    )


def _sync_failed(status: Mapping[str, Any]) -> str:
    """Return the controller's words; a sync that fails leaves `observedGeneration` as it was."""
    for condition in status.get("conditions") or ():
        failed = condition.get("reason") == "SyncFailed" and condition.get("status") == "False"
        if condition.get("type") == "DisruptionAllowed" and failed:
            return str(condition.get("message") or "no words")[:_MOST_WORDS]
    return ""


def covering(pod: Pod, budgets: Iterable[Budget]) -> tuple[Budget, ...]:
    """The budgets whose selector matches the pod, by name.

    An empty selector matches every pod of the namespace (policy/v1).
    """
    found = (b for b in budgets if b.namespace == pod.namespace and b.selector and b.selector.matches(pod.labels))
    return tuple(sorted(found, key=lambda b: b.name))
