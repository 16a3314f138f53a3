"""Deployments with their ReplicaSets and pods, and DaemonSets: the fields that decisions about their pods use."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rescheduler.api import names
from rescheduler.api.selectors import LabelSelector
from rescheduler.api.untrusted import INT32, bounded_integer, bounded_text, parse_seconds, truncate_with_digest
from rescheduler.core.model import object_schemas
from rescheduler.core.model.node_affinity import NodeConstraints, parse_node_constraints
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.raw import RawObject, RawPodTemplate, controller_reference

_REVISION = "deployment.kubernetes.io/revision"
_MAX_REVISION_LENGTH = 253
_MAX_MESSAGE_LENGTH = 1024
_TEMPLATE_CONTAINER_FIELDS = ("name", "resources", "restartPolicy", "restartPolicyRules", "ports", "volumeMounts")
_JOB_CONTROLLER = "kubernetes.io/job-controller"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A Deployment.

    Attributes:
        revision: annotation `deployment.kubernetes.io/revision`; empty if absent.
        observed: whether the deployment controller has seen the current spec.
        allows_surge: whether an additional pod may run (neither `Recreate` nor `maxSurge: 0`).
        rolled_out: whether the pods of the current spec are all its pods, and all are Ready.
        min_ready_time: how long a pod must be Ready to count (`minReadySeconds`).
    """

    namespace: str
    name: str
    uid: str
    replicas: int = 1
    revision: str = ""
    observed: bool = True
    rolled_out: bool = False
    paused: bool = False
    allows_surge: bool = True
    deleting: bool = False
    min_ready_time: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class ReplicaSet:
    """A ReplicaSet.

    Attributes:
        deployment_uid: UID of its Deployment; empty if its controller is no Deployment.
        replica_failure: the API server's message if the ReplicaSet cannot create a pod; None if it can.
        min_ready_time: how long a pod must be Ready to count (`minReadySeconds`).
        deployment_selector: its selector without `pod-template-hash`, as a query of the API. All ReplicaSets of a
            Deployment share it.
        selector: the whole selector; None accepts every pod.
        template: raw template of its pods, only with the fields of containers that a plan reads; None without replicas,
            because a namespace may have thousands of old ReplicaSets.
    """

    namespace: str
    name: str
    uid: str
    deployment_uid: str = ""
    pod_template_hash: str = ""
    replicas: int = 0
    revision: str = ""
    replica_failure: str | None = None
    deleting: bool = False
    min_ready_time: timedelta = timedelta()
    deployment_selector: str = ""
    selector: LabelSelector | None = None
    template: RawPodTemplate | None = field(default=None, compare=False, repr=False)

    def selects(self, pod: Pod) -> bool:
        """Whether the selector matches the pod; the ReplicaSet controller drops a pod that no longer matches."""
        return self.selector is None or self.selector.matches(pod.labels)


@dataclass(frozen=True, slots=True)
class DaemonSet:
    """A DaemonSet, with the node constraints of its pods."""

    namespace: str
    name: str
    node_constraints: NodeConstraints = field(default_factory=NodeConstraints)


def parse_daemon_set(raw: RawObject) -> DaemonSet:
    """Parse a raw DaemonSet. Raises UnreadableError without name or namespace."""
    raw = object_schemas.sanitize_daemon_set(raw)
    meta, template = raw["metadata"], raw["spec"].get("template") or {}
    return DaemonSet(meta["namespace"], meta["name"], parse_node_constraints(template.get("spec") or {}))


def parse_deployment(raw: RawObject) -> Deployment:
    """Parse a raw Deployment. Raises UnreadableError without name, namespace or UID."""
    raw = object_schemas.sanitize_deployment(raw)
    meta, spec, status = raw["metadata"], raw["spec"], raw["status"]
    strategy = spec.get("strategy") or {}
    surge = (strategy.get("rollingUpdate") or {}).get("maxSurge", "25%")
    return Deployment(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        replicas=bounded_integer(spec.get("replicas"), 0, INT32, 1),
        revision=truncate_with_digest((meta.get("annotations") or {}).get(_REVISION), _MAX_REVISION_LENGTH),
        observed=status.get("observedGeneration", 0) >= meta.get("generation", 0),
        rolled_out=all(
            status.get(count, 0) == spec.get("replicas", 1)
            for count in ("replicas", "updatedReplicas", "readyReplicas")
        ),
        paused=bool(spec.get("paused")),
        allows_surge=strategy.get("type") != "Recreate" and surge not in (0, "0", "0%"),
        deleting="deletionTimestamp" in meta,
        min_ready_time=parse_seconds(spec.get("minReadySeconds")),
    )


def parse_replica_set(raw: RawObject) -> ReplicaSet:
    """Parse a raw ReplicaSet.

    Raises UnreadableError without name, namespace or UID. Raises ValueError for a selector with an unknown operator.
    """
    raw = object_schemas.sanitize_replica_set(raw)
    meta, spec, status = raw["metadata"], raw["spec"], raw["status"]
    owner: RawObject = controller_reference(meta) or {}
    failure: RawObject = next((c for c in status.get("conditions") or () if c["type"] == "ReplicaFailure"), {})
    selector = dict(spec.get("selector") or {})
    labels = {k: v for k, v in (selector.get("matchLabels") or {}).items() if k != names.POD_TEMPLATE_HASH}
    return ReplicaSet(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        deployment_uid=owner["uid"] if owner.get("kind") == "Deployment" else "",
        pod_template_hash=(meta.get("labels") or {}).get(names.POD_TEMPLATE_HASH, ""),
        replicas=bounded_integer(spec.get("replicas"), 0, INT32, 1),
        revision=truncate_with_digest((meta.get("annotations") or {}).get(_REVISION), _MAX_REVISION_LENGTH),
        replica_failure=(bounded_text(failure.get("message"), _MAX_MESSAGE_LENGTH) or None)
        if failure.get("status") == "True"
        else None,
        deleting="deletionTimestamp" in meta,
        min_ready_time=parse_seconds(spec.get("minReadySeconds")),
        deployment_selector=LabelSelector.model_validate(selector | {"matchLabels": labels}).query(),
        selector=LabelSelector.model_validate(selector),
        template=scheduling_template(spec.get("template")) if spec.get("replicas", 1) else None,
    )


