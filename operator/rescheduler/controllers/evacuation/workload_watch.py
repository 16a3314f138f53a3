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
from rescheduler.core.model.volumes import Claim
from rescheduler.core.model.workloads import Deployment, ReplicaSet, Workload
from rescheduler.kube import paths
from rescheduler.kube.client import Client, Json
from rescheduler.kube.informers import Mirrors, Namespaces

Key = tuple[str, str]
"""Namespace and label selector of an owner's pods."""


@dataclass(slots=True)
class Memo:
    """What one look at many pods works out once: namespaces may have thousands of old ReplicaSets."""

    families: dict[str, dict[str, list[ReplicaSet]]] = field(default_factory=dict)


class Owners:
    """One for the process; `changed` is told who holds what changed."""

    def __init__(self, client: Client, changed: Callable[[Iterable[str]], None]) -> None:
        def kind(group: str, resource: str, project: Callable[[Mapping[str, Any]], Any]) -> Namespaces[Any]:
            return Namespaces(client, group, resource, project, changed)

        self._deployments: Namespaces[Deployment] = kind("apps/v1", "deployments", workloads.deployment)
        self._sets: Namespaces[ReplicaSet] = kind("apps/v1", "replicasets", workloads.replica_set)
        self._claims: Namespaces[Claim] = kind("v1", "persistentvolumeclaims", volumes.claim)
        self._pods: Mirrors[Key, Pod] = Mirrors(
            client, lambda key: (paths.namespaced("v1", key[0], "pods"), {"labelSelector": key[1]}), pods.pod, changed
        )

    def hold(self, holder: str, rows: Iterable[Pod]) -> None:
        """Keep the owners of these pods in view, and no others for this holder."""
        rows = tuple(rows)
        spaces = {pod.namespace for pod in rows}
        for mirrors in (self._deployments, self._sets, self._claims):
            mirrors.hold(holder, spaces)
        self._pods.hold(holder, {key for pod in rows if (key := self.key(pod))})

    def known(self, namespace: str) -> bool:
        """Whether all of a namespace is in view."""
        kinds: tuple[Namespaces[Any], ...] = (self._deployments, self._sets, self._claims)
        return all(mirrors.get(namespace) is not None for mirrors in kinds)

    def missing(self, holder: str) -> str:
        """Return which view that this holder asked for is not there, and why; empty if all are."""
        kinds: tuple[Namespaces[Any], ...] = (self._deployments, self._sets, self._claims)
        return next((why for mirrors in kinds if (why := mirrors.missing(mirrors.held(holder)))), "")

    def key(self, pod: Pod) -> Key | None:
        """Where the pods of this pod's owner are; None while, or where, no ReplicaSet of it is there."""
        sets = self._sets.get(pod.namespace) or {}
        found = sets.get(pod.owner.uid) if pod.owner else None
        if found is None and pod.move:  # rare: its ReplicaSet is gone
            found = next((s for s in sets.values() if s.deployment_uid == pod.move.deployment_uid), None)
        return (pod.namespace, found.query) if found else None

    def has_left(self, pod: Pod) -> bool:
        """Whether the labels of the pod no longer match its ReplicaSet: nobody counts or replaces it any more."""
        found = (self._sets.get(pod.namespace) or {}).get(pod.owner.uid) if pod.owner else None
        return found is not None and not found.selects(pod)

    def latest(self, key: Key, pod: Pod) -> Pod | None:
        """The pod as last seen or written; None while its owner's pods are not in view with it among them."""
        return (self._pods.get(key) or {}).get(pod.uid)

    def unlisted(self, key: Key) -> str:
        """Return why the pods of an owner are not in view; empty if they are."""
        return self._pods.missing([key])

    def put(self, key: Key, raw: Json) -> None:
        """Take in the answer to a write on a pod."""
        self._pods.put(key, raw)

    def workload(self, pod: Pod, going: AbstractSet[str], memo: Memo) -> Workload | None:
        """The owner of a pod as it is now; None where no Deployment or ReplicaSet was ever behind it."""
        sets = self._sets.get(pod.namespace) or {}
        mine = sets.get(pod.owner.uid) if pod.owner else None
        uid = mine.deployment_uid if mine else ""
        uid = uid or (pod.move.deployment_uid if pod.move else "")
        if mine is None and not uid:
            return None
        family = self._families(pod.namespace, memo)[uid] if uid else [mine] if mine else []
        if mine and mine not in family:
            family = [*family, mine]
        known = {s.uid for s in family}
        key = self.key(pod)
        rows = (self._pods.get(key) or {}).values() if key else (pod,)
        return Workload(
            (self._deployments.get(pod.namespace) or {}).get(uid),
            tuple(family),
            tuple(p for p in rows if (p.owner and p.owner.uid in known) or (p.move and p.move.deployment_uid == uid)),
            going,
        )

    def _families(self, namespace: str, memo: Memo) -> dict[str, list[ReplicaSet]]:
        """ReplicaSets by the uid of their Deployment."""
        if namespace not in memo.families:
            found: dict[str, list[ReplicaSet]] = defaultdict(list)
            for each in (self._sets.get(namespace) or {}).values():
                found[each.deployment_uid].append(each)
            memo.families[namespace] = found
        return memo.families[namespace]

    def exclusive(self, pod: Pod) -> bool:
        """Whether it mounts a claim that one node alone can have; an unknown claim counts as one."""
        if not pod.claims:
            return False
        exclusive = {c.name: c.exclusive for c in (self._claims.get(pod.namespace) or {}).values()}
        return any(exclusive.get(name, True) for name in pod.claims)
