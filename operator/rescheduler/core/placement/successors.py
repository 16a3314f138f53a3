"""The successor of a pod: the pod that its owner makes in its place.

The pod that runs is the best model of its successor, because it shows what admission adds to a template. The template
of the owner decides what may differ: the labels, and all that was changed after the pod was created. A pod that was
resized in place requests what its template says once it is made again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rescheduler.api import names
from rescheduler.api.untrusted import SanitizedObject
from rescheduler.core.model import object_schemas
from rescheduler.core.model.quantities import format_quantity
from rescheduler.core.model.raw import RawObject, RawPod, RawPodTemplate, controller_reference
from rescheduler.core.model.resource_requests import requested_resources
from rescheduler.core.model.workloads import ReplicaSet, scheduling_template
from rescheduler.core.placement import messages

_VPA_ANNOTATIONS = ("vpaUpdates", "vpaInPlaceUpdated")
"""Annotations of the Vertical Pod Autoscaler, whose webhook also sets the requests of new pods."""
_CONTAINER_KINDS = ("containers", "initContainers")
_SCHEDULING_FIELDS = (
    "affinity",
    "hostNetwork",
    "hostUsers",
    "nodeSelector",
    "overhead",
    "priority",
    "priorityClassName",
    "resourceClaims",
    "resources",
    "runtimeClassName",
    "schedulerName",
    "schedulingGates",
    "tolerations",
    "topologySpreadConstraints",
)
_SCHEDULING_FIELDS_OF_CONTAINERS = ("ports", "resources", "restartPolicy")
_VOLUMES_OF_ANY_NODE = ("configMap", "downwardAPI", "emptyDir", "projected", "secret")
_ADDED_TOLERATIONS = ("node.kubernetes.io/", "rescheduler.dev/")
"""Key prefixes of tolerations that admission adds to all pods; a successor gets them too."""


@dataclass(frozen=True, slots=True)
class OwnerTemplate:
    """Templates of an owner.

    Attributes:
        own: raw template of the pod that runs; None if unknown.
        next: raw template of the next pods, another one during a rollout; None if unknown.
    """

    own: RawPodTemplate | None
    next: RawPodTemplate | None

    @property
    def is_rollout(self) -> bool:
        """Whether the next pods have another template than the pod that runs."""
        return self.own is not self.next


@dataclass(frozen=True, slots=True)
class Successor:
    """The pod that takes a pod's place.

    Attributes:
        raw: the known part of the raw pod.
        unknown_reason: why a plan does not know the successor; None if it does.
        note: how the successor differs from the pod that runs; None if it does not.
    """

    raw: RawPod
    unknown_reason: str | None = None
    note: str | None = None


def replica_set_templates(replica_sets: Iterable[ReplicaSet]) -> dict[str, OwnerTemplate]:
    """Return the templates by UID of the ReplicaSet.

    The next pods of a Deployment are those of its ReplicaSet with the highest revision.
    """
    existing = [rs for rs in replica_sets if not rs.deleting]
    newest: dict[str, ReplicaSet] = {}
    for rs in existing:
        if rs.deployment_uid and _revision(rs) >= _revision(newest.get(rs.deployment_uid)):
            newest[rs.deployment_uid] = rs
    return {rs.uid: OwnerTemplate(rs.template, newest.get(rs.deployment_uid, rs).template) for rs in existing}


def _revision(rs: ReplicaSet | None) -> int:
    return int(rs.revision) if rs and rs.revision.isascii() and rs.revision.isdigit() else -1


def stateful_set_template(raw: RawObject) -> OwnerTemplate:
    """Return the template of a raw StatefulSet. Raises UnreadableError without name, namespace or UID."""
    raw = object_schemas.sanitize_stateful_set(raw)
    template, status = scheduling_template(raw["spec"].get("template")), raw["status"]
    is_current = status.get("currentRevision") == status.get("updateRevision")
    return OwnerTemplate(template if is_current else None, template)


def stateful_set_to_read(raw: RawPod) -> str | None:
    """Return the name of the StatefulSet whose template decides about the successor of this raw pod; None if none does."""
    owner = controller_reference(raw["metadata"])
    if owner is None or not was_changed(raw):
        return None
    return owner["name"] if (owner.get("apiVersion"), owner["kind"]) == ("apps/v1", "StatefulSet") else None


def was_changed(raw: RawPod) -> bool:
    """Whether the spec of a raw pod was changed after its creation, such as by a resize in place."""
    return bool(raw["metadata"].get("generation", 0) > 1)


def successor(raw: RawPod, template: OwnerTemplate | None) -> Successor:
    """Return the successor of a sanitized raw pod; `template`: None if the owner has none or is not known."""
    if template is None or template.next is None:
        unknown = messages.CHANGED_POD if was_changed(raw) else messages.ROLLOUT if template else None
        return Successor(raw, unknown)
    if template.is_rollout and _scheduling_parts(template.own) != _scheduling_parts(template.next):
        return Successor(raw, messages.ROLLOUT)
    meta, spec = raw["metadata"], raw["spec"]
    unknown, note = None, None
    if template.next["spec"].get("schedulingGates"):
        unknown = messages.HAS_SCHEDULING_GATES
    elif was_changed(raw):
        unknown = _why_unknown(raw, template.next)
        spec = {**spec, **_requests_of_template(spec, template.next["spec"])}
        note = _requests_note(requested_resources(raw["spec"]), requested_resources(spec))
    labels = {**(meta.get("labels") or {}), **template.next["metadata"]["labels"]}
    return Successor(SanitizedObject({**raw, "metadata": {**meta, "labels": labels}, "spec": spec}), unknown, note)


def _scheduling_parts(template: RawPodTemplate | None) -> RawObject | None:
    """Return what decides where the pods of a template may run."""
    if template is None:
        return None
    spec = template["spec"]
    return {
        "labels": {k: v for k, v in template["metadata"]["labels"].items() if k != names.POD_TEMPLATE_HASH},
        "containers": [
            {name: container.get(name) for name in _SCHEDULING_FIELDS_OF_CONTAINERS}
            for kind in _CONTAINER_KINDS
            for container in spec.get(kind) or ()
        ],
        "volumes": [v for v in spec.get("volumes") or () if not any(kind in v for kind in _VOLUMES_OF_ANY_NODE)],
        **{name: value for name, value in spec.items() if name in _SCHEDULING_FIELDS},
    }


def _why_unknown(raw: RawPod, template: RawPodTemplate) -> str | None:
    """Return why the successor of a changed pod is not known; None if it is."""
    if any(key in (raw["metadata"].get("annotations") or {}) for key in _VPA_ANNOTATIONS):
        return messages.REQUESTS_OF_VPA
    if _has_requests_of_admission(raw["spec"], template["spec"]):
        return messages.CHANGED_POD
    own = [t for t in raw["spec"].get("tolerations") or () if not t.get("key", "").startswith(_ADDED_TOLERATIONS)]
    known = template["spec"].get("tolerations") or ()
    return None if all(toleration in known for toleration in own) else messages.CHANGED_POD


def _requests_of_template(spec: RawObject, template: RawObject) -> RawObject:
    """Return the fields of a raw pod spec that a resize may have changed, as the template has them.

    Containers that admission added have no resources in the template and keep theirs.
    """
    changed: dict[str, object] = {"resources": {"requests": _requests(template)}}
    for kind in _CONTAINER_KINDS:
        requests = {c.get("name"): _requests(c) for c in template.get(kind) or ()}
        changed[kind] = [
            {**c, "resources": {"requests": requests[c.get("name")]}} if c.get("name") in requests else c
            for c in spec.get(kind) or ()
        ]
    return changed


def _requests(raw: RawObject) -> RawObject:
    """Return the requests of a container or of a pod spec in a template; limits are the default of requests."""
    resources = raw.get("resources") or {}
    return {**(resources.get("limits") or {}), **(resources.get("requests") or {})}


def _has_requests_of_admission(spec: RawObject, template: RawObject) -> bool:
    """Whether a container requests a resource of which its template says nothing: a LimitRange sets it."""
    known = {c.get("name"): _requests(c) for kind in _CONTAINER_KINDS for c in template.get(kind) or ()}
    return any(
        resource not in known[c.get("name")]
        for kind in _CONTAINER_KINDS
        for c in spec.get(kind) or ()
        if c.get("name") in known
        for resource in _requests(c)
    )


def _requests_note(running: Mapping[str, int], template: Mapping[str, int]) -> str | None:
    parts = [
        (name, format_quantity(name, template.get(name, 0)), format_quantity(name, running.get(name, 0)))
        for name in sorted({*running, *template})
        if template.get(name, 0) != running.get(name, 0)
    ]
    return messages.resized(parts) if parts else None