def scheduling_template(template: RawPodTemplate | None) -> RawPodTemplate:
    """Return a raw pod template without the fields of containers that no plan reads, such as environments."""
    template = template or {}
    spec = template.get("spec") or {}
    containers = {
        kind: [{name: c[name] for name in _TEMPLATE_CONTAINER_FIELDS if name in c} for c in spec.get(kind) or ()]
        for kind in ("containers", "initContainers")
    }
    labels = (template.get("metadata") or {}).get("labels") or {}
    return {"metadata": {"labels": labels}, "spec": {**spec, **containers}}


def replaces_terminating_pods(raw: RawObject) -> bool:
    """Whether a raw Job creates a new pod while the old pod is Terminating, so that two may run for a while."""
    spec = object_schemas.sanitize_job(raw)["spec"]
    policy = spec.get("podReplacementPolicy") or ("Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed")
    return policy != "Failed" and spec.get("managedBy", _JOB_CONTROLLER) == _JOB_CONTROLLER


@dataclass(frozen=True, slots=True)
class Workload:
    """Owner of pods at one moment.

    Attributes:
        deployment: None if it does not exist.
        replica_sets: the ReplicaSets of the Deployment, or the ReplicaSet that a pod was released from.
        pods: all pods of these ReplicaSets, released pods included.
        evicting_uids: UIDs of pods with an eviction in progress; these pods count as gone.
    """

    deployment: Deployment | None
    replica_sets: tuple[ReplicaSet, ...]
    pods: tuple[Pod, ...]
    evicting_uids: AbstractSet[str] = frozenset()

    @property
    def current_replica_set(self) -> ReplicaSet | None:
        """Return the ReplicaSet of the Deployment's current revision; None if there is none."""
        if self.deployment is None:
            return None
        owned = (r for r in self.replica_sets if r.deployment_uid == self.deployment.uid and not r.deleting)
        return next((r for r in owned if r.revision == self.deployment.revision), None)

    def replica_set(self, uid: str) -> ReplicaSet | None:
        """Return the ReplicaSet with this UID; None if it does not exist or is being deleted."""
        return next((r for r in self.replica_sets if r.uid == uid and not r.deleting), None)

    @property
    def replicas(self) -> int:
        """Return the number of pods that the spec asks for."""
        if self.deployment:
            return self.deployment.replicas
        return max((r.replicas for r in self.replica_sets), default=0)

    @property
    def is_rolling_out(self) -> bool:
        """Whether a rollout is in progress. Counts of Ready pods are no evidence, because a release lowers them.

        A paused rollout is not in progress: each ReplicaSet keeps its number of pods.
        """
        deployment = self.deployment
        if deployment is None or (deployment.paused and deployment.observed):
            return False
        current = self.current_replica_set
        return not deployment.observed or current is None or self.has_pods_besides(current)

    def has_pods_besides(self, replica_set: ReplicaSet) -> bool:
        """Whether another ReplicaSet has replicas."""
        return any(r.replicas > 0 for r in self.replica_sets if r.uid != replica_set.uid)

    @property
    def released_pods(self) -> tuple[Pod, ...]:
        """Return the released pods that still run."""
        return tuple(p for p in self.pods if p.released and not self._is_leaving(p))

    def has_leaving_pods(self, now: datetime, patience: timedelta) -> bool:
        """Whether a pod is about to end and still counts in quotas.

        A pod that should have ended `patience` ago does not count: it may never end.
        """
        return any(
            self._is_leaving(p)
            and not p.finished
            and (p.deletion_timestamp is None or now < p.deletion_timestamp + patience)
            for p in self.pods
        )

    def _is_leaving(self, pod: Pod) -> bool:
        return pod.deletion_timestamp is not None or pod.finished or pod.uid in self.evicting_uids

    def controlled_pods(self, replica_set: ReplicaSet | None) -> tuple[Pod, ...]:
        """Return the pods whose controller is this ReplicaSet; None: any ReplicaSet. Released pods are excluded."""
        return tuple(
            p
            for p in self.pods
            if not p.released
            and not self._is_leaving(p)
            and p.owner is not None
            and (replica_set is None or p.owner.uid == replica_set.uid)
        )

    def count_ready(self, pods: tuple[Pod, ...], now: datetime, min_ready_time: timedelta = timedelta()) -> int:
        """Return the number of these pods that have been Ready for at least `min_ready_time`."""
        return sum(p.ready and (not min_ready_time or (p.ready_since or now) + min_ready_time <= now) for p in pods)

    @property
    def serving_count(self) -> int:
        """Return the number of Ready pods that nothing removes yet, released pods included."""
        return sum(p.ready for p in self.pods if not self._is_leaving(p))
