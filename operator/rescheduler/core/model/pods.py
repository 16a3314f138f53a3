"""Pods: the fields that a drain uses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rescheduler.api import names
from rescheduler.api.untrusted import (
    INT32,
    LATEST_TIME,
    MAX_SECONDS,
    UnreadableError,
    bounded_integer,
    bounded_text,
    parse_time,
    truncate_with_digest,
)
from rescheduler.core.model import messages, object_schemas
from rescheduler.core.model.host_paths import parse_host_paths
from rescheduler.core.model.nodes import CORDON_TAINT, matches_taint
from rescheduler.core.model.raw import (
    HOSTNAME_LABEL,
    NAME_FIELD,
    RawMetadata,
    RawObject,
    RawOwnerReference,
    RawPod,
    RawPodSpec,
    claim_names,
    controller_reference,
    required_node_terms,
)
from rescheduler.core.model.release_record import ReleaseRecord, read_record

TERMINAL_PHASES = ("Succeeded", "Failed")
_BUILTIN_GROUPS = ("", "apps", "batch")
_KEPT_ANNOTATIONS = (
    names.DO_NOT_DISRUPT,
    names.REPLACEMENT,
    names.POD_DELETION_COST,
    names.KARPENTER_DO_NOT_DISRUPT,
    names.SAFE_TO_EVICT,
    names.PREFER_NO_EVICTION,
    names.EVICT_ONLY,
)
_MAX_TEXT_LENGTH = 1024
_MAX_KIND_LENGTH, _MAX_NAME_LENGTH = 317, 253
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
_EVICTED_REASON = "EvictionByEvictionAPI"
"""Reason of the condition DisruptionTarget. The API server sets it when it accepts an eviction."""
_STARTING_REASONS = ("", "ContainerCreating", "PodInitializing")
"""Reasons of a waiting container that starts as expected, such as during the pull of its image."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The controller of a pod. For a released pod: the ReplicaSet in its release record.

    Attributes:
        kind: kind of the controller; a kind outside the built-in groups is followed by its group, as `Kind.group`.
    """

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Toleration:
    """Toleration of a pod; an empty key with `Exists` tolerates every taint."""

    key: str
    operator: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A Pod: the fields that a drain uses.

    Attributes:
        node: name of its node; empty before the scheduler places the pod.
        owner: its controller; None if no controller would recreate the pod.
        started: `startTime`, by the kubelet's clock; None if absent.
        deletion_timestamp: the deletionTimestamp, which includes the grace period; None if the pod is not Terminating.
        claims: names of its PersistentVolumeClaims.
        ephemeral_claims: names of the claims of its generic ephemeral volumes.
        has_inline_disk: whether a volume names a disk without a claim.
        host_paths: hostPath volumes by their path; read-only mounts of single files do not count.
        has_host_data: whether the pod may write data to one of these paths, so that the data is on this node only.
        pinned_to_node: whether node selector or required affinity names a single node.
        unschedulable_message: the scheduler's message if it finds no node for the pod; empty otherwise.
        scheduling_gates: names of the gates that keep the pod from the scheduler.
        start_failure: why its containers do not start or keep running; empty if they do, or if they still start.
        resource_version: the resourceVersion of the object that was parsed.
        ready_since: time of the last change of `Ready`, by the kubelet's clock; None if absent.
        release_record: the record of a release, if the controller of the pod agrees with it; None otherwise.
        released: whether its controller is the Deployment.
        has_foreign_record: whether it has the annotation of a release record that does not count.
        evicted: whether the API server accepted an eviction of the pod.
        disruption: why Kubernetes removes the pod (reason and message of `DisruptionTarget`); empty if unknown.
        other_owner_references: the raw ownerReferences without the one of the controller.
        annotations: only those that the operator reads.
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
    host_paths: tuple[str, ...] = ()
    has_host_data: bool = False
    pinned_to_node: bool = False
    unschedulable_message: str = ""
    scheduling_gates: tuple[str, ...] = ()
    start_failure: str = ""
    resource_version: str = ""
    ready_since: datetime | None = None
    created: datetime | None = None
    release_record: ReleaseRecord | None = None
    released: bool = False
    has_foreign_record: bool = False
    evicted: bool = False
    disruption: str = ""
    other_owner_references: tuple[RawOwnerReference, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def pod_template_hash(self) -> str:
        """Return the `pod-template-hash`, which differs between the ReplicaSets of a Deployment; empty if absent."""
        return self.labels.get(names.POD_TEMPLATE_HASH, "")

    @property
    def returned(self) -> bool:
        """Whether the ReplicaSet is the controller again, and the release record is not cleared yet."""
        return self.release_record is not None and not self.released

    @property
    def key(self) -> str:
        """Return `namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def all_claims(self) -> tuple[str, ...]:
        """Return the names of all its claims, ephemeral ones included."""
        return self.claims + self.ephemeral_claims

    @property
    def finished(self) -> bool:
        """Whether all containers have ended for good; no PodDisruptionBudget counts such a pod."""
        return self.phase in TERMINAL_PHASES

    @property
    def counts_in_budgets(self) -> bool:
        """Whether the API server asks PodDisruptionBudgets before it evicts the pod (eviction.go, canIgnorePDB)."""
        return not self.finished and self.phase != "Pending" and self.deletion_timestamp is None

    @property
    def tolerates_cordon(self) -> bool:
        """Whether the scheduler may place the pod on a cordoned node, so that an eviction may move nothing."""
        return any(matches_taint(t.key, t.operator, t.value, t.effect, CORDON_TAINT) for t in self.tolerations)


def parse_pod(raw: RawPod) -> Pod:
    """Parse a raw Pod. Raises UnreadableError without name, namespace or UID."""
    raw = object_schemas.sanitize_pod(raw)
    if not raw["metadata"].get("uid"):
        raise UnreadableError("metadata.uid is missing")
    meta, spec, status = raw["metadata"], raw["spec"], raw["status"]
    annotations, labels = meta.get("annotations") or {}, meta.get("labels") or {}
    volumes = spec.get("volumes") or ()
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    ready, scheduled = conditions.get("Ready", {}), conditions.get("PodScheduled", {})
    record, released = read_record(meta)
    host_paths = parse_host_paths(spec)
    disrupted = conditions.get("DisruptionTarget", {})
    disrupted = disrupted if disrupted.get("status") == "True" else {}
    return Pod(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta.get("resourceVersion", ""),
        node=spec.get("nodeName", ""),
        phase=status.get("phase", ""),
        ready=ready.get("status") == "True",
        ready_since=parse_time(ready.get("lastTransitionTime")),
        owner=_parse_owner(meta, record if released else None),
        priority=bounded_integer(spec.get("priority"), -INT32, INT32, 0),
        priority_class=spec.get("priorityClassName", ""),
        grace_period_seconds=bounded_integer(spec.get("terminationGracePeriodSeconds"), 0, MAX_SECONDS, 30),
        created=parse_time(meta.get("creationTimestamp")),
        started=parse_time(status.get("startTime")),
        # An unreadable deletionTimestamp also means Terminating; LATEST_TIME keeps the pod from being overdue.
        deletion_timestamp=(parse_time(meta["deletionTimestamp"]) or LATEST_TIME)
        if "deletionTimestamp" in meta
        else None,
        finalizers=tuple(meta.get("finalizers") or ()),
        is_mirror=names.MIRROR_POD in annotations,
        has_empty_dir=any("emptyDir" in volume for volume in volumes),
        host_paths=tuple(found.path for found in host_paths),
        has_host_data=any(found.may_hold_data for found in host_paths),
        claims=claim_names(spec),
        ephemeral_claims=tuple(f"{meta['name']}-{v.get('name', '')}" for v in volumes if "ephemeral" in v),
        has_inline_disk=any(kind in v for v in volumes for kind in _INLINE_DISK_SOURCES),
        pinned_to_node=_is_pinned_to_node(spec),
        unschedulable_message=bounded_text(scheduled.get("message"), _MAX_TEXT_LENGTH)
        if scheduled.get("reason") == "Unschedulable"
        else "",
        scheduling_gates=tuple(gate["name"] for gate in spec.get("schedulingGates") or ()),
        start_failure=_start_failure(status, conditions),
        tolerations=tuple(
            Toleration(t.get("key", ""), t.get("operator", ""), t.get("value", ""), t.get("effect", ""))
            for t in spec.get("tolerations") or ()
        ),
        release_record=record,
        released=released,
        has_foreign_record=names.MOVE in annotations and record is None,
        evicted=disrupted.get("reason") == _EVICTED_REASON,
        disruption=bounded_text(
            ": ".join(text for key in ("reason", "message") if (text := disrupted.get(key))), _MAX_TEXT_LENGTH
        ),
        other_owner_references=tuple(o for o in meta.get("ownerReferences") or () if not o.get("controller")),
        labels=dict(labels),
        annotations={
            key: bounded_text(annotations[key], _MAX_TEXT_LENGTH) for key in _KEPT_ANNOTATIONS if key in annotations
        },
    )


def _parse_owner(meta: RawMetadata, release: ReleaseRecord | None) -> Owner | None:
    if release:
        return Owner("ReplicaSet", release.replica_set, release.replica_set_uid)
    owner = controller_reference(meta)
    if owner is None:
        return None
    group = owner.get("apiVersion", "").rpartition("/")[0]
    kind = owner["kind"] if group in _BUILTIN_GROUPS else f"{owner['kind']}.{group}"
    # The API server limits no text of an owner reference, but texts of the status are limited.
    return Owner(
        bounded_text(kind, _MAX_KIND_LENGTH),
        bounded_text(owner["name"], _MAX_NAME_LENGTH),
        truncate_with_digest(owner["uid"], _MAX_NAME_LENGTH),
    )


def _start_failure(status: RawObject, conditions: Mapping[str, RawObject]) -> str:
    """Return why containers do not start or keep running: image, configuration, crash; empty if nothing shows it."""
    if conditions.get("Ready", {}).get("status") == "True":
        return ""
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        state, last_state = container.get("state") or {}, container.get("lastState") or {}
        waiting = state.get("waiting") or {}
        if waiting.get("reason", "") not in _STARTING_REASONS:
            failure = messages.container_waits(container["name"], waiting["reason"], waiting.get("message", ""))
            return failure[:_MAX_TEXT_LENGTH]
        ended = state.get("terminated") or last_state.get("terminated")
        if ended and (ended.get("exitCode") or (not state.get("terminated") and not waiting)):
            return messages.container_ended(container["name"], ended.get("exitCode", 0))[:_MAX_TEXT_LENGTH]
    if status.get("phase") == "Pending" and conditions.get("PodReadyToStartContainers", {}).get("status") == "False":
        return messages.NOT_READY_TO_START_CONTAINERS
    return ""


def _is_pinned_to_node(spec: RawPodSpec) -> bool:
    """Whether node selector or required node affinity names a single node."""
    if HOSTNAME_LABEL in (spec.get("nodeSelector") or {}):
        return True
    named = [_node_names_in(term) for term in required_node_terms(spec) or ()]
    return bool(named) and all(named) and len(set().union(*named)) == 1


def _node_names_in(term: RawObject) -> set[str]:
    """Return the names of nodes that a term of node affinity requires; empty if the term requires no name."""
    expressions = [*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ())]
    by_name = (e for e in expressions if e.get("key") in (HOSTNAME_LABEL, NAME_FIELD) and e.get("operator") == "In")
    return {str(value) for e in by_name for value in e.get("values") or ()}
