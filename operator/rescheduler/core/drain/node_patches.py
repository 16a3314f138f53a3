"""Build the patches of a node: the cordon, its labels and annotations, and the restore.

A patch replaces whole lists, because taints are atomic. So each patch is built from a node just read, and carries its
resourceVersion: after another write the patch fails and is built again. A restore removes only what `status.node`
names, and only if it is still as the drain left it.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from rescheduler.api import names
from rescheduler.api.drains import NodeRecord, Phase, RequestReason, TaintRecord
from rescheduler.core.failure.fencing import OUT_OF_SERVICE_TAINT
from rescheduler.core.model.field_managers import FieldManagers
from rescheduler.core.model.nodes import Node, NodeCondition, Taint
from rescheduler.core.model.raw import RawObject

_WAITING_TAINT = TaintRecord(key=names.WAITING_TAINT_KEY, effect="PreferNoSchedule")


@dataclass(frozen=True, slots=True)
class Additions:
    """Labels and annotations that a drain adds to its node, if they are absent."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def additions(node: Node, reasons: Iterable[RequestReason], *, exclude_from_load_balancers: bool) -> Additions:
    """Return what to add to a node held for these reasons: an emptied node looks idle to an autoscaler."""
    annotations = {}
    if RequestReason.MAINTENANCE in reasons:
        annotations[names.SCALE_DOWN_DISABLED] = "true"
        if names.KARPENTER_NODEPOOL in node.labels:
            annotations[names.KARPENTER_DO_NOT_DISRUPT] = "true"
    labels = {names.EXCLUDE_FROM_LOAD_BALANCERS: "true"} if exclude_from_load_balancers else {}
    return Additions(
        {k: v for k, v in labels.items() if k not in node.labels},
        {k: v for k, v in annotations.items() if k not in node.annotations},
    )


def cordon_record(node: Node, before: NodeRecord | None, adds: Additions) -> NodeRecord:
    """Return the record of the next cordon patch; the record is in the status before that patch.

    Entries of an earlier record of the same node stay: after a crash between the two writes, the record names too much
    and never too little.
    """
    same_node_record = before if before and before.uid == node.uid else None
    return NodeRecord(
        uid=node.uid,
        boot_id=same_node_record.boot_id if same_node_record else node.boot_id,
        cordoned_by_us=bool(same_node_record and same_node_record.cordoned_by_us) or not node.unschedulable,
        added_taints=same_node_record.added_taints if same_node_record else (),
        added_labels={**(same_node_record.added_labels if same_node_record else {}), **adds.labels},
        added_annotations={**(same_node_record.added_annotations if same_node_record else {}), **adds.annotations},
    )


def waiting_record(node: Node, before: NodeRecord | None) -> NodeRecord:
    """Return the record with the waiting taint, if the node has no taint with this key."""
    same_node_record = before if before and before.uid == node.uid else NodeRecord(uid=node.uid, boot_id=node.boot_id)
    if _WAITING_TAINT in same_node_record.added_taints or any(t.key == names.WAITING_TAINT_KEY for t in node.taints):
        return same_node_record
    return same_node_record.model_copy(update={"added_taints": (*same_node_record.added_taints, _WAITING_TAINT)})


def waiting_taint_patch(node: Node, node_record: NodeRecord) -> RawObject | None:
    """Return the patch that sets the recorded taints; None if the node has them."""
    existing = {(t.key, t.effect) for t in node.taints}
    new = [Taint(t.key, t.value, t.effect) for t in node_record.added_taints if (t.key, t.effect) not in existing]
    return _with_preconditions({"spec": {"taints": [t.as_json() for t in (*node.taints, *new)]}}, node) if new else None


def out_of_service_record(node: Node, before: NodeRecord | None) -> NodeRecord:
    """Return the record with the out-of-service taint and the dead boot that the taint is for."""
    same_node_record = before if before and before.uid == node.uid else NodeRecord(uid=node.uid)
    taints = (*(t for t in same_node_record.added_taints if t != OUT_OF_SERVICE_TAINT), OUT_OF_SERVICE_TAINT)
    return same_node_record.model_copy(update={"boot_id": node.boot_id, "added_taints": taints})


def in_service_record(before: NodeRecord) -> NodeRecord:
    """Return the record without the out-of-service taint."""
    return before.model_copy(
        update={"added_taints": tuple(t for t in before.added_taints if t != OUT_OF_SERVICE_TAINT)}
    )


