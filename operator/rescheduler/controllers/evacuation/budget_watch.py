"""PodDisruptionBudgets in the namespaces that matter now, watched."""

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
"""Selectors and the pod's labels, and the uids of the budgets that cover it by these."""
_CORRECTION_LIFETIME = 10.0
"""Seconds: the server's own count arrives within milliseconds. If it does not, the server did not count."""


@dataclass(frozen=True, slots=True)
class _Correction:
    """What a budget is until its watch brings more than `version`, or until `until` (monotonic)."""

    resource_version: str
    budget: DisruptionBudget
    until: float


class BudgetWatch:
    """Budgets by namespace, for whoever holds the namespace; `monotonic`: the clock, in seconds."""

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
        """Watch these namespaces for this holder, and no others for it any more."""
        self._informers.subscribe(subscriber, namespaces)
        for namespace in [name for name in self._coverage if not self._informers.revision(name)]:
            del self._coverage[namespace]
            self._known_selectors.pop(namespace, None)
        now = self._monotonic()
        self._corrections = {uid: each for uid, each in self._corrections.items() if now < each.until}

    def is_synced(self, namespaces: Iterable[str]) -> bool:
        """Whether the budgets of all these namespaces are known for sure."""
        return all(self._informers.get(namespace) is not None for namespace in namespaces)

    def why_not_synced(self, namespaces: Iterable[str]) -> str:
        """Return which list of budgets is not known, and why; empty if all are."""
        return self._informers.why_not_synced(namespaces)

    def for_pod(self, pod: Pod) -> tuple[DisruptionBudget, ...] | None:
        """The budgets that cover the pod; None while they are not known for sure."""
        items = self._informers.get(pod.namespace)
        if items is None:
            return None
        selectors = self._selectors(pod.namespace, items)
        rows = self._coverage.setdefault(pod.namespace, {})
        known = rows.get(pod.uid)
        if known is None or known[0] is not selectors or known[1] != pod.labels:
            known = (selectors, pod.labels, tuple(b.uid for b in disruption_budgets.budgets_for(pod, items.values())))
            rows[pod.uid] = known
        return tuple(self._corrected(items[uid]) for uid in known[2])

    def _corrected(self, budget: DisruptionBudget) -> DisruptionBudget:
        """As it is by what the server answered since it was last seen."""
        correction = self._corrections.get(budget.uid)
        if correction is None:
            return budget
        if correction.resource_version != budget.resource_version or self._monotonic() >= correction.until:
            del self._corrections[budget.uid]
            return budget
        return correction.budget

    def by_name(self, namespace: str, name: str) -> DisruptionBudget | None:
        """One budget by its name; None where it is not there or not in view."""
        found = (self._informers.get(namespace) or {}).values()
        return next((budget for budget in found if budget.name == name), None)

    def _selectors(self, namespace: str, items: Mapping[str, DisruptionBudget]) -> _Selectors:
        """Which budgets select what in a namespace: the same object until one of them does otherwise.

        Selectors change rarely and are dear to match, a status changes with every eviction: 100 pods under 200
        budgets, at every event.
        """
        revision, before = self._informers.revision(namespace), self._known_selectors.get(namespace)
        if before and before[0] == revision:
            return before[1]
        now = tuple((uid, budget.selector) for uid, budget in items.items())
        kept = before[1] if before and before[1] == now else now
        self._known_selectors[namespace] = (revision, kept)
        return kept

    def record_eviction(self, budget: DisruptionBudget) -> None:
        """Count an eviction that the server counts, until its own count arrives."""
        self._correct(budget, DisruptionBudget.after_eviction)

    def mark_exhausted(self, budget: DisruptionBudget) -> None:
        """The server says that the budget allows none: believe it until the watch shows what it means."""
        self._correct(budget, DisruptionBudget.as_exhausted)

    def _correct(self, budget: DisruptionBudget, correction: Callable[[DisruptionBudget], DisruptionBudget]) -> None:
        current = (self._informers.get(budget.namespace) or {}).get(budget.uid)
        if current and current.resource_version == budget.resource_version:
            until = self._monotonic() + _CORRECTION_LIFETIME
            self._corrections[budget.uid] = _Correction(
                current.resource_version, correction(self._corrected(current)), until
            )

    def forget(self, pod_uids: Iterable[str]) -> None:
        """Drop what was remembered of these pods (uids)."""
        for uid in pod_uids:
            for rows in self._coverage.values():
                rows.pop(uid, None)
