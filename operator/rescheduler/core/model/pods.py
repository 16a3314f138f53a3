"""Pods, as far as moving them cares."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rescheduler.api import names
from rescheduler.api.untrusted import (
    INT32,
    LATEST_TIME,
    MAX_SECONDS,
    UnreadableError,
    bounded_integer,
    bounded_text,
    parse_time,
)
from rescheduler.core.model import object_schemas
from rescheduler.core.model.release_record import ReleaseRecord, controller_reference, read_record

CORDON_TAINT_KEY = "node.kubernetes.io/unschedulable"
TERMINAL_PHASES = ("Succeeded", "Failed")
_BUILTIN_GROUPS = ("", "apps", "batch")
_KEPT_ANNOTATIONS = (names.DO_NOT_DISRUPT, names.REPLACEMENT, names.POD_DELETION_COST)
_MAX_TEXT_LENGTH = 1024
_INLINE_DISK_SOURCES = (
    "awsElasticBlockStore",
    "azureDisk",
    "cinder",
    "fc",
    "flexVolume",
    "gcePersistentDisk",
    "iscsi",
    "portworxVolume",
    "rbd",
    "vsphereVolume",
)
_HOSTNAME = "kubernetes.io/hostname"
_EVICTED_REASON = "EvictionByEvictionAPI"
"""Reason of the condition DisruptionTarget that the API server sets when it accepts an eviction."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The controller of a pod, by its ownerReference; `kind`: with its group, where that is not Kubernetes' own.

    The owner of a released pod is the ReplicaSet that it was released from, as its record says.
    """

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Toleration:
    """One toleration of a pod; an empty key with `Exists` tolerates everything."""

    key: str
    operator: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod on a node that is drained.

    Attributes:
        grace: its terminationGracePeriodSeconds.
        deleting: its deletionTimestamp, which has the grace in it already.
        claims: names of its PersistentVolumeClaims; `ephemeral`: of its generic ephemeral volumes.
        disk: it names a disk itself, without a claim.
        version: its resourceVersion.
        ready_since: since when `Ready` has the status it has, by the kubelet's clock.
        pinned: it can run on its node alone.
        unschedulable: why the scheduler finds no node for it, in its words; empty where it has one.
        move: the record of its move, while its controller agrees with it; `released`: its controller is the Deployment.
        foreign_move: it carries the annotation of a move that does not count.
        evicted: it is Terminating because the Eviction API was asked for it.
        references: its ownerReferences without the controller's, as the API server holds them.
    """

    namespace: str
    name: str
    uid: str
    node: str = ""
    phase: str = "Running"
    ready: bool = False
    owner: Owner | None = None
    priority: int = 0
    priority_class: str = ""
    grace_period_seconds: int = 30
    started: datetime | None = None
    deletion_timestamp: datetime | None = None
    finalizers: tuple[str, ...] = ()
    is_mirror: bool = False
    has_empty_dir: bool = False
    claims: tuple[str, ...] = ()
    ephemeral_claims: tuple[str, ...] = ()
    has_inline_disk: bool = False
    tolerations: tuple[Toleration, ...] = ()
    has_host_path: bool = False
    pinned_to_node: bool = False
    unschedulable_message: str = ""
    resource_version: str = ""
    ready_since: datetime | None = None
    created: datetime | None = None
    release_record: ReleaseRecord | None = None
    released: bool = False
    has_foreign_record: bool = False
    evicted: bool = False
    other_owner_references: tuple[Mapping[str, Any], ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def pod_template_hash(self) -> str:
        """Its `pod-template-hash`: which ReplicaSet of its Deployment it belongs to."""
        return self.labels.get(names.POD_TEMPLATE_HASH, "")

    @property
    def returned(self) -> bool:
        """Whether its ReplicaSet is its controller again, and the record of the move is still to be cleared."""
        return self.release_record is not None and not self.released

    @property
    def key(self) -> str:
        """Namespace and name, as people write them."""
        return f"{self.namespace}/{self.name}"

    @property
    def all_claims(self) -> tuple[str, ...]:
        """All its claims."""
        return self.claims + self.ephemeral_claims

    @property
    def finished(self) -> bool:
        """Its containers have ended for good: nothing is lost by removing it, and no budget counts it."""
        return self.phase in TERMINAL_PHASES

    @property
    def counts_in_budgets(self) -> bool:
        """Whether the API server asks PodDisruptionBudgets before it evicts the pod (eviction.go, canIgnorePDB)."""
        return not self.finished and self.phase != "Pending" and self.deletion_timestamp is None

    @property
    def tolerates_cordon(self) -> bool:
        """Would be bound to the cordoned node again at once: moving it is endless."""
        return any(
            t.operator == "Exists" and t.effect in ("", "NoSchedule") and t.key in ("", CORDON_TAINT_KEY)
            for t in self.tolerations
        ) or any(
            t.operator in ("", "Equal") and t.key == CORDON_TAINT_KEY and not t.value and t.effect in ("", "NoSchedule")
            for t in self.tolerations
        )


def parse_pod(raw: Mapping[str, Any]) -> Pod:
    """Project a raw Pod. Raises UnreadableError without name, namespace or UID."""
    raw = object_schemas.sanitize_pod(raw)
    if not raw["metadata"].get("uid"):
        raise UnreadableError("it has no metadata.uid")
    meta, spec, status = raw["metadata"], raw["spec"], raw["status"]
    annotations, labels = meta.get("annotations") or {}, meta.get("labels") or {}
    volumes = spec.get("volumes") or ()
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    ready, scheduled = conditions.get("Ready", {}), conditions.get("PodScheduled", {})
    move, released = read_record(meta)
    disrupted = conditions.get("DisruptionTarget", {})
    return Pod(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta.get("resourceVersion", ""),
        node=spec.get("nodeName", ""),
        phase=status.get("phase", ""),
        ready=ready.get("status") == "True",
        ready_since=parse_time(ready.get("lastTransitionTime")),
        owner=_parse_owner(meta, move if released else None),
        priority=bounded_integer(spec.get("priority"), -INT32, INT32, 0),
        priority_class=spec.get("priorityClassName", ""),
        grace_period_seconds=bounded_integer(spec.get("terminationGracePeriodSeconds"), 0, MAX_SECONDS, 30),
        created=parse_time(meta.get("creationTimestamp")),
        started=parse_time(status.get("startTime")),
        # Whatever it is, it means that the pod is Terminating; one beyond all bounds is never overdue.
        deletion_timestamp=(parse_time(meta["deletionTimestamp"]) or LATEST_TIME)
        if "deletionTimestamp" in meta
        else None,
        finalizers=tuple(meta.get("finalizers") or ()),
        is_mirror=names.MIRROR_POD in annotations,
        has_empty_dir=any("emptyDir" in volume for volume in volumes),
        has_host_path=any("hostPath" in volume for volume in volumes),
        claims=tuple(v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v),
        ephemeral_claims=tuple(f"{meta['name']}-{v.get('name', '')}" for v in volumes if "ephemeral" in v),
        has_inline_disk=any(kind in v for v in volumes for kind in _INLINE_DISK_SOURCES),
        pinned_to_node=_is_pinned_to_node(spec),
        unschedulable_message=bounded_text(scheduled.get("message"), _MAX_TEXT_LENGTH)
        if scheduled.get("reason") == "Unschedulable"
        else "",
        tolerations=tuple(
            Toleration(t.get("key", ""), t.get("operator", ""), t.get("value", ""), t.get("effect", ""))
            for t in spec.get("tolerations") or ()
        ),
        release_record=move,
        released=released,
        has_foreign_record=names.MOVE in annotations and move is None,
        evicted=disrupted.get("status") == "True" and disrupted.get("reason") == _EVICTED_REASON,
        other_owner_references=tuple(o for o in meta.get("ownerReferences") or () if not o.get("controller")),
        labels=dict(labels),
        annotations={
            key: bounded_text(annotations[key], _MAX_TEXT_LENGTH) for key in _KEPT_ANNOTATIONS if key in annotations
        },
    )


def _parse_owner(meta: Mapping[str, Any], release: ReleaseRecord | None) -> Owner | None:
    if release:
        return Owner("ReplicaSet", release.replica_set, release.replica_set_uid)
    owner = controller_reference(meta)
    if owner is None:
        return None
    group = owner.get("apiVersion", "").rpartition("/")[0]
    kind = owner["kind"] if group in _BUILTIN_GROUPS else f"{owner['kind']}.{group}"
    return Owner(kind, owner["name"], owner["uid"])


def _is_pinned_to_node(spec: Mapping[str, Any]) -> bool:
    """Whether the pod asks for one node by name."""
    if _HOSTNAME in (spec.get("nodeSelector") or {}):
        return True
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    named = [_node_names_in(term) for term in terms]
    return bool(named) and all(named) and len(set().union(*named)) == 1


def _node_names_in(term: Mapping[str, Any]) -> set[str]:
    """The nodes that a term of node affinity asks for by name; empty where it asks for none so."""
    asks = [*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ())]
    found = (a for a in asks if a.get("key") in (_HOSTNAME, "metadata.name") and a.get("operator") == "In")
    return {str(value) for a in found for value in a.get("values") or ()}
