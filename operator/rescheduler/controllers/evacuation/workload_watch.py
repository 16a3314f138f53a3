"""The owners of pods that are moved, in view only where a drain needs them.

Per namespace: Deployments, ReplicaSets and claims; per owner: its pods.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from rescheduler.core.model import pods, volumes, workloads
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volumes import VolumeClaim
from rescheduler.core.model.workloads import Deployment, ReplicaSet, Workload
from rescheduler.kube import paths
from rescheduler.kube.client import Client, Json
from rescheduler.kube.informers import NamespacedInformers, SharedInformers

OwnerPodsKey = tuple[str, str]
"""Namespace and label selector of an owner's pods."""


@dataclass(slots=True)
class ReplicaSetIndex:
    """What one look at many pods works out once: namespaces may have thousands of old ReplicaSets."""

    by_deployment: dict[str, dict[str, list[ReplicaSet]]] = field(default_factory=dict)


class WorkloadWatch:
    """One for the process; `changed` is told who holds what changed."""

    def __init__(self, client: Client, on_change: Callable[[Iterable[str]], None]) -> None:
        def kind(group: str, resource: str, project: Callable[[Mapping[str, Any]], Any]) -> NamespacedInformers[Any]:
            return NamespacedInformers(client, group, resource, project, on_change)

        self._deployments: NamespacedInformers[Deployment] = kind("apps/v1", "deployments", workloads.parse_deployment)
        self._replica_sets: NamespacedInformers[ReplicaSet] = kind(
            "apps/v1", "replicasets", workloads.parse_replica_set
        )
        self._claims: NamespacedInformers[VolumeClaim] = kind(
            "v1", "persistentvolumeclaims", volumes.parse_volume_claim
        )
        self._pods: SharedInformers[OwnerPodsKey, Pod] = SharedInformers(
            client,
            lambda key: (paths.in_namespace("v1", key[0], "pods"), {"labelSelector": key[1]}),
            pods.parse_pod,
            on_change,
        )

    def subscribe(self, subscriber: str, rows: Iterable[Pod]) -> None:
        """Keep the owners of these pods in view, and no others for this holder."""
        rows = tuple(rows)
        spaces = {pod.namespace for pod in rows}
        for mirrors in (self._deployments, self._replica_sets, self._claims):
            mirrors.subscribe(subscriber, spaces)
        self._pods.subscribe(subscriber, {key for pod in rows if (key := self.owner_key(pod))})

    def is_synced(self, namespace: str) -> bool:
        """Whether all of a namespace is in view."""
        kinds: tuple[NamespacedInformers[Any], ...] = (self._deployments, self._replica_sets, self._claims)
        return all(mirrors.get(namespace) is not None for mirrors in kinds)

    def why_not_synced(self, subscriber: str) -> str:
        """Return which view that this holder asked for is not there, and why; empty if all are."""
        kinds: tuple[NamespacedInformers[Any], ...] = (self._deployments, self._replica_sets, self._claims)
        return next((why for mirrors in kinds if (why := mirrors.why_not_synced(mirrors.subscribed(subscriber)))), "")

    def owner_key(self, pod: Pod) -> OwnerPodsKey | None:
        """Where the pods of this pod's owner are; None while, or where, no ReplicaSet of it is there."""
        sets = self._replica_sets.get(pod.namespace) or {}
        found = sets.get(pod.owner.uid) if pod.owner else None
        if found is None and pod.release_record:  # rare: its ReplicaSet is gone
            found = next((s for s in sets.values() if s.deployment_uid == pod.release_record.deployment_uid), None)
        return (pod.namespace, found.deployment_selector) if found else None

    def has_left_selector(self, pod: Pod) -> bool:
        """Whether the labels of the pod no longer match its ReplicaSet: nobody counts or replaces it any more."""
        found = (self._replica_sets.get(pod.namespace) or {}).get(pod.owner.uid) if pod.owner else None
        return found is not None and not found.selects(pod)

    def latest_pod(self, key: OwnerPodsKey, pod: Pod) -> Pod | None:
        """The pod as last seen or written; None while its owner's pods are not in view with it among them."""
        return (self._pods.get(key) or {}).get(pod.uid)

    def why_pods_not_synced(self, key: OwnerPodsKey) -> str:
        """Return why the pods of an owner are not in view; empty if they are."""
        return self._pods.why_not_synced([key])

    def put(self, key: OwnerPodsKey, raw: Json) -> None:
        """Take in the answer to a write on a pod."""
        self._pods.put(key, raw)

    def workload(self, pod: Pod, evicting_uids: AbstractSet[str], index: ReplicaSetIndex) -> Workload | None:
        """The owner of a pod as it is now; None where no Deployment or ReplicaSet was ever behind it."""
        sets = self._replica_sets.get(pod.namespace) or {}
        mine = sets.get(pod.owner.uid) if pod.owner else None
        uid = mine.deployment_uid if mine else ""
        uid = uid or (pod.release_record.deployment_uid if pod.release_record else "")
        if mine is None and not uid:
            return None
        family = self._replica_sets_by_deployment(pod.namespace, index)[uid] if uid else [mine] if mine else []
        if mine and mine not in family:
            family = [*family, mine]
        known = {s.uid for s in family}
        key = self.owner_key(pod)
        rows = (self._pods.get(key) or {}).values() if key else (pod,)
        return Workload(
            (self._deployments.get(pod.namespace) or {}).get(uid),
            tuple(family),
            tuple(
                p
                for p in rows
                if (p.owner and p.owner.uid in known) or (p.release_record and p.release_record.deployment_uid == uid)
            ),
            evicting_uids,
        )

    def _replica_sets_by_deployment(self, namespace: str, index: ReplicaSetIndex) -> dict[str, list[ReplicaSet]]:
        """ReplicaSets by the uid of their Deployment."""
        if namespace not in index.by_deployment:
            found: dict[str, list[ReplicaSet]] = defaultdict(list)
            for each in (self._replica_sets.get(namespace) or {}).values():
                found[each.deployment_uid].append(each)
            index.by_deployment[namespace] = found
        return index.by_deployment[namespace]

    def has_single_node_volume(self, pod: Pod) -> bool:
        """Whether it mounts a claim that one node alone can have; an unknown claim counts as one."""
        if not pod.claims:
            return False
        exclusive = {c.name: c.single_node for c in (self._claims.get(pod.namespace) or {}).values()}
        return any(exclusive.get(name, True) for name in pod.claims)
