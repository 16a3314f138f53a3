"""PodDisruptionBudgets in the namespaces that matter now, watched; nothing is polled.

One mirror a namespace, shared by all drains and closed when the last of them no longer needs it.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from rescheduler.core import budgets
from rescheduler.core.budgets import Budget
from rescheduler.core.pods import Pod
from rescheduler.kube import paths
from rescheduler.kube.client import Client
from rescheduler.kube.reflectors import Mirror


class Budgets:
    """Budgets by namespace, for whoever holds the namespace."""

    def __init__(self, client: Client, changed: Callable[[Iterable[str]], None]) -> None:
        self._client, self._changed = client, changed
        self._mirrors: dict[str, tuple[Mirror[Budget], asyncio.Task[None]]] = {}
        self._holders: dict[str, set[str]] = {}
        self._covering: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {}

    def hold(self, holder: str, namespaces: Iterable[str]) -> None:
        """Watch these namespaces for this holder, and no others for it any more."""
        wanted = set(namespaces)
        for namespace in wanted:
            self._holders.setdefault(namespace, set()).add(holder)
            if namespace not in self._mirrors:
                tell = partial(self._tell, namespace)
                mirror = Mirror(self._client, paths.budgets(namespace), budgets.budget, tell)
                self._mirrors[namespace] = (mirror, asyncio.create_task(mirror.run(), name=f"budgets {namespace}"))
        for namespace, holders in list(self._holders.items()):
            if namespace not in wanted:
                holders.discard(holder)
            if not holders:
                del self._holders[namespace]
                self._mirrors.pop(namespace)[1].cancel()

    def _tell(self, namespace: str) -> None:
        self._changed(tuple(self._holders.get(namespace, ())))

    def of(self, pod: Pod) -> tuple[Budget, ...] | None:
        """The budgets that cover the pod; None while they are not known for sure."""
        held = self._mirrors.get(pod.namespace)
        if held is None or not held[0].synced:
            return None
        items = held[0].items
        # Selectors change rarely and are dear to match: 100 pods under 40 budgets, at every event.
        key = tuple((uid, id(budget.selector)) for uid, budget in items.items())
        known = self._covering.get(pod.uid)
        if known is None or known[0] != key:
            known = (key, tuple(b.uid for b in budgets.covering(pod, items.values())))
            self._covering[pod.uid] = known
        return tuple(items[uid] for uid in known[1])

    def spend(self, budget: Budget) -> None:
        """Count an accepted eviction until the server's own count arrives."""
        held = self._mirrors.get(budget.namespace)
        current = held[0].items.get(budget.uid) if held else None
        if held and current and current.version == budget.version:
            held[0].items[budget.uid] = replace(current, allowed=max(0, current.allowed - 1))

    def forget(self, pods: Iterable[str]) -> None:
        """Drop what was remembered of these pods (uids)."""
        for uid in pods:
            self._covering.pop(uid, None)
