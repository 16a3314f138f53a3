"""PodDisruptionBudgets in the namespaces that matter now, watched."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from rescheduler.api.selectors import LabelSelector
from rescheduler.core.model import disruption_budgets
from rescheduler.core.model.disruption_budgets import Budget
from rescheduler.core.model.pods import Pod
from rescheduler.kube.client import Client
from rescheduler.kube.informers import Namespaces

_Selectors = tuple[tuple[str, LabelSelector | None], ...]
_Covering = tuple[_Selectors, Mapping[str, str], tuple[str, ...]]
"""Selectors and the pod's labels, and the uids of the budgets that cover it by these."""
_EXPIRES = 10.0
"""Seconds: the server's own count arrives within milliseconds. If it does not, the server did not count."""


@dataclass(frozen=True, slots=True)
class _Correction:
    """What a budget is until its watch brings more than `version`, or until `until` (monotonic)."""

    version: str
    budget: Budget
    until: float


class Budgets:
    """Budgets by namespace, for whoever holds the namespace; `monotonic`: the clock, in seconds."""

    def __init__(
        self, client: Client, changed: Callable[[Iterable[str]], None], monotonic: Callable[[], float]
    ) -> None:
        self._monotonic = monotonic
        self._mirrors: Namespaces[Budget] = Namespaces(
            client, "policy/v1", "poddisruptionbudgets", disruption_budgets.budget, changed
        )
        self._covering: dict[str, dict[str, _Covering]] = {}  # by namespace and pod uid
        self._known: dict[str, tuple[int, _Selectors]] = {}  # by namespace
        self._corrections: dict[str, _Correction] = {}  # by uid

    def hold(self, holder: str, namespaces: Iterable[str]) -> None:
        """Watch these namespaces for this holder, and no others for it any more."""
        self._mirrors.hold(holder, namespaces)
        for namespace in [name for name in self._covering if not self._mirrors.revision(name)]:
            del self._covering[namespace]
            self._known.pop(namespace, None)
        now = self._monotonic()
        self._corrections = {uid: each for uid, each in self._corrections.items() if now < each.until}

    def known(self, namespaces: Iterable[str]) -> bool:
        """Whether the budgets of all these namespaces are known for sure."""
        return all(self._mirrors.get(namespace) is not None for namespace in namespaces)

    def missing(self, namespaces: Iterable[str]) -> str:
        """Return which list of budgets is not known, and why; empty if all are."""
        return self._mirrors.missing(namespaces)

    def of(self, pod: Pod) -> tuple[Budget, ...] | None:
        """The budgets that cover the pod; None while they are not known for sure."""
        items = self._mirrors.get(pod.namespace)
        if items is None:
            return None
        selectors = self._selectors(pod.namespace, items)
        rows = self._covering.setdefault(pod.namespace, {})
        known = rows.get(pod.uid)
        if known is None or known[0] is not selectors or known[1] != pod.labels:
            known = (selectors, pod.labels, tuple(b.uid for b in disruption_budgets.covering(pod, items.values())))
            rows[pod.uid] = known
        return tuple(self._corrected(items[uid]) for uid in known[2])

    def _corrected(self, budget: Budget) -> Budget:
        """As it is by what the server answered since it was last seen."""
        correction = self._corrections.get(budget.uid)
        if correction is None:
            return budget
        if correction.version != budget.version or self._monotonic() >= correction.until:
            del self._corrections[budget.uid]
            return budget
        return correction.budget

    def named(self, namespace: str, name: str) -> Budget | None:
        """One budget by its name; None where it is not there or not in view."""
        found = (self._mirrors.get(namespace) or {}).values()
        return next((budget for budget in found if budget.name == name), None)

    def _selectors(self, namespace: str, items: Mapping[str, Budget]) -> _Selectors:
        """Which budgets select what in a namespace: the same object until one of them does otherwise.

        Selectors change rarely and are dear to match, a status changes with every eviction: 100 pods under 200
        budgets, at every event.
        """
        revision, before = self._mirrors.revision(namespace), self._known.get(namespace)
        if before and before[0] == revision:
            return before[1]
        now = tuple((uid, budget.selector) for uid, budget in items.items())
        kept = before[1] if before and before[1] == now else now
        self._known[namespace] = (revision, kept)
        return kept

    def spend(self, budget: Budget) -> None:
        """Count an eviction that the server counts, until its own count arrives."""
        self._correct(budget, Budget.spent)

    def exhaust(self, budget: Budget) -> None:
        """The server says that the budget allows none: believe it until the watch shows what it means."""
        self._correct(budget, Budget.exhausted)

    def _correct(self, budget: Budget, how: Callable[[Budget], Budget]) -> None:
        current = (self._mirrors.get(budget.namespace) or {}).get(budget.uid)
        if current and current.version == budget.version:
            until = self._monotonic() + _EXPIRES
            self._corrections[budget.uid] = _Correction(current.version, how(self._corrected(current)), until)

    def forget(self, pods: Iterable[str]) -> None:
        """Drop what was remembered of these pods (uids)."""
        for uid in pods:
            for rows in self._covering.values():
                rows.pop(uid, None)
