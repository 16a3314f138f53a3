"""Watch the workloads of pods that move, only while a drain or a migration needs them.

The watch covers the Deployments, ReplicaSets and claims of a namespace, and the pods of each owner.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from rescheduler.core.model import pods, volumes, workloads
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.volumes import VolumeClaim
from rescheduler.core.model.workloads import Deployment, ReplicaSet, Workload
from rescheduler.core.placement.successors import OwnerTemplate, replica_set_templates
from rescheduler.kube import paths
from rescheduler.kube.client import Client
from rescheduler.kube.informers import NamespacedInformers, SharedInformers

_PLAN_PREFIX = "plan "
"""Prefix of a subscriber that needs only templates. A plan needs more namespaces than the pods that are released."""
OwnerPodsKey = tuple[str, str]
"""Namespace and label selector of the pods of an owner."""


@dataclass(slots=True)
class ReplicaSetIndex:
    """Cache of one evaluation: a namespace may have thousands of old ReplicaSets, too many to group for each pod."""

    by_deployment: dict[str, dict[str, list[ReplicaSet]]] = field(default_factory=dict)


class WorkloadWatch:
    """Watched workloads of the whole process; `on_change` gets the subscribers of a changed object."""

    def __init__(self, client: Client, on_change: Callable[[Iterable[str]], None]) -> None:
        def notify(subscribers: Iterable[str]) -> None:
            on_change(tuple({subscriber.removeprefix(_PLAN_PREFIX) for subscriber in subscribers}))

        def informers(group: str, resource: str, parse: Callable[[RawObject], Any]) -> NamespacedInformers[Any]:
            return NamespacedInformers(client, group, resource, parse, notify)

        self._deployments: NamespacedInformers[Deployment] = informers(
            "apps/v1", "deployments", workloads.parse_deployment
        )
        self._replica_sets: NamespacedInformers[ReplicaSet] = informers(
            "apps/v1", "replicasets", workloads.parse_replica_set
        )
        self._claims: NamespacedInformers[VolumeClaim] = informers(
            "v1", "persistentvolumeclaims", volumes.parse_volume_claim
        )
        self._pods: SharedInformers[OwnerPodsKey, Pod] = SharedInformers(
            client,
            lambda key: (paths.in_namespace("v1", key[0], "pods"), {"labelSelector": key[1]}),
            pods.parse_pod,
            on_change,
        )

    def subscribe(self, subscriber: str, moving_pods: Iterable[Pod]) -> None:
        """Watch exactly the workloads of these pods for this subscriber."""
        moving_pods = tuple(moving_pods)
        namespaces = {pod.namespace for pod in moving_pods}
        for informers in (self._deployments, self._replica_sets, self._claims):
            informers.subscribe(subscriber, namespaces)
        self._pods.subscribe(subscriber, {key for pod in moving_pods if (key := self.owner_key(pod))})

    def is_synced(self, namespace: str) -> bool:
        """Whether the Deployments, ReplicaSets and claims of a namespace are listed."""
        kinds: tuple[NamespacedInformers[Any], ...] = (self._deployments, self._replica_sets, self._claims)
        return all(informers.get(namespace) is not None for informers in kinds)

    def why_not_synced(self, subscriber: str) -> str:
        """Return the first list of this subscriber that is missing, and the cause; empty if none is missing."""
        kinds: tuple[NamespacedInformers[Any], ...] = (self._deployments, self._replica_sets, self._claims)
        reasons = (informers.why_not_synced(informers.subscribed(subscriber)) for informers in kinds)
        return next((reason for reason in reasons if reason), "")

    def watch_templates(self, subscriber: str, namespaces: Iterable[str]) -> None:
        """Watch the ReplicaSets of exactly these namespaces for the plans of this subscriber."""
        self._replica_sets.subscribe(_PLAN_PREFIX + subscriber, namespaces)

    def are_templates_synced(self, subscriber: str) -> bool:
        """Whether the ReplicaSets for the plans of this subscriber are listed."""
        namespaces = self._replica_sets.subscribed(_PLAN_PREFIX + subscriber)
        return all(self._replica_sets.get(namespace) is not None for namespace in namespaces)

    def templates(self, namespaces: Iterable[str]) -> dict[str, OwnerTemplate]:
        """Return the templates by UID of the ReplicaSet, as far as the ReplicaSets of these namespaces are listed."""
        lists = (self._replica_sets.get(namespace) or {} for namespace in namespaces)
        return replica_set_templates(rs for replica_sets in lists for rs in replica_sets.values())

    def owner_key(self, pod: Pod) -> OwnerPodsKey | None:
        """Return the key of the pods of the same owner; None if no ReplicaSet of the owner is known."""
        rs = self._replica_set_of(pod)
        if rs is None and pod.release_record:  # the ReplicaSet of the released pod may be gone
            deployment_uid, replica_sets = (
                pod.release_record.deployment_uid,
                self._replica_sets.get(pod.namespace) or {},
            )
            rs = next((rs for rs in replica_sets.values() if rs.deployment_uid == deployment_uid), None)
        return (pod.namespace, rs.deployment_selector) if rs else None

    def has_left_selector(self, pod: Pod) -> bool:
        """Whether the labels of the pod no longer match its ReplicaSet, which then does not count or replace it."""
        rs = self._replica_set_of(pod)
        return rs is not None and not rs.selects(pod)

    def _replica_set_of(self, pod: Pod) -> ReplicaSet | None:
        """Return the ReplicaSet of a pod; None if it is unknown, or if it has another Deployment than the record.

        A record with a ReplicaSet of another Deployment was changed by another client. With that ReplicaSet, the pod
        would count as a pod without replacement, and would be evicted before its new pod is Ready.
        """
        rs = (self._replica_sets.get(pod.namespace) or {}).get(pod.owner.uid) if pod.owner else None
        recorded = pod.release_record.deployment_uid if pod.release_record else ""
        return None if rs and recorded and rs.deployment_uid not in ("", recorded) else rs

    def latest_pod(self, key: OwnerPodsKey, pod: Pod) -> Pod | None:
        """Return the pod as last watched or written; None while the pods of its owner are not listed with it."""
        return (self._pods.get(key) or {}).get(pod.uid)

    def why_pods_not_synced(self, key: OwnerPodsKey) -> str:
        """Return why the pods of an owner are not listed; empty if they are."""
        return self._pods.why_not_synced([key])

    def put(self, key: OwnerPodsKey, raw: RawObject) -> None:
        """Store the response to a write on a pod, until the watch brings a newer version."""
        self._pods.put(key, raw)

    def workload(self, pod: Pod, evicting_uids: AbstractSet[str], index: ReplicaSetIndex) -> Workload | None:
        """Return the workload of a pod; None if neither a Deployment nor a ReplicaSet of it is known."""
        own = self._replica_set_of(pod)
        deployment_uid = own.deployment_uid if own else ""
        deployment_uid = deployment_uid or (pod.release_record.deployment_uid if pod.release_record else "")
        if own is None and not deployment_uid:
            return None
        replica_sets = self._replica_sets_by_deployment(pod.namespace, index)[deployment_uid] if deployment_uid else []
        if own and own not in replica_sets:
            replica_sets = [*replica_sets, own]
        replica_set_uids = {rs.uid for rs in replica_sets}
        key = self.owner_key(pod)
        candidates = (self._pods.get(key) or {}).values() if key else (pod,)
        return Workload(
            (self._deployments.get(pod.namespace) or {}).get(deployment_uid),
            tuple(replica_sets),
            tuple(
                candidate
                for candidate in candidates
                if (candidate.owner and candidate.owner.uid in replica_set_uids)
                or (candidate.release_record and candidate.release_record.deployment_uid == deployment_uid)
            ),
            evicting_uids,
        )

    def _replica_sets_by_deployment(self, namespace: str, index: ReplicaSetIndex) -> dict[str, list[ReplicaSet]]:
        """Return the ReplicaSets of a namespace by the uid of their Deployment."""
        if namespace not in index.by_deployment:
            by_deployment: dict[str, list[ReplicaSet]] = defaultdict(list)
            for rs in (self._replica_sets.get(namespace) or {}).values():
                by_deployment[rs.deployment_uid].append(rs)
            index.by_deployment[namespace] = by_deployment
        return index.by_deployment[namespace]

    def has_single_node_volume(self, pod: Pod) -> bool:
        """Whether the pod mounts a claim that only one node can attach; True if a claim is unknown."""
        if not pod.claims:
            return False
        single_node = {claim.name: claim.single_node for claim in (self._claims.get(pod.namespace) or {}).values()}
        return any(single_node.get(name, True) for name in pod.claims)
