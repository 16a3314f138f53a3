"""What is written on a node, as patches: the cordon, what goes with it, and its taking off.

Patches replace lists whole (taints are atomic), so each is made from the node as just read and carries its
resourceVersion: what others changed meanwhile makes it fail, and it is made anew. Only what `status.node` names
is ever taken off, and only where it still is as we left it.
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
from rescheduler.core.model.nodes import Node, NodeCondition, Taint

Patch = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Additions:
    """Labels and annotations that a drain adds to its node, where they are absent."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def additions(node: Node, reasons: Iterable[RequestReason], *, exclude_from_load_balancers: bool) -> Additions:
    """What belongs on a node held for these reasons: an emptied node looks idle to autoscalers."""
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
    """What will be ours on the node once the next patch is through; written into status before that patch.

    Of a record of the same node nothing is lost: a crash between the two writes leaves a promise, not a gap.
    """
    known = before if before and before.uid == node.uid else None
    return NodeRecord(
        uid=node.uid,
        boot_id=known.boot_id if known else node.boot_id,
        cordoned_by_us=bool(known and known.cordoned_by_us) or not node.unschedulable,
        added_taints=known.added_taints if known else (),
        added_labels={**(known.added_labels if known else {}), **adds.labels},
        added_annotations={**(known.added_annotations if known else {}), **adds.annotations},
    )


def waiting_record(node: Node, before: NodeRecord | None) -> NodeRecord:
    """What will be ours on a node that waits for its turn: the taint, where it has none of its key."""
    known = before if before and before.uid == node.uid else NodeRecord(uid=node.uid, boot_id=node.boot_id)
    taint = TaintRecord(key=names.WAITING_TAINT_KEY, effect="PreferNoSchedule")
    if taint in known.added_taints or any(t.key == names.WAITING_TAINT_KEY for t in node.taints):
        return known
    return known.model_copy(update={"added_taints": (*known.added_taints, taint)})


def waiting_taint_patch(node: Node, node_record: NodeRecord) -> Patch | None:
    """Set the taints that the record names; None where they are there."""
    have = {(t.key, t.effect) for t in node.taints}
    new = [Taint(t.key, t.value, t.effect) for t in node_record.added_taints if (t.key, t.effect) not in have]
    return _with_preconditions({"spec": {"taints": [t.as_json() for t in (*node.taints, *new)]}}, node) if new else None


def out_of_service_record(node: Node, before: NodeRecord | None) -> NodeRecord:
    """What will be ours on a node whose boot is proven dead: the taint, and the boot that it is for."""
    known = before if before and before.uid == node.uid else NodeRecord(uid=node.uid)
    taints = (*(t for t in known.added_taints if t != OUT_OF_SERVICE_TAINT), OUT_OF_SERVICE_TAINT)
    return known.model_copy(update={"boot_id": node.boot_id, "added_taints": taints})


def in_service_record(before: NodeRecord) -> NodeRecord:
    """What is ours without the out-of-service taint."""
    return before.model_copy(
        update={"added_taints": tuple(t for t in before.added_taints if t != OUT_OF_SERVICE_TAINT)}
    )


def out_of_service_patch(node: Node) -> Patch | None:
    """Set the out-of-service taint; None where one is there, whoever set it."""
    if any(t.key == OUT_OF_SERVICE_TAINT.key for t in node.taints):
        return None
    taints = [*node.taints, Taint(OUT_OF_SERVICE_TAINT.key, OUT_OF_SERVICE_TAINT.value, OUT_OF_SERVICE_TAINT.effect)]
    return _with_preconditions({"spec": {"taints": [t.as_json() for t in taints]}}, node)


def in_service_patch(node: Node) -> Patch | None:
    """Take off our out-of-service taint, and no other; None where it is not there."""
    kept = [
        t
        for t in node.taints
        if (t.key, t.value, t.effect)
        != (OUT_OF_SERVICE_TAINT.key, OUT_OF_SERVICE_TAINT.value, OUT_OF_SERVICE_TAINT.effect)
    ]
    if len(kept) == len(node.taints):
        return None
    return _with_preconditions({"spec": {"taints": [t.as_json() for t in kept] or None}}, node)


def cordon_patch(node: Node, node_record: NodeRecord, *, with_metadata: bool = True) -> Patch | None:
    """Cordon the node and add what the record names; None where all of it is there.

    `decorate`: with labels and annotations, which the drain can do without.
    """
    patch: Patch = {}
    if not node.unschedulable:
        patch["spec"] = {"unschedulable": True}
    metadata = {
        "labels": {k: v for k, v in node_record.added_labels.items() if k not in node.labels},
        "annotations": {k: v for k, v in node_record.added_annotations.items() if k not in node.annotations},
    }
    if adds := {key: value for key, value in metadata.items() if value and with_metadata}:
        patch["metadata"] = adds
    return _with_preconditions(patch, node)


