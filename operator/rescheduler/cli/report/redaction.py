"""Decide what a report shows of an object: only the allowed fields. Values of foreign annotations are redacted.

The environment, arguments and commands of containers are left out, and so are probes, volumes with inline data, and the
messages of ended containers.
"""

from collections.abc import Callable, Mapping
from typing import Any

from rescheduler.api import GROUP
from rescheduler.core.model.raw import RawObject

REDACTED = "<redacted>"
Redactor = Callable[[RawObject], dict[str, Any]]

_METADATA = (
    "name",
    "namespace",
    "uid",
    "generation",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "labels",
    "ownerReferences",
)
_NODE_INFO = ("kubeletVersion", "bootID", "osImage", "kernelVersion", "containerRuntimeVersion", "architecture")
_CONDITION = ("type", "status", "reason", "message", "lastTransitionTime", "lastHeartbeatTime", "observedGeneration")
_POD_SPEC = (
    "nodeName",
    "nodeSelector",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "priority",
    "priorityClassName",
    "preemptionPolicy",
    "schedulerName",
    "schedulingGates",
    "terminationGracePeriodSeconds",
    "restartPolicy",
    "hostNetwork",
    "serviceAccountName",
    "resourceClaims",
    "overhead",
)
_CONTAINER = ("name", "image", "resources", "ports", "volumeMounts", "restartPolicy")
_CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")
_STATUS_LISTS = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
_DEPLOYMENT_SPEC = ("replicas", "selector", "strategy", "minReadySeconds", "paused", "progressDeadlineSeconds")
_EVENT = (
    "type",
    "reason",
    "message",
    "action",
    "count",
    "firstTimestamp",
    "lastTimestamp",
    "eventTime",
    "source",
    "reportingComponent",
    "reportingInstance",
    "involvedObject",
)


def redact_metadata(raw: RawObject) -> dict[str, Any]:
    """Return the metadata of an object. Values of annotations of others are redacted, their keys stay."""
    meta = _object(raw.get("metadata"))
    shown = _pick(meta, _METADATA)
    if annotations := _object(meta.get("annotations")):
        shown["annotations"] = {key: value if _is_ours(key) else REDACTED for key, value in annotations.items()}
    return shown


def redact_own_kind(raw: RawObject) -> dict[str, Any]:
    """Return an object whose spec and status hold no secrets: a kind of Rescheduler, a budget or a Lease."""
    return {"metadata": redact_metadata(raw), **_pick(raw, ("spec", "status"))}


def redact_crd(raw: RawObject) -> dict[str, Any]:
    """Return the versions of a CRD, without its schema."""
    spec = _object(raw.get("spec"))
    return {
        "metadata": redact_metadata(raw),
        "versions": [_pick(version, ("name", "served", "storage")) for version in _objects(spec.get("versions"))],
        "status": _pick(_object(raw.get("status")), ("storedVersions", "conditions")),
    }


def redact_node(raw: RawObject) -> dict[str, Any]:
    """Return a node with its taints and conditions."""
    spec, status = _object(raw.get("spec")), _object(raw.get("status"))
    return {
        "metadata": redact_metadata(raw),
        "spec": _pick(spec, ("unschedulable", "taints")),
        "status": {
            **_pick(status, ("allocatable",)),
            "conditions": _conditions(status),
            "nodeInfo": _pick(_object(status.get("nodeInfo")), _NODE_INFO),
        },
    }


def redact_pod(raw: RawObject) -> dict[str, Any]:
    """Return a pod without what its containers get."""
    status = _object(raw.get("status"))
    shown = _pick(status, ("phase", "reason", "qosClass", "startTime", "nominatedNodeName"))
    for key in _STATUS_LISTS:
        if key in status:
            shown[key] = [_container_status(row) for row in _objects(status[key])]
    return {
        "metadata": redact_metadata(raw),
        "spec": _pod_spec(_object(raw.get("spec"))),
        "status": {**shown, "conditions": _conditions(status)},
    }


def redact_deployment(raw: RawObject) -> dict[str, Any]:
    """Return a Deployment with its template, without what its containers get."""
    spec, status = _object(raw.get("spec")), _object(raw.get("status"))
    template = _object(spec.get("template"))
    counts = [key for key, value in status.items() if isinstance(value, int)]
    return {
        "metadata": redact_metadata(raw),
        "spec": {
            **_pick(spec, _DEPLOYMENT_SPEC),
            "template": {"metadata": redact_metadata(template), "spec": _pod_spec(_object(template.get("spec")))},
        },
        "status": {**_pick(status, counts), "conditions": _conditions(status)},
    }


def redact_event(raw: RawObject) -> dict[str, Any]:
    """Return an Event."""
    return {"metadata": redact_metadata(raw), **_pick(raw, _EVENT)}


def _pod_spec(spec: RawObject) -> dict[str, Any]:
    shown = _pick(spec, _POD_SPEC)
    for key in _CONTAINER_LISTS:
        if key in spec:
            shown[key] = [_pick(container, _CONTAINER) for container in _objects(spec[key])]
    if "volumes" in spec:
        shown["volumes"] = [_volume(volume) for volume in _objects(spec["volumes"])]
    return shown


def _volume(volume: RawObject) -> dict[str, Any]:
    """Return the name and the kind of a volume, and what a drain must know of it."""
    shown: dict[str, Any] = {key: {} for key in volume if key != "name"}
    for key, field in (("persistentVolumeClaim", "claimName"), ("hostPath", "path"), ("csi", "driver")):
        if key in volume:
            shown[key] = _pick(_object(volume[key]), (field, "readOnly", "type"))
    return {"name": volume.get("name"), **shown}


def _container_status(row: RawObject) -> dict[str, Any]:
    """Return the state of a container. Its messages may quote what the container wrote."""
    shown = _pick(row, ("name", "ready", "started", "restartCount", "image"))
    for key in ("state", "lastState"):
        states = _object(row.get(key))
        fields = ("reason", "exitCode", "signal", "startedAt", "finishedAt")
        shown[key] = {name: _pick(_object(state), fields) for name, state in states.items()}
    return shown


def _conditions(status: RawObject) -> list[dict[str, Any]]:
    return [_pick(condition, _CONDITION) for condition in _objects(status.get("conditions"))]


def _is_ours(key: str) -> bool:
    return key.partition("/")[0] == GROUP


def _pick(raw: RawObject, keys: Any) -> dict[str, Any]:
    return {key: raw[key] for key in keys if key in raw}


def _object(value: Any) -> RawObject:
    return value if isinstance(value, Mapping) else {}


def _objects(value: Any) -> list[RawObject]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
