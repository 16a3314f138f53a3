"""PodDisruptionBudgets in the namespaces that matter now, watched."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from rescheduler.api.selectors import LabelSelector
from rescheduler.core import budgets
from rescheduler.core.budgets import Budget
from rescheduler.core.pods import Pod
from rescheduler.kube import paths
from rescheduler.kube.client import Client
from rescheduler.kube.reflectors import Mirrors

_Selectors = tuple[tuple[str, LabelSelector | None], ...]


class Budgets:
    """Budgets by namespace, for whoever holds the namespace."""

    def __init__(self, client: Client, changed: Callable[[Iterable[str]], None]) -> None:
        self._mirrors: Mirrors[str, Budget] = Mirrors(
            client, lambda namespace: (paths.budgets(namespace), {}), budgets.budget, changed
        )
        self._covering: dict[str, tuple[_Selectors, Mapping[str, str], tuple[str, ...]]] = {}  # by pod uid
        self._known: dict[str, tuple[int, _Selectors]] = {}  # by namespace

    def hold(self, holder: str, namespaces: Iterable[str]) -> None:
        """Watch these namespaces for this holder, and no others for it any more."""
        self._mirrors.hold(holder, namespaces)

    def known(self, namespaces: Iterable[str]) -> bool:
        """Whether the budgets of all these namespaces are known for sure."""
        return all(self._mirrors.get(namespace) is not None for namespace in namespaces)

    def of(self, pod: Pod) -> tuple[Budget, ...] | None:
        """The budgets that cover the pod; None while they are not known for sure."""
        items = self._mirrors.get(pod.namespace)
        if items is None:
            return None
        selectors = self._selectors(pod.namespace, items)
        known = self._covering.get(pod.uid)
        if known is None or known[0] is not selectors or known[1] != pod.labels:
            known = (selectors, pod.labels, tuple(b.uid for b in budgets.covering(pod, items.values())))
            self._covering[pod.uid] = known
        return tuple(items[uid] for uid in known[2])

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
        """Count an accepted eviction until the server's own count arrives."""
        current = (self._mirrors.get(budget.namespace) or {}).get(budget.uid)
        if current and current.version == budget.version:
            self._mirrors.replace(budget.namespace, budget.uid, replace(current, allowed=max(0, current.allowed - 1)))

    def forget(self, pods: Iterable[str]) -> None:
        """Drop what was remembered of these pods (uids)."""
        for uid in pods:
            self._covering.pop(uid, None)
