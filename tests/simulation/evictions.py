"""Decide evictions as the API server does: `pkg/registry/core/pod/storage/eviction.go`, without its retries."""

from invariants.objects import deleting, finished, is_ready, labels, name, selects
from rescheduler.core.model.raw import RawObject
from simulation.refusals import RefusedError


def budget_to_spend(pod: RawObject, budgets: list[RawObject]) -> RawObject | None:
    """Return the budget that pays for the eviction; None if no budget is needed.

    Raises RefusedError if a budget forbids the eviction.
    """
    if finished(pod) or deleting(pod) or pod.get("status", {}).get("phase") == "Pending":
        return None
    covering = [b for b in budgets if selects(b["spec"].get("selector"), labels(pod))]
    if len(covering) > 1:
        raise RefusedError(
            500, "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    if not covering or _unhealthy_and_free(pod, covering[0]):
        return None
    _check(covering[0])
    return covering[0]


def _unhealthy_and_free(pod: RawObject, budget: RawObject) -> bool:
    status = budget.get("status") or {}
    healthy, needed = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
    always = budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow"
    return not is_ready(pod) and (always or healthy >= needed > 0)


def _check(budget: RawObject) -> None:
    status = budget.get("status") or {}
    if status.get("observedGeneration", 0) < budget["metadata"]["generation"]:
        says = f"The disruption budget {name(budget)} is still being processed by the server."
        raise RefusedError(429, "Cannot evict pod", causes=(("DisruptionBudget", says),), retry_after=10.0)
    if status.get("disruptionsAllowed", 0) <= 0:
        says = (
            f"The disruption budget {name(budget)} needs {status['desiredHealthy']} healthy pods "
            f"and has {status['currentHealthy']} currently"
        )
        message = "Cannot evict pod as it would violate the pod's disruption budget."
        raise RefusedError(429, message, causes=(("DisruptionBudget", says),))
