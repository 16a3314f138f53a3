"""Pods, as far as moving them cares."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rescheduler.api import names
from rescheduler.api.untrusted import INT32, LATEST, MOST_SECONDS, UnreadableError, integer, text, time
from rescheduler.core.model import object_schemas
from rescheduler.core.model.release_record import Move, controller, record

CORDON_TAINT = "node.kubernetes.io/unschedulable"
FINISHED = ("Succeeded", "Failed")
_KUBERNETES_OWN = ("", "apps", "batch")
_KEPT_ANNOTATIONS = (names.DO_NOT_DISRUPT, names.REPLACEMENT, names.DELETION_COST)
_MOST_WORDS = 1024
_DISKS = (
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
_EVICTION = "EvictionByEvictionAPI"
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
    grace: int = 30
    started: datetime | None = None
    deleting: datetime | None = None
    finalizers: tuple[str, ...] = ()
    mirror: bool = False
    empty_dir: bool = False
    claims: tuple[str, ...] = ()
    ephemeral: tuple[str, ...] = ()
    disk: bool = False
    tolerations: tuple[Toleration, ...] = ()
    host_path: bool = False
    pinned: bool = False
    unschedulable: str = ""
    version: str = ""
    ready_since: datetime | None = None
    created: datetime | None = None
    move: Move | None = None
    released: bool = False
    foreign_move: bool = False
    evicted: bool = False
    references: tuple[Mapping[str, Any], ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """Its `pod-template-hash`: which ReplicaSet of its Deployment it belongs to."""
        return self.labels.get(names.HASH, "")

    @property
    def returned(self) -> bool:
        """Whether its ReplicaSet is its controller again, and the record of the move is still to be cleared."""
        return self.move is not None and not self.released

    @property
    def key(self) -> str:
        """Namespace and name, as people write them."""
        return f"{self.namespace}/{self.name}"

    @property
    def volume_claims(self) -> tuple[str, ...]:
        """All its claims."""
        return self.claims + self.ephemeral

    @property
    def finished(self) -> bool:
        """Its containers have ended for good: nothing is lost by removing it, and no budget counts it."""
        return self.phase in FINISHED

    @property
    def counts_in_budgets(self) -> bool:
        """Whether the API server asks PodDisruptionBudgets before it evicts the pod (eviction.go, canIgnorePDB)."""
        return not self.finished and self.phase != "Pending" and self.deleting is None

    @property
    def tolerates_cordon(self) -> bool:
        """Would be bound to the cordoned node again at once: moving it is endless."""
        return any(
            t.operator == "Exists" and t.effect in ("", "NoSchedule") and t.key in ("", CORDON_TAINT)
            for t in self.tolerations
        ) or any(
            t.operator in ("", "Equal") and t.key == CORDON_TAINT and not t.value and t.effect in ("", "NoSchedule")
            for t in self.tolerations
        )


def pod(raw: Mapping[str, Any]) -> Pod:
    """Project a raw Pod. Raises UnreadableError without name, namespace or UID."""
    raw = object_schemas.pod(raw)
    if not raw["metadata"].get("uid"):
        raise UnreadableError("it has no metadata.uid")
    meta, spec, status = raw["metadata"], raw["spec"], raw["status"]
    annotations, labels = meta.get("annotations") or {}, meta.get("labels") or {}
    volumes = spec.get("volumes") or ()
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    ready, scheduled = conditions.get("Ready", {}), conditions.get("PodScheduled", {})
    move, released = record(meta)
    disrupted = conditions.get("DisruptionTarget", {})
    return Pod(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        version=meta.get("resourceVersion", ""),
        node=spec.get("nodeName", ""),
        phase=status.get("phase", ""),
        ready=ready.get("status") == "True",
        ready_since=time(ready.get("lastTransitionTime")),
        owner=_owner(meta, move if released else None),
        priority=integer(spec.get("priority"), -INT32, INT32, 0),
        priority_class=spec.get("priorityClassName", ""),
        grace=integer(spec.get("terminationGracePeriodSeconds"), 0, MOST_SECONDS, 30),
        created=time(meta.get("creationTimestamp")),
        started=time(status.get("startTime")),
        # Whatever it is, it means that the pod is Terminating; one beyond all bounds is never overdue.
        deleting=(time(meta["deletionTimestamp"]) or LATEST) if "deletionTimestamp" in meta else None,
        finalizers=tuple(meta.get("finalizers") or ()),
        mirror=names.MIRROR in annotations,
        empty_dir=any("emptyDir" in volume for volume in volumes),
        host_path=any("hostPath" in volume for volume in volumes),
        claims=tuple(v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v),
        ephemeral=tuple(f"{meta['name']}-{v.get('name', '')}" for v in volumes if "ephemeral" in v),
        disk=any(kind in v for v in volumes for kind in _DISKS),
        pinned=_pinned(spec),
        unschedulable=text(scheduled.get("message"), _MOST_WORDS) if scheduled.get("reason") == "Unschedulable" else "",
        tolerations=tuple(
            Toleration(t.get("key", ""), t.get("operator", ""), t.get("value", ""), t.get("effect", ""))
            for t in spec.get("tolerations") or ()
        ),
        move=move,
        released=released,
        foreign_move=names.MOVE in annotations and move is None,
        evicted=disrupted.get("status") == "True" and disrupted.get("reason") == _EVICTION,
        references=tuple(o for o in meta.get("ownerReferences") or () if not o.get("controller")),
        labels=dict(labels),
        annotations={key: text(annotations[key], _MOST_WORDS) for key in _KEPT_ANNOTATIONS if key in annotations},
    )


def _owner(meta: Mapping[str, Any], released: Move | None) -> Owner | None:
    if released:
        return Owner("ReplicaSet", released.replica_set, released.replica_set_uid)
    owner = controller(meta)
    if owner is None:
        return None
    group = owner.get("apiVersion", "").rpartition("/")[0]
    kind = owner["kind"] if group in _KUBERNETES_OWN else f"{owner['kind']}.{group}"
    return Owner(kind, owner["name"], owner["uid"])


def _pinned(spec: Mapping[str, Any]) -> bool:
    """Whether the pod asks for one node by name."""
    if _HOSTNAME in (spec.get("nodeSelector") or {}):
        return True
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    named = [_named(term) for term in terms]
    return bool(named) and all(named) and len(set().union(*named)) == 1


def _named(term: Mapping[str, Any]) -> set[str]:
    """The nodes that a term of node affinity asks for by name; empty where it asks for none so."""
    asks = [*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ())]
    found = (a for a in asks if a.get("key") in (_HOSTNAME, "metadata.name") and a.get("operator") == "In")
    return {str(value) for a in found for value in a.get("values") or ()}
