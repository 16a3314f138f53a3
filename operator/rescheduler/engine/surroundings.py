"""What verdicts on pods depend on beside the pods: labels of namespaces, and which DaemonSets exist."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from rescheduler.api.policies import Drain
from rescheduler.core.verdicts import Circumstances
from rescheduler.kube import paths
from rescheduler.kube.client import Client
from rescheduler.kube.reflectors import Mirrors

_Labels = tuple[str, Mapping[str, str]]


def _labels(raw: Mapping[str, Any]) -> _Labels:
    return raw["metadata"]["name"], dict(raw["metadata"].get("labels") or {})


class Surroundings:
    """Watched only while a drain asks; `changed` is told who did."""

    def __init__(self, client: Client, changed: Callable[[Iterable[str]], None]) -> None:
        self._namespaces: Mirrors[str, _Labels] = Mirrors(client, lambda path: (path, {}), _labels, changed)
        self._daemon_sets: Mirrors[str, None] = Mirrors(
            client,
            lambda space: (paths.namespaced("apps/v1", space, "daemonsets"), {}),
            lambda _: None,
            changed,
        )

    def hold(self, holder: str, namespaces: Iterable[str], daemon_sets: Iterable[str]) -> None:
        """Keep these in view for this holder: the list of namespaces by its path, DaemonSets by namespace."""
        self._namespaces.hold(holder, namespaces)
        self._daemon_sets.hold(holder, daemon_sets)

    def look(
        self, holder: str, seen: Circumstances, settings: Drain, daemon_sets: Iterable[str]
    ) -> Circumstances | None:
        """The circumstances with all that these settings ask for; None while it is not known for sure."""
        asks = any(not rule.namespace_selector.is_empty for rule in settings.rules)
        spaces = frozenset(daemon_sets)
        self.hold(holder, [paths.NAMESPACES] if asks else [], spaces)
        labels = self._namespaces.get(paths.NAMESPACES) if asks else {}
        known = {space: self._daemon_sets.get(space) for space in spaces}
        if labels is None or any(found is None for found in known.values()):
            return None
        existing = {space: frozenset(found or ()) for space, found in known.items()}
        return replace(seen, labels=dict(labels.values()), daemon_sets=existing)
