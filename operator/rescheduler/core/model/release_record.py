"""The release record on a pod, and the three patches of a move: release, return, and clear the record.

A release makes the Deployment the controller of the pod, in place of the ReplicaSet. The ReplicaSet then lacks one pod
and creates another. The pod keeps its labels and always has a controller. The record is an annotation on the pod. After
a crash, the operator reads from it how to return the pod. Other clients can write that annotation too: it counts only
if the controller of the pod agrees with it. Patches carry UID and resourceVersion: the API server rejects a patch of a
pod that changed in the meantime.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rescheduler.api import names
from rescheduler.core.model.raw import RawMetadata, RawObject, RawOwnerReference, controller_reference

RETURNED_POD_DELETION_COST = "2147483647"
"""Deletion cost of a returned pod: its ReplicaSet has one pod too many and deletes the replacement."""
_MIN_DELETION_COST, _MAX_DELETION_COST = -(2**31), 2**31 - 1
"""The API server refuses any other deletion cost."""
_MAX_RECORD_LENGTH = 4096
"""Every record that the operator writes is shorter; a longer annotation is not parsed."""
_MAX_NAME_LENGTH = 300
_MAX_COUNT = 1_000_000
_FIRST_YEAR, _LAST_YEAR = 2000, 2200


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """The annotation `rescheduler.dev/move`.

    Attributes:
        cause: the object that caused the move, such as `NodeDrain/n1`.
        deletion_cost: `pod-deletion-cost` of the pod before the release; None if it had none.
        ready_pods: number of Ready pods of the owner before the first of the currently released pods was released.
        released_at: time of the release, by the operator's clock.
        attempt: 1 for the first release of the owner, higher after failed replacements.
        deployment: name of the Deployment; `deployment_uid`: its UID.
        replica_set: name of the ReplicaSet that the pod was released from; `replica_set_uid`: its UID.
    """

    cause: str
    deletion_cost: str | None
    ready_pods: int
    released_at: datetime
    attempt: int
    deployment: str
    deployment_uid: str
    replica_set: str
    replica_set_uid: str

    @property
    def is_for_drain(self) -> bool:
        """Whether a drain moves the pod: its node is cordoned."""
        return self.cause.startswith("NodeDrain/")

    @classmethod
    def from_annotation(cls, text: object) -> "ReleaseRecord | None":
        """Parse the annotation; None if it is absent or no release wrote it."""
        if not isinstance(text, str) or not 0 < len(text) <= _MAX_RECORD_LENGTH:
            return None
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return cls._from_json(fields) if isinstance(fields, dict) else None

    @classmethod
    def _from_json(cls, fields: RawObject) -> "ReleaseRecord | None":
        cost = fields.get("cost")
        identity = {
            key: fields.get(key) for key in ("cause", "deployment", "deploymentUID", "replicaSet", "replicaSetUID")
        }
        ready, attempt, since = fields.get("ready"), fields.get("attempt", 1), _parse_time(fields.get("since"))
        complete = all(isinstance(text, str) and 0 < len(text) <= _MAX_NAME_LENGTH for text in identity.values())
        if (
            not complete
            or not isinstance(ready, int)
            or not _is_count(ready)
            or not _is_count(attempt)
            or since is None
        ):
            return None
        if cost is not None and not is_deletion_cost(cost):
            return None
        return cls(
            cause=str(identity["cause"]),
            deletion_cost=cost,
            ready_pods=ready,
            released_at=since,
            attempt=int(attempt),
            deployment=str(identity["deployment"]),
            deployment_uid=str(identity["deploymentUID"]),
            replica_set=str(identity["replicaSet"]),
            replica_set_uid=str(identity["replicaSetUID"]),
        )

    def to_annotation(self) -> str:
        """Return the value of the annotation."""
        fields: dict[str, Any] = {
            "cause": self.cause,
            "cost": self.deletion_cost,
            "ready": self.ready_pods,
            "since": self.released_at.isoformat(timespec="seconds"),
            "attempt": self.attempt,
            "deployment": self.deployment,
            "deploymentUID": self.deployment_uid,
            "replicaSet": self.replica_set,
            "replicaSetUID": self.replica_set_uid,
        }
        return json.dumps({key: value for key, value in fields.items() if value is not None})


def is_deletion_cost(value: object) -> bool:
    """Whether the API server accepts this `pod-deletion-cost`: a 32-bit integer as text, without leading zeros."""
    if not isinstance(value, str) or not value.removeprefix("-").isdecimal() or not value.isascii() or len(value) > 11:
        return False
    return str(int(value)) == value and _MIN_DELETION_COST <= int(value) <= _MAX_DELETION_COST


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT


def _parse_time(value: object) -> datetime | None:
    """Return a time with a time zone between _FIRST_YEAR and _LAST_YEAR; None for anything else."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return time if time and time.tzinfo and _FIRST_YEAR <= time.year <= _LAST_YEAR else None


