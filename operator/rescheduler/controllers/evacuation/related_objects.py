"""Watch the objects on which decisions for pods depend: namespaces, DaemonSets, Jobs, claims and volumes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from rescheduler.api.policies import DrainSettings
from rescheduler.core.eviction.pod_actions import EvictionContext
from rescheduler.core.model import object_schemas, volumes, workloads
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.volumes import NodeVolumes, Volume, VolumeAttachment, VolumeClaim
from rescheduler.kube import paths
from rescheduler.kube.client import Client
from rescheduler.kube.informers import NamespacedInformers, SharedInformers

_NamespaceLabels = tuple[str, Mapping[str, str]]


def _namespace_labels(raw: RawObject) -> _NamespaceLabels:
    meta = object_schemas.sanitize_metadata(raw)["metadata"]
    return meta["name"], dict(meta.get("labels") or {})


class RelatedObjects:
    """Related objects, watched only for subscribers; `on_change` gets the subscribers of a changed object."""

    def __init__(self, client: Client, on_change: Callable[[Iterable[str]], None]) -> None:
        self._namespaces: SharedInformers[str, _NamespaceLabels] = SharedInformers(
            client, lambda path: (path, {}), _namespace_labels, on_change, permanent=True
        )
        self._claim_namespaces: dict[str, set[str]] = {}  # by subscriber: namespaces of all claims so far
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
        """Watch no object for this subscriber."""
        for informers in self._informers:
            informers.subscribe(subscriber, ())
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
        """Return the context with the objects that these settings and pods need; None while one is not listed.

        `needs_attachments`: include the attached volumes, even if no pod with a claim is left on the node.
        """
        node_pods = tuple(pods)
        needs_labels = any(not rule.namespace_selector.is_empty for rule in settings.rules)
        daemon_set_namespaces = frozenset(
            pod.namespace for pod in node_pods if pod.owner and pod.owner.kind == "DaemonSet"
        )
        self._namespaces.subscribe(subscriber, [paths.NAMESPACES] if needs_labels else [])
        self._daemon_sets.subscribe(subscriber, daemon_set_namespaces)
        needs_jobs = context.node_unreachable or context.node_failing
        job_namespaces = frozenset(
            pod.namespace for pod in node_pods if needs_jobs and pod.owner and pod.owner.kind == "Job"
        )
        self._jobs.subscribe(subscriber, job_namespaces)
        labels = self._namespaces.get(paths.NAMESPACES) if needs_labels else {}
        daemon_sets = {namespace: self._daemon_sets.get(namespace) for namespace in daemon_set_namespaces}
        jobs = [self._jobs.get(namespace) for namespace in job_namespaces]
        node_volumes = self._node_volumes(subscriber, node, node_pods, needs_attachments=needs_attachments)
        if labels is None or node_volumes is None or None in (*daemon_sets.values(), *jobs):
            return None
        return replace(
            context,
            namespace_labels=dict(labels.values()),
            daemon_set_uids={namespace: frozenset(uids or ()) for namespace, uids in daemon_sets.items()},
            replacing_jobs=frozenset(
                uid for items in jobs for uid, replaces_at_once in (items or {}).items() if replaces_at_once
            ),
            volumes=node_volumes,
        )

    def why_not_synced(self, subscriber: str) -> str:
        """Return the first list of this subscriber that is missing, and the cause; empty if none is missing."""
        reasons = (informers.why_not_synced(informers.subscribed(subscriber)) for informers in self._informers)
        return next((reason for reason in reasons if reason), "")

    def _node_volumes(
        self, subscriber: str, node: str, pods: Iterable[Pod], *, needs_attachments: bool
    ) -> NodeVolumes | None:
        """Return the volumes of the node; None while one is not listed.

        The namespaces of earlier claims stay subscribed, because a volume stays attached after its pod is gone.
        """
        namespaces = self._claim_namespaces.setdefault(subscriber, set())
        namespaces |= {pod.namespace for pod in pods if pod.all_claims}
        self._claims.subscribe(subscriber, namespaces)
        self._volumes.subscribe(subscriber, [paths.PERSISTENT_VOLUMES] if namespaces else [])
        self._attachments.subscribe(subscriber, [paths.VOLUME_ATTACHMENTS] if namespaces or needs_attachments else [])
        if not namespaces and not needs_attachments:
            return NodeVolumes()
        volumes_by_uid = self._volumes.get(paths.PERSISTENT_VOLUMES) if namespaces else {}
        attachments = self._attachments.get(paths.VOLUME_ATTACHMENTS)
        claims_by_uid = [self._claims.get(namespace) for namespace in namespaces]
        if volumes_by_uid is None or attachments is None or None in claims_by_uid:
            return None
        claims = {(claim.namespace, claim.name): claim for items in claims_by_uid for claim in (items or {}).values()}
        claimed = {claim.volume for claim in claims.values()}
        return NodeVolumes(
            claims,
            frozenset(volume.name for volume in volumes_by_uid.values() if volume.is_local_to((node,))),
            frozenset(attachment.volume for attachment in attachments.values() if attachment.node == node),
            {volume.name: volume.topology for volume in volumes_by_uid.values() if volume.name in claimed},
        )