class RestorePart(StrEnum):
    """The parts of a restore, the most important first: where one is refused the others are written on their own."""

    UNCORDON = "Uncordon"
    UNTAINT = "Untaint"
    REMOVE_METADATA = "Undecorate"
    ANNOTATE_CANCELLED = "CancelNote"


def restore_patch(
    node: Node,
    node_record: NodeRecord | None,
    cancelled: Mapping[str, str],
    parts: Collection[RestorePart] = tuple(RestorePart),
) -> Patch | None:
    """Take off what is ours and still as we left it; note requests that were cancelled while they stand.

    None where nothing is left to do.
    """
    metadata: dict[str, dict[str, str | None]] = {}
    patch: Patch = {}
    node_record = node_record if node_record and node_record.uid == node.uid else NodeRecord()
    if RestorePart.UNCORDON in parts and node_record.cordoned_by_us and node.unschedulable:
        patch["spec"] = {"unschedulable": None}
    added = {(t.key, t.value, t.effect) for t in node_record.added_taints}
    kept = [t for t in node.taints if (t.key, t.value, t.effect) not in added]
    if RestorePart.UNTAINT in parts and len(kept) != len(node.taints):
        patch.setdefault("spec", {})["taints"] = [t.as_json() for t in kept] or None
    if RestorePart.REMOVE_METADATA in parts:
        metadata["labels"] = {k: None for k, v in node_record.added_labels.items() if node.labels.get(k) == v}
        metadata["annotations"] = {
            k: None for k, v in node_record.added_annotations.items() if node.annotations.get(k) == v
        }
    noted = {**node.cancelled_requests, **cancelled}
    if RestorePart.ANNOTATE_CANCELLED in parts and noted != dict(node.cancelled_requests):
        metadata.setdefault("annotations", {})[names.CANCELLED] = json.dumps(noted, sort_keys=True)
    if metadata := {key: value for key, value in metadata.items() if value}:
        patch["metadata"] = metadata
    return _with_preconditions(patch, node)


def drop_cancelled_patch(node: Node, stale: Iterable[str]) -> Patch | None:
    """Drop entries of the `cancelled` annotation whose request is gone."""
    kept = {k: v for k, v in node.cancelled_requests.items() if k not in set(stale)}
    if kept == dict(node.cancelled_requests):
        return None
    value = json.dumps(kept, sort_keys=True) if kept else None
    return _with_preconditions({"metadata": {"annotations": {names.CANCELLED: value}}}, node)


def cleanup_patch(node: Node) -> Patch | None:
    """Take off what outlives drains: noted cancellations, and a waiting taint that no record names any more."""
    patch: Patch = {}
    if names.CANCELLED in node.annotations:
        patch["metadata"] = {"annotations": {names.CANCELLED: None}}
    kept = [t for t in node.taints if (t.key, t.value, t.effect) != (names.WAITING_TAINT_KEY, "", "PreferNoSchedule")]
    if len(kept) != len(node.taints):
        patch["spec"] = {"taints": [t.as_json() for t in kept] or None}
    return _with_preconditions(patch, node)


def conditions_patch(wanted: Mapping[str, tuple[str, str, str]], node: Node, now: datetime) -> Patch | None:
    """Strategic merge patch of the node's status: our conditions as wanted (type: status, reason, message).

    Those of ours that are not wanted are deleted; None where nothing differs. A condition that another component set
    is left as it is: who overwrites a condition that its owner keeps writes for ever.
    """
    entries: list[dict[str, Any]] = []
    for type_ in names.NODE_CONDITIONS:
        have = node.condition(type_)
        if have and not is_our_condition(have):
            continue
        if type_ not in wanted:
            if have:
                entries.append({"type": type_, "$patch": "delete"})
            continue
        status, reason, message = wanted[type_]
        if have and (have.status, have.reason) == (status, reason):
            continue
        stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        entry = {"type": type_, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": stamp}
        if not have or have.status != status:
            entry["lastTransitionTime"] = stamp
        entries.append(entry)
    return {"status": {"conditions": entries}} if entries else None


_PHASE_REASONS = frozenset(map(str, Phase))
MAINTENANCE_REASON = "Requested"


def is_our_condition(condition: NodeCondition) -> bool:
    """Whether Rescheduler set the condition. Its type is Kubernetes' (KEP-5683), so its reason has to tell."""
    if condition.type == names.MAINTENANCE_IN_PROGRESS:
        return condition.reason == MAINTENANCE_REASON
    return condition.type in names.NODE_CONDITIONS and condition.reason in _PHASE_REASONS


def has_drain_condition(node: Node) -> bool:
    """Whether a drain of ours says on the node that it goes on: of a node without NodeDrain, that it was taken by force."""
    condition = node.condition(names.DRAIN_IN_PROGRESS)
    return condition is not None and is_our_condition(condition)


def _with_preconditions(patch: Patch, node: Node) -> Patch | None:
    if not patch:
        return None
    return patch | {
        "metadata": {**patch.get("metadata", {}), "resourceVersion": node.resource_version, "uid": node.uid}
    }