def out_of_service_patch(node: Node) -> RawObject | None:
    """Return the patch that sets the out-of-service taint; None if the node has one from anyone."""
    if any(t.key == OUT_OF_SERVICE_TAINT.key for t in node.taints):
        return None
    taints = [*node.taints, Taint(OUT_OF_SERVICE_TAINT.key, OUT_OF_SERVICE_TAINT.value, OUT_OF_SERVICE_TAINT.effect)]
    return _with_preconditions({"spec": {"taints": [t.as_json() for t in taints]}}, node)


def in_service_patch(node: Node) -> RawObject | None:
    """Return the patch that removes only the operator's own out-of-service taint; None if the node does not have it."""
    remaining_taints = [
        t
        for t in node.taints
        if (t.key, t.value, t.effect)
        != (OUT_OF_SERVICE_TAINT.key, OUT_OF_SERVICE_TAINT.value, OUT_OF_SERVICE_TAINT.effect)
    ]
    if len(remaining_taints) == len(node.taints):
        return None
    return _with_preconditions({"spec": {"taints": [t.as_json() for t in remaining_taints] or None}}, node)


def cordon_patch(node: Node, node_record: NodeRecord, *, with_metadata: bool = True) -> RawObject | None:
    """Return the patch that cordons the node and adds what the record names; None if the node has all of it.

    `with_metadata`: include labels and annotations, which a drain can do without.
    """
    patch: dict[str, Any] = {}
    if not node.unschedulable:
        patch["spec"] = {"unschedulable": True}
    metadata = {
        "labels": {k: v for k, v in node_record.added_labels.items() if k not in node.labels},
        "annotations": {k: v for k, v in node_record.added_annotations.items() if k not in node.annotations},
    }
    if absent_metadata := {key: value for key, value in metadata.items() if value and with_metadata}:
        patch["metadata"] = absent_metadata
    return _with_preconditions(patch, node)


class RestorePart(StrEnum):
    """The parts of a restore, the most important first: if one part is refused, the others are written separately."""

    UNCORDON = "Uncordon"
    UNTAINT = "Untaint"
    REMOVE_METADATA = "Undecorate"
    ANNOTATE_CANCELLED = "CancelNote"


def restore_patch(
    node: Node,
    node_record: NodeRecord | None,
    cancelled: Mapping[str, str],
    parts: Collection[RestorePart] = tuple(RestorePart),
) -> RawObject | None:
    """Return the patch that removes the recorded changes and notes requests that were cancelled while they stand.

    None if nothing is left to do.
    """
    metadata: dict[str, dict[str, str | None]] = {}
    patch: dict[str, Any] = {}
    node_record = node_record if node_record and node_record.uid == node.uid else NodeRecord()
    if RestorePart.UNCORDON in parts and node_record.cordoned_by_us and node.unschedulable:
        patch["spec"] = {"unschedulable": None}
    added = {(t.key, t.value, t.effect) for t in node_record.added_taints}
    remaining_taints = [t for t in node.taints if (t.key, t.value, t.effect) not in added]
    if RestorePart.UNTAINT in parts and len(remaining_taints) != len(node.taints):
        patch.setdefault("spec", {})["taints"] = [t.as_json() for t in remaining_taints] or None
    if RestorePart.REMOVE_METADATA in parts:
        metadata["labels"] = {k: None for k, v in node_record.added_labels.items() if node.labels.get(k) == v}
        metadata["annotations"] = {
            k: None for k, v in node_record.added_annotations.items() if node.annotations.get(k) == v
        }
    all_cancelled = {**node.cancelled_requests, **cancelled}
    if RestorePart.ANNOTATE_CANCELLED in parts and all_cancelled != dict(node.cancelled_requests):
        metadata.setdefault("annotations", {})[names.CANCELLED] = json.dumps(all_cancelled, sort_keys=True)
    if metadata := {key: value for key, value in metadata.items() if value}:
        patch["metadata"] = metadata
    return _with_preconditions(patch, node)


def drop_cancelled_patch(node: Node, stale: Iterable[str]) -> RawObject | None:
    """Return the patch that drops entries of the annotation `cancelled` whose request has ended; None without any."""
    remaining_entries = {k: v for k, v in node.cancelled_requests.items() if k not in set(stale)}
    if remaining_entries == dict(node.cancelled_requests):
        return None
    value = json.dumps(remaining_entries, sort_keys=True) if remaining_entries else None
    return _with_preconditions({"metadata": {"annotations": {names.CANCELLED: value}}}, node)


