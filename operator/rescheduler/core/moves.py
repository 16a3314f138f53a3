"""What a release writes on a pod, and how it is undone.

The record of a move is on the pod itself: whoever finds the pod, after any crash, knows what it was and how to put
it back. Patches carry the UID and the resourceVersion: a pod that changed meanwhile is looked at again first.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rescheduler.api import names
from rescheduler.api.untrusted import INT32, integer, json_object, time

_WORDS = ("cause", "hash", "deployment", "deploymentUID", "replicaSet", "replicaSetUID")
_LONGEST_WORD = 300
_LONGEST = 4096

HIGHEST_COST = "2147483647"
"""Deletion cost of a pod given back: its ReplicaSet, with one too many, removes the other."""


@dataclass(frozen=True, slots=True)
class Move:
    """The annotation `rescheduler.dev/move`.

    Attributes:
        cause: what moves the pod, such as `NodeDrain/n1`.
        hash: its `pod-template-hash` before.
        cost: its `pod-deletion-cost` before; None where it had none.
        ready: how many Ready pods its owner had when the first of those now released was let go.
        since: when it was released.
    """

    cause: str
    hash: str
    cost: str | None
    ready: int
    since: datetime
    attempt: int
    deployment: str
    deployment_uid: str
    replica_set: str
    replica_set_uid: str

    @property
    def of_drain(self) -> bool:
        """Its node is cordoned: what comes up anew comes up elsewhere."""
        return self.cause.startswith("NodeDrain/")

    @classmethod
    def read(cls, text: str | None) -> "Move | None":
        """From the annotation; None where it is absent or is none of ours."""
        try:
            found = json_object(text, _LONGEST) if text else {}
        except ValueError:
            return None
        words = [found.get(key) for key in _WORDS]
        since, ready, attempt, cost = (found.get(key) for key in ("since", "ready", "attempt", "cost"))
        when = time(since)
        if when is None or not all(isinstance(word, str) and len(word) <= _LONGEST_WORD for word in words):
            return None
        if integer(ready, 0, INT32, -1) != ready or not isinstance(cost, str | None) or len(cost or "") > _LONGEST_WORD:
            return None
        cause, hash_, deployment, deployment_uid, replica_set, replica_set_uid = map(str, words)
        return cls(
            cause=cause,
            hash=hash_,
            cost=cost,
            ready=ready,
            since=when,
            attempt=integer(attempt, 1, INT32, 1),
            deployment=deployment,
            deployment_uid=deployment_uid,
            replica_set=replica_set,
            replica_set_uid=replica_set_uid,
        )

    def text(self) -> str:
        """The annotation's value."""
        found: dict[str, Any] = {
            "cause": self.cause,
            "hash": self.hash,
            "cost": self.cost,
            "ready": self.ready,
            "since": self.since.isoformat(timespec="seconds"),
            "attempt": self.attempt,
            "deployment": self.deployment,
            "deploymentUID": self.deployment_uid,
            "replicaSet": self.replica_set,
            "replicaSetUID": self.replica_set_uid,
        }
        return json.dumps({key: value for key, value in found.items() if value is not None})


def release_patch(uid: str, version: str, move: Move) -> dict[str, Any]:
    """Make the ReplicaSet let go of the pod, and say so on it, in one write."""
    return _patch(uid, version, {names.HASH: names.RELEASED}, {names.MOVE: move.text()})


def give_back_patch(uid: str, version: str, move: Move) -> dict[str, Any]:
    """Let the ReplicaSet adopt the pod again, and keep it rather than its replacement."""
    return _patch(uid, version, {names.HASH: move.hash}, {names.DELETION_COST: HIGHEST_COST})


def settle_patch(uid: str, version: str, move: Move) -> dict[str, Any]:
    """Take off what is left once the ReplicaSet has the pod back."""
    return _patch(uid, version, {}, {names.MOVE: None, names.DELETION_COST: move.cost})


def _patch(uid: str, version: str, labels: Mapping[str, str], annotations: Mapping[str, str | None]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"uid": uid, "resourceVersion": version, "annotations": dict(annotations)}
    return {"metadata": metadata | ({"labels": dict(labels)} if labels else {})}
