"""Watch the PodDisruptionBudgets of the namespaces whose pods move now."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from rescheduler.api.selectors import LabelSelector
from rescheduler.core.model import disruption_budgets
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Pod
from rescheduler.kube.client import Client
from rescheduler.kube.informers import NamespacedInformers

_Selectors = tuple[tuple[str, LabelSelector | None], ...]
_PodCoverage = tuple[_Selectors, Mapping[str, str], tuple[str, ...]]
"""Selectors, labels of the pod, and the uids of the budgets that cover a pod with these labels."""
_CORRECTION_LIFETIME = 10.0
"""Seconds. The status of the API server arrives within milliseconds; without it, the API server did not count."""


@dataclass(frozen=True, slots=True)
class _Correction:
    """Corrected budget, valid until the watch brings a version other than `resource_version`.

    Attributes:
        until: monotonic time, in seconds; the correction ends then in any case.
    """

    resource_version: str
    budget: DisruptionBudget
    until: float


class BudgetWatch:
    """Budgets of all subscribed namespaces; `monotonic`: the clock, in seconds."""

    def __init__(
        self, client: Client, on_change: Callable[[Iterable[str]], None], monotonic: Callable[[], float]
    ) -> None:
        self._monotonic = monotonic
        self._informers: NamespacedInformers[DisruptionBudget] = NamespacedInformers(
            client, "policy/v1", "poddisruptionbudgets", disruption_budgets.parse_budget, on_change
        )
        self._coverage: dict[str, dict[str, _PodCoverage]] = {}  # by namespace and pod uid
        self._known_selectors: dict[str, tuple[int, _Selectors]] = {}  # by namespace
        self._corrections: dict[str, _Correction] = {}  # by uid

    def subscribe(self, subscriber: str, namespaces: Iterable[str]) -> None:
        """Watch exactly these namespaces for this subscriber."""
        self._informers.subscribe(subscriber, namespaces)
        for namespace in [name for name in self._coverage if not self._informers.revision(name)]:
            del self._coverage[namespace]
            self._known_selectors.pop(namespace, None)
        now = self._monotonic()
        self._corrections = {uid: correction for uid, correction in self._corrections.items() if now < correction.until}

    def is_synced(self, namespaces: Iterable[str]) -> bool:
        """Whether the budgets of all these namespaces are listed."""
        return all(self._informers.get(namespace) is not None for namespace in namespaces)

    def why_not_synced(self, namespaces: Iterable[str]) -> str:
        """Return the first list of budgets that is missing, and the cause; empty if none is missing."""
        return self._informers.why_not_synced(namespaces)

    def for_pod(self, pod: Pod) -> tuple[DisruptionBudget, ...] | None:
        """Return the budgets that cover the pod; None while they are not listed."""
        items = self._informers.get(pod.namespace)
        if items is None:
            return None
        selectors = self._selectors(pod.namespace, items)
        coverage_by_uid = self._coverage.setdefault(pod.namespace, {})
        coverage = coverage_by_uid.get(pod.uid)
        if coverage is None or coverage[0] is not selectors or coverage[1] != pod.labels:
            budgets = disruption_budgets.budgets_for(pod, items.values())
            coverage = (selectors, pod.labels, tuple(budget.uid for budget in budgets))
            coverage_by_uid[pod.uid] = coverage
        return tuple(self._corrected(items[uid]) for uid in coverage[2])

    def _corrected(self, budget: DisruptionBudget) -> DisruptionBudget:
        """Return the budget with the evictions that the API server accepted since this version."""
        correction = self._corrections.get(budget.uid)
        if correction is None:
            return budget
        if correction.resource_version != budget.resource_version or self._monotonic() >= correction.until:
            del self._corrections[budget.uid]
            return budget
        return correction.budget

    def by_name(self, namespace: str, name: str) -> DisruptionBudget | None:
        """Return one budget; None if it does not exist or is not watched."""
        budgets = (self._informers.get(namespace) or {}).values()
        return next((budget for budget in budgets if budget.name == name), None)

    def _selectors(self, namespace: str, items: Mapping[str, DisruptionBudget]) -> _Selectors:
        """Return the selectors of a namespace, as the same object until one of them changes.

        A match is expensive: 100 pods under 200 budgets, at every event. The status of a budget changes with every
        eviction, but selectors change rarely. So `for_pod` matches again only when this object changes.
        """
        revision, previous = self._informers.revision(namespace), self._known_selectors.get(namespace)
        if previous and previous[0] == revision:
            return previous[1]
        current = tuple((uid, budget.selector) for uid, budget in items.items())
        selectors = previous[1] if previous and previous[1] == current else current
        self._known_selectors[namespace] = (revision, selectors)
        return selectors

    def record_eviction(self, budget: DisruptionBudget) -> None:
        """Count an accepted eviction until the status of the budget includes it."""
        self._correct(budget, DisruptionBudget.after_eviction)

    def mark_exhausted(self, budget: DisruptionBudget) -> None:
        """Record that the API server reports an exhausted budget, until the watch brings the new status."""
        self._correct(budget, DisruptionBudget.as_exhausted)

    def _correct(self, budget: DisruptionBudget, correction: Callable[[DisruptionBudget], DisruptionBudget]) -> None:
        current = (self._informers.get(budget.namespace) or {}).get(budget.uid)
        if current and current.resource_version == budget.resource_version:
            until = self._monotonic() + _CORRECTION_LIFETIME
            self._corrections[budget.uid] = _Correction(
                current.resource_version, correction(self._corrected(current)), until
            )

    def forget(self, pod_uids: Iterable[str]) -> None:
        """Drop the cached coverage of these pods."""
        for uid in pod_uids:
            for coverage_by_uid in self._coverage.values():
                coverage_by_uid.pop(uid, None)