def read_record(meta: RawMetadata) -> tuple[ReleaseRecord | None, bool]:
    """Return the release record in a raw pod's metadata, and whether the pod is released.

    The record counts in two cases. The controller is the Deployment of the record: the pod is released. The controller
    is the ReplicaSet of the record, and the pod has the deletion cost of a return: the pod is returned. In every other
    case another client wrote the annotation: (None, False).
    """
    annotations = meta.get("annotations") or {}
    record = ReleaseRecord.from_annotation(annotations.get(names.MOVE))
    owner = controller_reference(meta) if record else None
    if record is None or owner is None or not str(owner.get("apiVersion", "")).startswith("apps/"):
        return None, False
    controller = (owner.get("kind"), owner.get("name"), owner.get("uid"))
    if controller == ("Deployment", record.deployment, record.deployment_uid):
        return record, True
    in_replica_set = controller == ("ReplicaSet", record.replica_set, record.replica_set_uid)
    return (
        (record, False)
        if in_replica_set and annotations.get(names.POD_DELETION_COST) == RETURNED_POD_DELETION_COST
        else (None, False)
    )


def release_patch(
    uid: str, resource_version: str, other_references: Sequence[RawOwnerReference], record: ReleaseRecord
) -> RawObject:
    """Return the patch that makes the Deployment the controller of the pod and writes the record.

    `other_references`: the owner references that are no controller; without them the merge patch would remove them.
    """
    owner = _make_controller_reference("Deployment", record.deployment, record.deployment_uid)
    return _patch(uid, resource_version, {names.MOVE: record.to_annotation()}, [*other_references, owner])


def return_patch(
    uid: str, resource_version: str, other_references: Sequence[RawOwnerReference], record: ReleaseRecord
) -> RawObject:
    """Return the patch that makes the ReplicaSet the controller again, with a deletion cost that keeps this pod."""
    owner = _make_controller_reference("ReplicaSet", record.replica_set, record.replica_set_uid)
    return _patch(
        uid, resource_version, {names.POD_DELETION_COST: RETURNED_POD_DELETION_COST}, [*other_references, owner]
    )


def clear_patch(uid: str, resource_version: str, record: ReleaseRecord) -> RawObject:
    """Return the patch that removes the record and restores the earlier deletion cost."""
    return _patch(uid, resource_version, {names.MOVE: None, names.POD_DELETION_COST: record.deletion_cost})


def _make_controller_reference(kind: str, name: str, uid: str) -> RawObject:
    # blockOwnerDeletion would need a permission on the owner's finalizers on some clusters.
    return {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": True}


def _patch(
    uid: str,
    resource_version: str,
    annotations: Mapping[str, str | None],
    owner_references: Sequence[RawOwnerReference] | None = None,
) -> RawObject:
    metadata: dict[str, Any] = {"uid": uid, "resourceVersion": resource_version, "annotations": dict(annotations)}
    return {
        "metadata": metadata
        if owner_references is None
        else metadata | {"ownerReferences": [dict(o) for o in owner_references]}
    }
