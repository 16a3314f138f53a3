"""Kubernetes objects for unit tests. A builder has a default for each field that a test does not care about."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, Unpack

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, NodeDrainRequest, NodeDrainSpec, NodeDrainStatus, RequestReason
from rescheduler.api.policies import ReschedulePolicy, ReschedulePolicySpec
from rescheduler.api.pools import NamespacePool
from rescheduler.core.model.namespaces import Namespace
from rescheduler.core.model.nodes import Node, NodeCondition, Taint
from rescheduler.core.model.pods import Owner, Pod, Toleration
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.release_record import ReleaseRecord
from rescheduler.core.pools.membership import PoolMemberships

HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class PodFields(TypedDict, total=False):
    """The fields of a Pod that a test may give as they are."""

    uid: str
    node: str
    phase: str
    owner: Owner | None
    priority: int
    grace_period_seconds: int
    started: datetime | None
    deletion_timestamp: datetime | None
    claims: tuple[str, ...]
    ephemeral_claims: tuple[str, ...]
    has_inline_disk: bool
    host_paths: tuple[str, ...]
    has_host_data: bool
    pinned_to_node: bool
    unschedulable_message: str
    resource_version: str
    ready_since: datetime | None
    created: datetime | None
    tolerations: tuple[Toleration, ...]
    release_record: ReleaseRecord | None
    released: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


def pod(name: str = "p", *, namespace: str = "s", ready: bool = True, **fields: Unpack[PodFields]) -> Pod:
    """Return a pod of the ReplicaSet `web`; its UID is its name."""
    given: PodFields = {"uid": name, "owner": Owner("ReplicaSet", "web", "r1"), **fields}
    return Pod(namespace, name, ready=ready, **given)


def drain(
    name: str = "n",
    *,
    age: int = 0,
    begun: bool = False,
    reasons: Sequence[RequestReason] = (RequestReason.MAINTENANCE,),
    annotations: dict[str, str] | None = None,
    **status: Any,
) -> NodeDrain:
    """Return the NodeDrain of the node with this name.

    Args:
        age: seconds since it was created and, if it has begun, since it started.
        begun: whether the drain has started.
        reasons: the reasons of its requests.
        status: fields of its status.
    """
    created = NOW - timedelta(seconds=age)
    return NodeDrain(
        name=name,
        uid=name,
        resource_version="1",
        generation=1,
        created=created,
        deletion_timestamp=None,
        finalizers=(),
        annotations=annotations or {},
        spec=NodeDrainSpec(node_name=name, requests=tuple(NodeDrainRequest(reason=reason) for reason in reasons)),
        status=NodeDrainStatus(**({"started_at": created} if begun else {}) | status),
    )


class NodeFields(TypedDict, total=False):
    """The fields of a Node that a test may give as they are."""

    uid: str
    resource_version: str
    boot_id: str
    created: datetime | None
    unschedulable: bool
    deleting: bool
    annotations: Mapping[str, str]
    taints: tuple[Taint, ...]


def node(
    name: str = "n",
    *,
    ready: str = "True",
    cpu: int = 1000,
    pool: str = "",
    zone: str = "",
    labels: Mapping[str, str] | None = None,
    conditions: tuple[NodeCondition, ...] | None = None,
    **fields: Unpack[NodeFields],
) -> Node:
    """Return a node with 1 GiB for 10 pods.

    Args:
        ready: status of its condition Ready.
        cpu: its allocatable CPU, in thousandths.
        pool: its pool; empty if it has none.
        labels: its labels besides hostname, pool and zone.
        conditions: its conditions, if not only Ready.
    """
    known = {HOST: name, names.NODE_POOL: pool, ZONE: zone}
    given: NodeFields = {"uid": name, **fields}
    return Node(
        name,
        labels={key: value for key, value in known.items() if value} | dict(labels or {}),
        conditions=(NodeCondition("Ready", ready),) if conditions is None else conditions,
        allocatable={"cpu": cpu, "memory": 2**30, "pods": 10},
        **given,
    )


def policy(name: str = "p", **spec: Any) -> ReschedulePolicy:
    """Return a policy with these fields in its raw spec."""
    return ReschedulePolicy(name, name, 1, ReschedulePolicySpec.model_validate(spec))


def pool(name: str = "shop", *, age: int = 0, mode: str = "Enforce", **spec: Any) -> NamespacePool:
    """Return a pool of the nodes with label `disk=ssd`.

    Args:
        age: days since it was created.
        spec: other fields of its raw spec.
    """
    return NamespacePool.from_object(raw_pool(name, age=age, mode=mode, **spec))


def namespace(name: str, **labels: str) -> Namespace:
    return Namespace(name, name, labels=labels)


def memberships_of(*objects: NamespacePool | Namespace | Node) -> PoolMemberships:
    """Return the memberships of a cluster with these objects; the operator runs in `rescheduler-system`."""
    found = PoolMemberships(exempt_namespaces=["rescheduler-system"])
    for each in objects:
        match each:
            case NamespacePool():
                found.put_pool(each)
            case Namespace():
                found.put_namespace(each)
            case Node():
                found.put_node(each)
    return found


def raw_object(name: str, *, version: int = 1, metadata: RawObject | None = None, **fields: Any) -> RawObject:
    """Return a raw object that was created at `NOW`; its UID is its name.

    Args:
        version: its resourceVersion.
        metadata: its other metadata.
        fields: its other fields, such as `spec`.
    """
    known = {"name": name, "uid": name, "resourceVersion": str(version), "creationTimestamp": NOW.isoformat()}
    return {"metadata": {**known, **(metadata or {})}, **fields}


def raw_drain(
    name: str = "n",
    *,
    version: int = 1,
    requests: Sequence[RawObject] = ({"reason": "Maintenance"},),
    status: RawObject | None = None,
) -> RawObject:
    """Return the raw NodeDrain of the node with this name."""
    spec = {"nodeName": name, "requests": list(requests)}
    return raw_object(name, version=version, metadata={"generation": 1}, spec=spec, status=status or {})


def raw_pool(name: str = "shop", *, age: int = 0, **spec: Any) -> RawObject:
    """Return a raw pool of the nodes with label `disk=ssd`.

    Args:
        age: days since it was created.
        spec: other fields of its raw spec.
    """
    spec.setdefault("nodeSelector", {"matchLabels": {"disk": "ssd"}})
    created = (NOW - timedelta(days=age)).isoformat()
    return raw_object(name, metadata={"creationTimestamp": created}, spec=spec)


def raw_budget(name: str = "b", *, app: str = "a", **status: int) -> RawObject:
    """Return a raw PodDisruptionBudget in namespace `s`.

    Args:
        app: label of its pods.
        status: fields of its status.
    """
    spec = {"selector": {"matchLabels": {"app": app}}}
    return raw_object(name, metadata={"namespace": "s"}, spec=spec, status=status)


def raw_node(
    name: str = "n",
    *,
    version: int = 1,
    cpu: str = "4",
    pods: str = "20",
    zone: str = "",
    labels: Mapping[str, str] | None = None,
    resources: dict[str, str] | None = None,
    **spec: Any,
) -> RawObject:
    """Return a raw node that is Ready.

    Args:
        labels: its labels besides hostname and zone.
        resources: its other allocatable resources.
        spec: fields of its raw spec.
    """
    known = {HOST: name} | ({ZONE: zone} if zone else {}) | dict(labels or {})
    allocatable = {"cpu": cpu, "memory": "16Gi", "pods": pods, **(resources or {})}
    status = {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}]}
    return raw_object(name, version=version, metadata={"labels": known}, spec=spec, status=status)


def raw_pod(
    name: str = "p",
    *,
    namespace: str = "s",
    node: str = "n",
    cpu: str = "1",
    phase: str = "Running",
    labels: dict[str, str] | None = None,
    ports: Sequence[RawObject] = (),
    resources: dict[str, str] | None = None,
    **spec: Any,
) -> RawObject:
    """Return a raw pod with one container.

    Args:
        node: name of its node; empty if it has none.
        labels: the default is `app=a`.
        ports: ports of the container.
        resources: requests of other resources than CPU.
        spec: fields of its raw spec.
    """
    meta = {"namespace": namespace, "name": name, "uid": name, "labels": labels or {"app": "a"}}
    requests = {"cpu": cpu, **(resources or {})}
    container = {"name": "c", "resources": {"requests": requests}, "ports": list(ports)}
    return {
        "metadata": meta,
        "spec": {"nodeName": node, "containers": [container], **spec},
        "status": {"phase": phase},
    }


def release_record(cause: str = "NodeDrain/n", *, attempt: int = 1, **changes: Any) -> ReleaseRecord:
    """Return the record of a pod that was released at `NOW` from ReplicaSet `web-a` of Deployment `web`.

    Args:
        changes: any other fields.
    """
    fields: dict[str, Any] = {
        "deletion_cost": None,
        "ready_pods": 3,
        "released_at": NOW,
        "deployment": "web",
        "deployment_uid": "web",
        "replica_set": "web-a",
        "replica_set_uid": "web-a",
    }
    return ReleaseRecord(cause, attempt=attempt, **fields | changes)


def controlled_by(raw: RawObject, kind: str, name: str) -> RawObject:
    """Return the raw object with this controller, whose UID is its name."""
    version = "batch/v1" if kind == "Job" else "apps/v1"
    reference = {"apiVersion": version, "kind": kind, "name": name, "uid": name, "controller": True}
    return {**raw, "metadata": {**raw["metadata"], "ownerReferences": [reference]}}


def raw_deployment(name: str = "web", *, replicas: int = 3, revision: str = "1", **spec: Any) -> RawObject:
    """Return a raw Deployment in namespace `s`; its UID is its name.

    Args:
        spec: other fields of its raw spec.
    """
    meta = {"namespace": "s", "name": name, "uid": name, "annotations": {"deployment.kubernetes.io/revision": revision}}
    return {"metadata": meta, "spec": {"replicas": replicas, **spec}, "status": {}}


def raw_replica_set(
    name: str = "web-a", *, deployment: str = "web", replicas: int = 3, revision: str = "1", app: str = "web"
) -> RawObject:
    """Return a raw ReplicaSet in namespace `s`; its UID is its name, and its template hash is the part after the dash.

    Args:
        deployment: name of its controller; empty if it has none.
        app: label of its pods.
    """
    labels = {"app": app, "pod-template-hash": name.rpartition("-")[2]}
    annotations = {"deployment.kubernetes.io/revision": revision}
    meta = {"namespace": "s", "name": name, "uid": name, "labels": labels, "annotations": annotations}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}}
    raw = {"metadata": meta, "spec": spec, "status": {}}
    return controlled_by(raw, "Deployment", deployment) if deployment else raw


def raw_replica(
    name: str = "a",
    *,
    replica_set: str = "web-a",
    app: str = "web",
    node: str = "n",
    ready: bool = True,
    record: ReleaseRecord | None = None,
    annotations: Mapping[str, str] | None = None,
) -> RawObject:
    """Return a raw pod of a ReplicaSet in namespace `s`.

    Args:
        replica_set: its controller, unless the pod is released.
        app: its label besides the template hash.
        record: its release record; its controller then is the Deployment of the record.
        annotations: its annotations besides the record.
    """
    labels = {"app": app, "pod-template-hash": replica_set.rpartition("-")[2]}
    raw = raw_pod(name, node=node, labels=labels)
    raw["status"]["conditions"] = [{"type": "Ready", "status": str(ready)}]
    moved = {names.MOVE: record.to_annotation()} if record else {}
    raw["metadata"]["annotations"] = {**moved, **(annotations or {})}
    return controlled_by(raw, *(("Deployment", record.deployment) if record else ("ReplicaSet", replica_set)))
