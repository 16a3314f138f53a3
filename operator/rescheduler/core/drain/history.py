"""The history of a drain: who requested it, which pods left and how, and what blocked them.

A drain collects its history in its status, so that a new leader knows it. The record of the finished drain is made from
the history. A ConfigMap keeps the records of the last finished drains.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from rescheduler.api import names
from rescheduler.api.conditions import Condition
from rescheduler.api.drains import Blocker, NodeDrain, NodeDrainStatus, RequestReason
from rescheduler.api.field_writers import FieldWriter
from rescheduler.api.history import (
    MAX_RECORDED_PODS,
    BlockedPod,
    DrainHistory,
    DrainRecord,
    Force,
    Move,
    MoveWay,
    Outcome,
    Requester,
)
from rescheduler.api.scalars import dump
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision, RequiredProof
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.pods import Pod

MAX_RECORDS = 300
"""The ConfigMap keeps at most this many finished drains."""
MAX_RECORDS_SIZE = 786_432
"""Characters of all records together: a ConfigMap may have 1 MiB."""
_MAX_RECORD_SIZE = 262_144
_MAX_KEY_LENGTH = 60


def observe(
    status: NodeDrainStatus,
    drain: NodeDrain,
    node: Node | None,
    *,
    conditions: Iterable[Condition],
    moves: tuple[tuple[Move, ...], int] | None,
    now: datetime,
) -> DrainHistory:
    """Return the history as of this status.

    `drain`: with the status before. `moves`: the moves and their total number; None if the pods are not known.
    """
    before = drain.status.history
    fenced = next((c for c in conditions if c.type == "Fenced" and c.status == "True"), None)
    ended = ended_blockers(drain.status.blockers, status.blockers, now)
    kept_moves, total = moves or (before.moves, before.moves_total)
    return DrainHistory(
        requested_by=_requesters(before, drain, node),
        started_at=before.started_at or status.started_at,
        drained_at=status.drained_at or before.drained_at,
        proof=f"{fenced.reason}: {fenced.message}" if fenced else before.proof,
        moves=kept_moves,
        moves_total=total,
        blocked=(*before.blocked, *ended)[:MAX_RECORDED_PODS],
        blocked_seconds=before.blocked_seconds + sum(pod.seconds for pod in ended),
    )


def _requesters(before: DrainHistory, drain: NodeDrain, node: Node | None) -> tuple[Requester, ...]:
    """Return the requesters, with those of new requests. The writer of an annotation may be gone later."""
    known = {requester.reason for requester in before.requested_by}
    writers = {
        RequestReason.MAINTENANCE: node.maintenance_writer if node else FieldWriter(),
        RequestReason.FAILURE: FieldWriter(names.FIELD_MANAGER, drain.created),
        RequestReason.MANUAL: drain.requests_writer,
    }
    new = (
        Requester(
            reason=request.reason,
            message=request.message,
            manager=writers[request.reason].manager,
            time=writers[request.reason].time,
        )
        for request in drain.spec.requests
        if request.reason not in known
    )
    return (*before.requested_by, *new)[: len(RequestReason)]


def ended_blockers(before: Iterable[Blocker], after: Iterable[Blocker], now: datetime) -> tuple[BlockedPod, ...]:
    """Return the blockers that are gone, with their duration."""
    remaining = {(b.namespace, b.pod, b.class_) for b in after}
    return tuple(_blocked_pod(b, now) for b in before if (b.namespace, b.pod, b.class_) not in remaining)


def failover_stages(drain: NodeDrain, after: NodeDrainStatus, now: datetime) -> list[tuple[str, float]]:
    """Return the stages that a drain for a failure reaches with this status, with the seconds since its creation.

    `drain`: with the status before.
    """
    before = drain.status.history
    if drain.created is None or not any(request.reason is RequestReason.FAILURE for request in drain.spec.requests):
        return []
    reached = {
        "Started": (before.started_at, after.history.started_at),
        "Released": (before.moves, after.history.moves),
        "Drained": (before.drained_at, after.history.drained_at),
    }
    seconds = max(0.0, (now - drain.created).total_seconds())
    return [(stage, seconds) for stage, (known, now_known) in reached.items() if now_known and not known]


def _blocked_pod(blocker: Blocker, now: datetime) -> BlockedPod:
    seconds = max(0, int((now - blocker.since).total_seconds()))
    return BlockedPod(namespace=blocker.namespace, pod=blocker.pod, class_=blocker.class_, seconds=seconds)


def blocked_by(pod: Pod, status: NodeDrainStatus, now: datetime) -> dict[str, int]:
    """Return the seconds for which the pod was a blocker, by class."""
    found = (*status.history.blocked, *(_blocked_pod(blocker, now) for blocker in status.blockers))
    seconds: dict[str, int] = {}
    for blocked in found:
        if (blocked.namespace, blocked.pod) == (pod.namespace, pod.name):
            seconds[blocked.class_] = seconds.get(blocked.class_, 0) + blocked.seconds
    return seconds


def way_of(pod: Pod, sent: PodDecision | None) -> MoveWay:
    """Return how a pod left; `sent`: the decision of the last accepted request, None if this process sent none."""
    if sent and sent.action is PodAction.DELETE:
        return MoveWay.DELETED
    if sent or pod.evicted:
        return MoveWay.REPLACED_FIRST if pod.released else MoveWay.EVICTED
    return MoveWay.LEFT


def force_of(sent: PodDecision | None, last: PodDecision | None) -> Force | None:
    """Return why the pod was deleted without asking its budgets; None if they were asked.

    `last`: the last decision, by which a Terminating pod of a dead boot waits for the out-of-service taint.
    """
    if last and last.action is PodAction.WAIT_TERMINATING and last.required_proof is RequiredProof.BOOT_DEAD:
        return Force.BOOT_DEAD
    if sent is None or sent.action is not PodAction.DELETE:
        return None
    if sent.required_proof is RequiredProof.BOOT_DEAD:
        return Force.BOOT_DEAD
    if sent.forced:
        return Force.TIMEOUT
    if sent.required_proof is RequiredProof.NODE_UNREACHABLE:
        return Force.NODE_UNREACHABLE
    return Force.NOT_READY if sent.only_if_unchanged else Force.SURPLUS


def owner_text(pod: Pod) -> str:
    """Return kind and name of the owner: the Deployment rather than its ReplicaSet; empty without an owner."""
    if pod.release_record:
        return f"Deployment/{pod.release_record.deployment}"
    if pod.owner is None:
        return ""
    deployment = pod.owner.name.removesuffix(f"-{pod.pod_template_hash}") if pod.pod_template_hash else ""
    if pod.owner.kind == "ReplicaSet" and deployment not in ("", pod.owner.name):
        return f"Deployment/{deployment}"
    return f"{pod.owner.kind}/{pod.owner.name}"


def move_fields(move: Move) -> dict[str, Any]:
    """Return the fields of a move, for a record with more fields."""
    return {name: getattr(move, name) for name in Move.model_fields}


def ended_unseen(begun: Move, now: datetime) -> Move:
    """Return the move of a pod that left while no operator ran: the operator evicts a pod whose replacement is Ready."""
    way = MoveWay.REPLACED_FIRST if begun.way is MoveWay.LEFT and begun.new_pod else begun.way
    return begun.model_copy(update={"way": way, "left_at": now.replace(microsecond=0)})


def with_move(moves: tuple[Move, ...], move: Move) -> tuple[Move, ...]:
    """Return the moves with one more, if there is room."""
    return (*moves, move) if len(moves) < MAX_RECORDED_PODS else moves


def record(drain: NodeDrain, node: Node | None, now: datetime) -> DrainRecord:
    """Return the record of a drain that ends now; `node`: None if it is gone."""
    status = drain.status
    history = status.history
    left = [_blocked_pod(blocker, now) for blocker in status.blockers]
    node_uid = status.node.uid if status.node else ""
    return DrainRecord(
        requested_by=_requesters(history, drain, node),
        started_at=history.started_at or status.started_at,
        drained_at=status.drained_at or history.drained_at,
        proof=history.proof,
        moves=history.moves,
        moves_total=history.moves_total,
        blocked=(*history.blocked, *left)[:MAX_RECORDED_PODS],
        blocked_seconds=history.blocked_seconds + sum(pod.seconds for pod in left),
        node=drain.spec.node_name,
        node_uid=node_uid or (node.uid if node else ""),
        drain_uid=drain.uid,
        outcome=_outcome(drain, node, node_uid),
        reasons=tuple(request.reason for request in drain.spec.requests),
        policy=status.policy.name if status.policy else "",
        created_at=drain.created,
        ended_at=now,
        paused_seconds=status.paused_seconds or 0,
    )


def _outcome(drain: NodeDrain, node: Node | None, node_uid: str) -> Outcome:
    if node is None or (node_uid and node.uid != node_uid):
        return Outcome.NODE_GONE
    if drain.status.drained_at or drain.status.history.drained_at:
        return Outcome.DRAINED
    return Outcome.CANCELLED if drain.status.history.started_at or drain.status.started_at else Outcome.NOT_STARTED


# -- the records of finished drains -----------------------------------------------------------------------------------


def record_key(finished: DrainRecord) -> str:
    """Return the key of a record: the same for each record of one drain, and in the order of their starts."""
    since = finished.started_at or finished.created_at or finished.ended_at
    return f"{since.astimezone(UTC):%Y%m%dT%H%M%SZ}.{finished.drain_uid}"[:_MAX_KEY_LENGTH]


def record_text(finished: DrainRecord) -> str:
    """Return a record as one line of JSON."""
    return json.dumps({name: value for name, value in dump(finished).items() if value not in ("", [])})


def changes(data: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str | None]:
    """Return the changes that add records to the data of the ConfigMap, and remove the oldest ones beyond the limits.

    Data under other keys is not ours and stays.
    """
    new = {key: text for key, text in added.items() if data.get(key) != text and len(text) <= _MAX_RECORD_SIZE}
    if not new:
        return {}
    kept = {key: text for key, text in data.items() if _is_record_key(key)} | new
    removed: dict[str, str | None] = {}
    size = sum(map(len, kept.values()))
    for key in sorted(kept.keys() - new.keys()):
        if len(kept) - len(removed) <= MAX_RECORDS and size <= MAX_RECORDS_SIZE:
            break
        removed[key] = None
        size -= len(kept[key])
    return {**new, **removed}


def _is_record_key(key: str) -> bool:
    start, _, uid = key.partition(".")
    return len(start) == len("20260101T000000Z") and start[8] == "T" and start[-1] == "Z" and bool(uid)


def parse_records(data: Mapping[str, str], nodes: Collection[str] = ()) -> list[DrainRecord]:
    """Return the records of these nodes, or of all nodes, oldest first. A text that is no record counts for nothing."""
    found = []
    for key in sorted(filter(_is_record_key, data)):
        try:
            finished = DrainRecord.model_validate_json(data[key][:_MAX_RECORD_SIZE])
        except ValueError:
            continue
        if not nodes or finished.node in nodes:
            found.append(finished)
    return found
