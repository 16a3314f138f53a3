"""What verdicts on pods depend on beside the pods: labels of namespaces, DaemonSets, Jobs, and volumes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from rescheduler.api.policies import Drain
from rescheduler.core.eviction.pod_actions import Circumstances
from rescheduler.core.model import object_schemas, volumes, workloads
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volumes import Attachment, Claim, Volume, Volumes
from rescheduler.kube import paths
from rescheduler.kube.client import Client
from rescheduler.kube.informers import Mirrors, Namespaces

_Labels = tuple[str, Mapping[str, str]]


def _labels(raw: Mapping[str, Any]) -> _Labels:
    meta = object_schemas.plain(raw)["metadata"]
    return meta["name"], dict(meta.get("labels") or {})


class Surroundings:
    """Watched only while a drain asks; `changed` is told who did."""

    def __init__(self, client: Client, changed: Callable[[Iterable[str]], None]) -> None:
        self._namespaces: Mirrors[str, _Labels] = Mirrors(client, lambda path: (path, {}), _labels, changed, keep=True)
        self._claimed: dict[str, set[str]] = {}  # by holder: namespaces of the claims seen
        self._daemon_sets: Namespaces[None] = Namespaces(client, "apps/v1", "daemonsets", lambda _: None, changed)
        self._jobs: Namespaces[bool] = Namespaces(client, "batch/v1", "jobs", workloads.replaces_at_once, changed)
        self._claims: Namespaces[Claim] = Namespaces(client, "v1", "persistentvolumeclaims", volumes.claim, changed)
        self._volumes: Mirrors[str, Volume] = Mirrors(
            client, lambda path: (path, {}), volumes.volume, changed, keep=True
        )
        self._attachments: Mirrors[str, Attachment] = Mirrors(
            client, lambda path: (path, {}), volumes.attachment, changed, keep=True
        )
        self._kinds: tuple[Mirrors[str, Any] | Namespaces[Any], ...] = (
            self._namespaces,
            self._daemon_sets,
            self._jobs,
            self._claims,
            self._volumes,
            self._attachments,
        )

    def forget(self, holder: str) -> None:
        """Keep nothing in view for this holder any more."""
        for mirrors in self._kinds:
            mirrors.hold(holder, ())
        self._claimed.pop(holder, None)

    def look(
        self, holder: str, node: str, seen: Circumstances, settings: Drain, pods: Iterable[Pod], *, attached: bool
    ) -> Circumstances | None:
        """The circumstances with all that these settings and pods ask for; None while it is not known for sure.

        `attached`: it matters what is attached to the node, though no pod with a claim may be left there.
        """
        rows = tuple(pods)
        asks = any(not rule.namespace_selector.is_empty for rule in settings.rules)
        spaces = frozenset(pod.namespace for pod in rows if pod.owner and pod.owner.kind == "DaemonSet")
        self._namespaces.hold(holder, [paths.NAMESPACES] if asks else [])
        self._daemon_sets.hold(holder, spaces)
        asked = seen.unreachable or seen.failing
        working = frozenset(p.namespace for p in rows if asked and p.owner and p.owner.kind == "Job")
        self._jobs.hold(holder, working)
        labels = self._namespaces.get(paths.NAMESPACES) if asks else {}
        known = {space: self._daemon_sets.get(space) for space in spaces}
        jobs = [self._jobs.get(space) for space in working]
        around = self._around(holder, node, rows, attached=attached)
        if labels is None or around is None or any(found is None for found in (*known.values(), *jobs)):
            return None
        existing = {space: frozenset(found or ()) for space, found in known.items()}
        eager = frozenset(uid for found in jobs for uid, at_once in (found or {}).items() if at_once)
        return replace(seen, labels=dict(labels.values()), daemon_sets=existing, jobs=eager, volumes=around)

    def missing(self, holder: str) -> str:
        """Return which view that this holder asked for is not there, and why; empty if all are."""
        return next((why for mirrors in self._kinds if (why := mirrors.missing(mirrors.held(holder)))), "")

    def _around(self, holder: str, node: str, pods: Iterable[Pod], *, attached: bool) -> Volumes | None:
        """Volumes, once a pod with a claim was seen here: its volume outlives it on the node."""
        spaces = self._claimed.setdefault(holder, set())
        spaces |= {pod.namespace for pod in pods if pod.volume_claims}
        self._claims.hold(holder, spaces)
        self._volumes.hold(holder, [paths.VOLUMES] if spaces else [])
        self._attachments.hold(holder, [paths.ATTACHMENTS] if spaces or attached else [])
        if not spaces and not attached:
            return Volumes()
        held = self._volumes.get(paths.VOLUMES) if spaces else {}
        here = self._attachments.get(paths.ATTACHMENTS)
        claims = [self._claims.get(space) for space in spaces]
        if held is None or here is None or any(found is None for found in claims):
            return None
        bound = {(c.namespace, c.name): c for found in claims for c in (found or {}).values()}
        mounted = {c.volume for c in bound.values()}
        return Volumes(
            bound,
            frozenset(v.name for v in held.values() if v.local),
            frozenset(a.volume for a in here.values() if a.node == node),
            {v.name: v.reach for v in held.values() if v.name in mounted},
        )
