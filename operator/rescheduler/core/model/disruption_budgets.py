"""PodDisruptionBudgets: which covers a pod, and whether it would let it go now."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from rescheduler.api.selectors import LabelSelector
from rescheduler.api.untrusted import bounded_text
from rescheduler.core.model import object_schemas
from rescheduler.core.model.pods import Pod

_MAX_MESSAGE_LENGTH = 500  # characters of a condition's message that are kept


@dataclass(frozen=True, slots=True)
class DisruptionBudget:
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
    resource_version: str = ""
    selector: LabelSelector | None = None
    always_allows_unhealthy: bool = False
    limit: str = ""
    allowed: int = 0
    healthy: int = 0
    needed: int = 0
    expected: int = 0
    disrupted: int = 0
    observed: bool = True
    sync_error: str = ""

    @property
    def misconfigured(self) -> bool:
        """Observed, every expected pod healthy, none on its way out, and still none allowed: it never will."""
        whole = self.expected > 0 and self.healthy >= self.expected and not self.disrupted
        return self.observed and self.allowed <= 0 and whole

    @property
    def remedy(self) -> str:
        """What to change so that it can ever allow one: a budget that is a share of all is not helped by more pods."""
        field, _, value = self.limit.partition(" ")
        if field == "maxUnavailable":
            return f"raise {self.limit} of PodDisruptionBudget {self.name}"
        more = "" if value == "100%" else ", or add replicas"
        return f"lower {self.limit or 'minAvailable'} of PodDisruptionBudget {self.name}{more}"

    def counts_eviction_of(self, pod: Pod) -> bool:
        """Whether an eviction of the pod takes one of those allowed, by the server's own rules (eviction.go)."""
        free = not pod.ready and (self.always_allows_unhealthy or self.healthy >= self.needed > 0)
        return pod.counts_in_budgets and not free

    def allows_eviction_of(self, pod: Pod) -> bool:
        """Whether an eviction sent now should pass, by the server's own rules (eviction.go)."""
        return not self.counts_eviction_of(pod) or (self.observed and self.allowed > 0)

    def after_eviction(self) -> "DisruptionBudget":
        """Return the budget as it is after one more eviction."""
        return replace(self, allowed=max(0, self.allowed - 1), disrupted=self.disrupted + 1)

    def as_exhausted(self) -> "DisruptionBudget":
        """Return the budget as it is if others have taken all that it allowed."""
        return replace(self, allowed=0, disrupted=self.disrupted + 1)


_LIMIT_FIELDS = ("minAvailable", "maxUnavailable")
_MAX_LIMIT_LENGTH = 64


@lru_cache(maxsize=10_000)
def _parse_selector(json_text: str) -> LabelSelector:
    """The same object for the same selector: a status that changes many times a second brings no new one."""
    return LabelSelector.model_validate_json(json_text)


def parse_budget(raw: Mapping[str, Any]) -> DisruptionBudget:
    """Project a raw PodDisruptionBudget. Raises UnreadableError without name, namespace or UID, or with a selector unknown here."""
    raw = object_schemas.sanitize_budget(raw)
    meta, spec, status = raw["metadata"], raw["spec"], raw["status"]
    selector = spec.get("selector")
    return DisruptionBudget(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta.get("resourceVersion", ""),
        selector=None if selector is None else _parse_selector(json.dumps(selector)),
        limit=bounded_text(
            next((f"{field} {spec[field]}" for field in _LIMIT_FIELDS if field in spec), ""), _MAX_LIMIT_LENGTH
        ),
        always_allows_unhealthy=spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow",
        allowed=status.get("disruptionsAllowed", 0),
        healthy=status.get("currentHealthy", 0),
        needed=status.get("desiredHealthy", 0),
        expected=status.get("expectedPods", 0),
        disrupted=len(disrupted) if isinstance(disrupted := status.get("disruptedPods"), Mapping) else 0,
        observed=status.get("observedGeneration", 0) >= meta.get("generation", 0),
        sync_error=_sync_error(status),
    )


def _sync_error(status: Mapping[str, Any]) -> str:
    """Return the controller's words; a sync that fails leaves `observedGeneration` as it was."""
    for condition in status.get("conditions") or ():
        failed = condition.get("reason") == "SyncFailed" and condition.get("status") == "False"
        if condition.get("type") == "DisruptionAllowed" and failed:
            return str(condition.get("message") or "no words")[:_MAX_MESSAGE_LENGTH]
    return ""


def budgets_for(pod: Pod, budgets: Iterable[DisruptionBudget]) -> tuple[DisruptionBudget, ...]:
    """The budgets whose selector matches the pod, by name.

    An empty selector matches every pod of the namespace (policy/v1).
    """
    found = (b for b in budgets if b.namespace == pod.namespace and b.selector and b.selector.matches(pod.labels))
    return tuple(sorted(found, key=lambda b: b.name))
