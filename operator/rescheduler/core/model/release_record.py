"""The record of a move on its pod, and the three patches of a move: release, return, and clearing the record.

A release replaces the controller of the pod: its Deployment instead of its ReplicaSet. The ReplicaSet is one pod short
and creates another. The pod keeps its labels and always has a controller. The record is an annotation on the pod: after
any crash it says what the pod was. Other people can write that annotation too, so it counts only if the controller of
the pod agrees with it. Patches carry the UID and the resourceVersion: a pod that changed meanwhile is looked at again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rescheduler.api import names

RETURNED_POD_DELETION_COST = "2147483647"
"""Deletion cost of a returned pod: its ReplicaSet, with one pod too many, deletes the other."""
_MIN_DELETION_COST, _MAX_DELETION_COST = -(2**31), 2**31 - 1
"""The API server refuses any other deletion cost."""
_MAX_RECORD_LENGTH = 4096
"""No record of ours is longer; a longer annotation is not parsed."""
_MAX_NAME_LENGTH = 300
_MAX_COUNT = 1_000_000
_FIRST_YEAR, _LAST_YEAR = 2000, 2200


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """The annotation `rescheduler.dev/move`.

    Attributes:
        cause: what moves the pod, such as `NodeDrain/n1`.
        cost: its `pod-deletion-cost` before; None if it had none.
        ready: Ready pods of its owner when the first of the pods now released was released.
        since: when it was released.
        attempt: 1 for the first release of the owner, more after setbacks.
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
        """Its node is cordoned: a new pod comes up elsewhere."""
        return self.cause.startswith("NodeDrain/")

    @classmethod
    def from_annotation(cls, text: object) -> "ReleaseRecord | None":
        """Parse the annotation; None if it is absent or not one that a release writes."""
        if not isinstance(text, str) or not 0 < len(text) <= _MAX_RECORD_LENGTH:
            return None
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return cls._from_json(found) if isinstance(found, dict) else None

    @classmethod
    def _from_json(cls, found: Mapping[str, Any]) -> "ReleaseRecord | None":
        cost = found.get("cost")
        words = {key: found.get(key) for key in ("cause", "deployment", "deploymentUID", "replicaSet", "replicaSetUID")}
        ready, attempt, since = found.get("ready"), found.get("attempt", 1), _parse_time(found.get("since"))
        named = all(isinstance(word, str) and 0 < len(word) <= _MAX_NAME_LENGTH for word in words.values())
        if not named or not isinstance(ready, int) or not _is_count(ready) or not _is_count(attempt) or since is None:
            return None
        if cost is not None and not is_deletion_cost(cost):
            return None
        return cls(
            cause=str(words["cause"]),
            deletion_cost=cost,
            ready_pods=ready,
            released_at=since,
            attempt=int(attempt),
            deployment=str(words["deployment"]),
            deployment_uid=str(words["deploymentUID"]),
            replica_set=str(words["replicaSet"]),
            replica_set_uid=str(words["replicaSetUID"]),
        )

    def to_annotation(self) -> str:
        """Return the value of the annotation."""
        found: dict[str, Any] = {
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
        return json.dumps({key: value for key, value in found.items() if value is not None})


def is_deletion_cost(value: object) -> bool:
    """Whether the API server takes this as a `pod-deletion-cost`: the text of a 32-bit integer, in its plain form."""
    if not isinstance(value, str) or not value.removeprefix("-").isdecimal() or not value.isascii() or len(value) > 11:
        return False
    return str(int(value)) == value and _MIN_DELETION_COST <= int(value) <= _MAX_DELETION_COST


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT


def _parse_time(value: object) -> datetime | None:
    """Return an aware time within some sane centuries; None for anything else."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found and found.tzinfo and _FIRST_YEAR <= found.year <= _LAST_YEAR else None


def controller_reference(meta: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the owner reference of a raw object's controller; None if it has none."""
    return next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)


def read_record(meta: Mapping[str, Any]) -> tuple[ReleaseRecord | None, bool]:
    """Return the record of a move on a raw pod, and whether the pod is released.

    The record counts only while the controller of the pod is the Deployment that it names (the pod is released), or the
    ReplicaSet that it names and the pod has the deletion cost of a return (it was returned). Any other pod got the
    annotation from somebody else: (None, False).
    """
    annotations = meta.get("annotations") or {}
    move = ReleaseRecord.from_annotation(annotations.get(names.MOVE))
    owner = controller_reference(meta) if move else None
    if move is None or owner is None or not str(owner.get("apiVersion", "")).startswith("apps/"):
        return None, False
    who = (owner.get("kind"), owner.get("name"), owner.get("uid"))
    if who == ("Deployment", move.deployment, move.deployment_uid):
        return move, True
    returned = who == ("ReplicaSet", move.replica_set, move.replica_set_uid)
    return (
        (move, False)
        if returned and annotations.get(names.POD_DELETION_COST) == RETURNED_POD_DELETION_COST
        else (None, False)
    )


def release_patch(
    uid: str, resource_version: str, other_references: Sequence[Mapping[str, Any]], record: ReleaseRecord
) -> dict[str, Any]:
    """Make the Deployment the controller of the pod, and record the move, in one write.

    `others`: the references of the pod to owners that are no controllers; a merge patch replaces the whole list.
    """
    owner = _make_controller_reference("Deployment", record.deployment, record.deployment_uid)
    return _patch(uid, resource_version, {names.MOVE: record.to_annotation()}, [*other_references, owner])


def return_patch(
    uid: str, resource_version: str, other_references: Sequence[Mapping[str, Any]], record: ReleaseRecord
) -> dict[str, Any]:
    """Make the ReplicaSet the controller again, and let it keep this pod rather than the replacement."""
    owner = _make_controller_reference("ReplicaSet", record.replica_set, record.replica_set_uid)
    return _patch(
        uid, resource_version, {names.POD_DELETION_COST: RETURNED_POD_DELETION_COST}, [*other_references, owner]
    )


def clear_patch(uid: str, resource_version: str, record: ReleaseRecord) -> dict[str, Any]:
    """Remove the record, and restore the deletion cost that the pod had."""
    return _patch(uid, resource_version, {names.MOVE: None, names.POD_DELETION_COST: record.deletion_cost})


def _make_controller_reference(kind: str, name: str, uid: str) -> dict[str, Any]:
    # Without blockOwnerDeletion: that would need a right on the owner's finalizers on some clusters.
    return {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": True}


def _patch(
    uid: str,
    resource_version: str,
    annotations: Mapping[str, str | None],
    owner_references: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"uid": uid, "resourceVersion": resource_version, "annotations": dict(annotations)}
    return {
        "metadata": metadata
        if owner_references is None
        else metadata | {"ownerReferences": [dict(o) for o in owner_references]}
    }
