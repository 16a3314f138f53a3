"""What verdicts on pods depend on beside the pods: labels of namespaces, DaemonSets, Jobs, and volumes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from rescheduler.api.policies import DrainSettings
from rescheduler.core.eviction.pod_actions import EvictionContext
from rescheduler.core.model import object_schemas, volumes, workloads
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volumes import NodeVolumes, Volume, VolumeAttachment, VolumeClaim
from rescheduler.kube import paths
from rescheduler.kube.client import Client
from rescheduler.kube.informers import NamespacedInformers, SharedInformers

_NamespaceLabels = tuple[str, Mapping[str, str]]


def _namespace_labels(raw: Mapping[str, Any]) -> _NamespaceLabels:
    meta = object_schemas.sanitize_metadata(raw)["metadata"]
    return meta["name"], dict(meta.get("labels") or {})


class RelatedObjects:
    """Watched only while a drain asks; `changed` is told who did."""

    def __init__(self, client: Client, on_change: Callable[[Iterable[str]], None]) -> None:
        self._namespaces: SharedInformers[str, _NamespaceLabels] = SharedInformers(
            client, lambda path: (path, {}), _namespace_labels, on_change, permanent=True
        )
        self._claim_namespaces: dict[str, set[str]] = {}  # by holder: namespaces of the claims seen
        self._daemon_sets: NamespacedInformers[None] = NamespacedInformers(
            client, "apps/v1", "daemonsets", lambda _: None, on_change
        )
        self._jobs: NamespacedInformers[bool] = NamespacedInformers(
            client, "batch/v1", "jobs", workloads.replaces_terminating_pods, on_change
        )
        self._claims: NamespacedInformers[VolumeClaim] = NamespacedInformers(
            client, "v1", "persistentvolumeclaims", volumes.parse_volume_claim, on_change
        )
        self._volumes: SharedInformers[str, Volume] = SharedInformers(
            client, lambda path: (path, {}), volumes.parse_volume, on_change, permanent=True
        )
        self._attachments: SharedInformers[str, VolumeAttachment] = SharedInformers(
            client, lambda path: (path, {}), volumes.parse_volume_attachment, on_change, permanent=True
        )
        self._informers: tuple[SharedInformers[str, Any] | NamespacedInformers[Any], ...] = (
            self._namespaces,
            self._daemon_sets,
            self._jobs,
            self._claims,
            self._volumes,
            self._attachments,
        )

    def unsubscribe(self, subscriber: str) -> None:
        """Keep nothing in view for this holder any more."""
        for mirrors in self._informers:
            mirrors.subscribe(subscriber, ())
        self._claim_namespaces.pop(subscriber, None)

    def complete_context(
        self,
        subscriber: str,
        node: str,
        context: EvictionContext,
        settings: DrainSettings,
        pods: Iterable[Pod],
        *,
        needs_attachments: bool,
    ) -> EvictionContext | None:
        """The circumstances with all that these settings and pods ask for; None while it is not known for sure.

        `attached`: it matters what is attached to the node, though no pod with a claim may be left there.
        """
        rows = tuple(pods)
        asks = any(not rule.namespace_selector.is_empty for rule in settings.rules)
        spaces = frozenset(pod.namespace for pod in rows if pod.owner and pod.owner.kind == "DaemonSet")
        self._namespaces.subscribe(subscriber, [paths.NAMESPACES] if asks else [])
        self._daemon_sets.subscribe(subscriber, spaces)
        asked = context.node_unreachable or context.node_failing
        working = frozenset(p.namespace for p in rows if asked and p.owner and p.owner.kind == "Job")
        self._jobs.subscribe(subscriber, working)
        labels = self._namespaces.get(paths.NAMESPACES) if asks else {}
        known = {space: self._daemon_sets.get(space) for space in spaces}
        jobs = [self._jobs.get(space) for space in working]
        around = self._node_volumes(subscriber, node, rows, needs_attachments=needs_attachments)
        if labels is None or around is None or any(found is None for found in (*known.values(), *jobs)):
            return None
        existing = {space: frozenset(found or ()) for space, found in known.items()}
        eager = frozenset(uid for found in jobs for uid, at_once in (found or {}).items() if at_once)
        return replace(
            context,
            namespace_labels=dict(labels.values()),
            daemon_set_uids=existing,
            replacing_jobs=eager,
            volumes=around,
        )

    def why_not_synced(self, subscriber: str) -> str:
        """Return which view that this holder asked for is not there, and why; empty if all are."""
        return next(
            (why for mirrors in self._informers if (why := mirrors.why_not_synced(mirrors.subscribed(subscriber)))), ""
        )

    def _node_volumes(
        self, subscriber: str, node: str, pods: Iterable[Pod], *, needs_attachments: bool
    ) -> NodeVolumes | None:
        """Volumes, once a pod with a claim was seen here: its volume outlives it on the node."""
        spaces = self._claim_namespaces.setdefault(subscriber, set())
        spaces |= {pod.namespace for pod in pods if pod.all_claims}
        self._claims.subscribe(subscriber, spaces)
        self._volumes.subscribe(subscriber, [paths.PERSISTENT_VOLUMES] if spaces else [])
        self._attachments.subscribe(subscriber, [paths.VOLUME_ATTACHMENTS] if spaces or needs_attachments else [])
        if not spaces and not needs_attachments:
            return NodeVolumes()
        held = self._volumes.get(paths.PERSISTENT_VOLUMES) if spaces else {}
        here = self._attachments.get(paths.VOLUME_ATTACHMENTS)
        claims = [self._claims.get(space) for space in spaces]
        if held is None or here is None or any(found is None for found in claims):
            return None
        bound = {(c.namespace, c.name): c for found in claims for c in (found or {}).values()}
        mounted = {c.volume for c in bound.values()}
        return NodeVolumes(
            bound,
            frozenset(v.name for v in held.values() if v.local),
            frozenset(a.volume for a in here.values() if a.node == node),
            {v.name: v.topology for v in held.values() if v.name in mounted},
        )
