"""PodDisruptionBudgets: which budgets cover a pod, and whether they allow its eviction now."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from rescheduler.api.selectors import LabelSelector
from rescheduler.api.untrusted import bounded_text
from rescheduler.core.model import messages, object_schemas
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.raw import RawObject

_MAX_MESSAGE_LENGTH = 500  # characters of a condition's message that are kept


@dataclass(frozen=True, slots=True)
class DisruptionBudget:
    """A PodDisruptionBudget, spec and status in one record.

    Attributes:
        selector: None selects nothing.
        always_allows_unhealthy: whether `unhealthyPodEvictionPolicy` is AlwaysAllow.
        limit: the limit in the spec, such as "minAvailable 3"; empty if the spec has none.
        allowed: `disruptionsAllowed` of the status.
        healthy: `currentHealthy` of the status, in pods.
        needed: `desiredHealthy` of the status, in pods.
        expected: `expectedPods` of the status.
        disrupted: number of pods in `disruptedPods` of the status: evicted, and not yet seen as deleted.
        observed: whether the status refers to the current spec.
        sync_error: the disruption controller's message if it cannot compute the budget; empty if it can.
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
        """Whether the budget can never allow an eviction: every expected pod is healthy, and none may leave."""
        all_healthy = self.expected > 0 and self.healthy >= self.expected and not self.disrupted
        return self.observed and self.allowed <= 0 and all_healthy

    @property
    def remedy(self) -> str:
        """Return the change that lets a misconfigured budget allow an eviction, as an imperative."""
        return messages.budget_remedy(self.name, self.limit)

    def counts_eviction_of(self, pod: Pod) -> bool:
        """Whether an eviction of the pod uses one of `allowed`. Source: eviction.go of the API server."""
        exempt = not pod.ready and (self.always_allows_unhealthy or self.healthy >= self.needed > 0)
        return pod.counts_in_budgets and not exempt

    def allows_eviction_of(self, pod: Pod) -> bool:
        """Whether the API server should accept an eviction of the pod now. Source: eviction.go."""
        return not self.counts_eviction_of(pod) or (self.observed and self.allowed > 0)

    def after_eviction(self) -> "DisruptionBudget":
        """Return the budget as it is after one more eviction."""
        return replace(self, allowed=max(0, self.allowed - 1), disrupted=self.disrupted + 1)

    def as_exhausted(self) -> "DisruptionBudget":
        """Return the budget as it is if other clients have used all of `allowed`."""
        return replace(self, allowed=0, disrupted=self.disrupted + 1)


_LIMIT_FIELDS = ("minAvailable", "maxUnavailable")
_MAX_LIMIT_LENGTH = 64


@lru_cache(maxsize=10_000)
def _parse_selector(json_text: str) -> LabelSelector:
    """Parse a selector once: the status of a budget changes often, its selector rarely."""
    return LabelSelector.model_validate_json(json_text)


def parse_budget(raw: RawObject) -> DisruptionBudget:
    """Parse a raw PodDisruptionBudget.

    Raises UnreadableError without name, namespace or UID. Raises ValueError for a selector with an unknown operator.
    """
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


def _sync_error(status: RawObject) -> str:
    """Return the message of a failed sync; empty if none failed. A failed sync keeps `observedGeneration`."""
    for condition in status.get("conditions") or ():
        failed = condition.get("reason") == "SyncFailed" and condition.get("status") == "False"
        if condition.get("type") == "DisruptionAllowed" and failed:
            return str(condition.get("message") or messages.NO_MESSAGE)[:_MAX_MESSAGE_LENGTH]
    return ""


def budgets_for(pod: Pod, budgets: Iterable[DisruptionBudget]) -> tuple[DisruptionBudget, ...]:
    """Return the budgets whose selector matches the pod, sorted by name.

    An empty selector matches every pod of the namespace (policy/v1).
    """
    matching = (b for b in budgets if b.namespace == pod.namespace and b.selector and b.selector.matches(pod.labels))
    return tuple(sorted(matching, key=lambda b: b.name))