def cleanup_patch(node: Node, lost: NodeRecord | None = None) -> RawObject | None:
    """Return the patch for an uninstall: remove the annotation `cancelled`, and a waiting taint without a record.

    `lost`: the record of a NodeDrain that is gone, if the node needs one; its changes are removed too.
    """
    record = (lost or NodeRecord(uid=node.uid)).model_copy(update={"added_taints": (_WAITING_TAINT,)})
    patch = dict(restore_patch(node, record, {}) or {})
    if names.CANCELLED in node.annotations:
        metadata = patch.get("metadata", {})
        patch["metadata"] = metadata | {"annotations": {**metadata.get("annotations", {}), names.CANCELLED: None}}
    return _with_preconditions(patch, node)


_ADDED_KEYS = {
    "labels": (names.EXCLUDE_FROM_LOAD_BALANCERS,),
    "annotations": (names.SCALE_DOWN_DISABLED, names.KARPENTER_DO_NOT_DISRUPT),
}


def may_have_lost_record(node: Node) -> bool:
    """Whether the node has anything that only the record of its NodeDrain, or its field managers, can tell apart."""
    metadata = {"labels": node.labels, "annotations": node.annotations}
    return node.unschedulable or any(key in metadata[field] for field, keys in _ADDED_KEYS.items() for key in keys)


def lost_record(node: Node, managers: FieldManagers) -> NodeRecord:
    """Return what a drain added to a node whose NodeDrain is gone: the fields that only the operator has written.

    The out-of-service taint is not in it: the API server records the writer of all taints together.
    """
    added = {
        field: {key: "true" for key in keys if managers.of("metadata", field, key) == {names.FIELD_MANAGER}}
        for field, keys in _ADDED_KEYS.items()
    }
    return NodeRecord(
        uid=node.uid,
        cordoned_by_us=managers.of("spec", "unschedulable") == {names.FIELD_MANAGER},
        added_labels=added["labels"],
        added_annotations=added["annotations"],
    )


def conditions_patch(wanted: Mapping[str, tuple[str, str, str]], node: Node, now: datetime) -> RawObject | None:
    """Return the strategic merge patch that sets the node conditions of the operator: type to status, reason, message.

    Conditions of the operator that are not wanted are deleted. None if nothing differs. A condition that another
    component set stays: two components that overwrite each other would write forever.
    """
    entries: list[dict[str, Any]] = []
    for type_ in names.NODE_CONDITIONS:
        existing = node.condition(type_)
        if existing and not is_our_condition(existing):
            continue
        if type_ not in wanted:
            if existing:
                entries.append({"type": type_, "$patch": "delete"})
            continue
        status, reason, message = wanted[type_]
        if existing and (existing.status, existing.reason) == (status, reason):
            continue
        timestamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        entry = {"type": type_, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": timestamp}
        if not existing or existing.status != status:
            entry["lastTransitionTime"] = timestamp
        entries.append(entry)
    return {"status": {"conditions": entries}} if entries else None


def conditions_removal_patch(node: Node) -> RawObject | None:
    """Return the strategic merge patch that deletes the node conditions of the operator; None if the node has none."""
    entries = [{"type": c.type, "$patch": "delete"} for c in node.conditions if is_our_condition(c)]
    return {"status": {"conditions": entries}} if entries else None


_PHASE_REASONS = frozenset(map(str, Phase))
MAINTENANCE_REASON = "Requested"


def is_our_condition(condition: NodeCondition) -> bool:
    """Whether Rescheduler set the condition. Kubernetes owns the type (KEP-5683), so only the reason tells."""
    if condition.type == names.MAINTENANCE_IN_PROGRESS:
        return condition.reason == MAINTENANCE_REASON
    return condition.type in names.NODE_CONDITIONS and condition.reason in _PHASE_REASONS


def has_drain_condition(node: Node) -> bool:
    """Whether the node has a `DrainInProgress` of Rescheduler. Without a NodeDrain, the NodeDrain was force-deleted."""
    condition = node.condition(names.DRAIN_IN_PROGRESS)
    return condition is not None and is_our_condition(condition)


def _with_preconditions(patch: RawObject, node: Node) -> RawObject | None:
    if not patch:
        return None
    metadata = {**patch.get("metadata", {}), "resourceVersion": node.resource_version, "uid": node.uid}
    return {**patch, "metadata": metadata}
