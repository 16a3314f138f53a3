"""Records of drains: finished ones from the ConfigMap of the operator, and running ones from their NodeDrains."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rescheduler.api.untrusted import bounded_integer, bounded_text, parse_json_object, parse_time
from rescheduler.cli.drain_history import messages
from rescheduler.core.model.raw import RawObject

REPLACED_FIRST = "ReplacedFirst"
_MAX_TEXT, _MAX_COUNT = 1024, 10**9


@dataclass(frozen=True, slots=True)
class PastMove:
    """A pod that left a node.

    Attributes:
        pod: namespace/name.
        way: how it left, such as `ReplacedFirst`.
        forced: why it left without regard to its budgets; empty if they were asked.
    """

    pod: str
    way: str
    owner: str = ""
    forced: str = ""
    blocked_seconds: int = 0


@dataclass(frozen=True, slots=True)
class PastDrain:
    """A drain that ended or still runs.

    Attributes:
        requested_by: reason, message and client of each request.
        ended_at: None while it runs.
        moves_total: number of pods that left; `moves` may name fewer.
        blocked_seconds: summed over all pods.
        fields: the record as it was read.
    """

    node: str
    outcome: str
    started_at: datetime | None
    ended_at: datetime | None
    requested_by: tuple[str, ...]
    policy: str
    proof: str
    moves: tuple[PastMove, ...]
    moves_total: int
    blocked_seconds: int
    fields: Mapping[str, Any]

    @property
    def interrupted(self) -> tuple[PastMove, ...]:
        """Return the named pods that left without a replacement first."""
        return tuple(move for move in self.moves if move.way != REPLACED_FIRST)


def finished_drains(data: Mapping[str, Any]) -> Iterator[PastDrain]:
    """Yield the records in the data of the ConfigMap. Data that is no record is left out."""
    for text in data.values():
        try:
            fields = parse_json_object(text)
        except ValueError:
            continue
        if fields.get("node"):
            yield parse_drain(fields)


def running_drains(drains: Iterable[RawObject]) -> Iterator[PastDrain]:
    """Yield what raw NodeDrains record so far."""
    for raw in drains:
        spec, status = _object(raw.get("spec")), _object(raw.get("status"))
        if not (started := _object(status.get("history")).get("startedAt") or status.get("startedAt")):
            continue
        fields = {
            "requestedBy": spec.get("requests"),
            **_object(status.get("history")),
            "startedAt": started,
            "node": spec.get("nodeName"),
            "policy": _object(status.get("policy")).get("name"),
            "outcome": messages.RUNNING,
        }
        yield parse_drain({name: value for name, value in fields.items() if value})


def parse_drain(fields: RawObject) -> PastDrain:
    """Parse a record."""
    moves = tuple(map(_parse_move, _objects(fields.get("moves"))))
    return PastDrain(
        node=_text(fields, "node"),
        outcome=_text(fields, "outcome"),
        started_at=parse_time(fields.get("startedAt")),
        ended_at=parse_time(fields.get("endedAt")),
        requested_by=tuple(
            messages.requester(_text(row, "reason"), _text(row, "message"), _text(row, "manager"))
            for row in _objects(fields.get("requestedBy"))
        ),
        policy=_text(fields, "policy"),
        proof=_text(fields, "proof"),
        moves=moves,
        moves_total=max(_count(fields, "movesTotal"), len(moves)),
        blocked_seconds=_count(fields, "blockedSeconds"),
        fields=fields,
    )


def select(
    drains: Iterable[PastDrain], node: str | None, since: datetime | None, until: datetime | None
) -> list[PastDrain]:
    """Return the drains of a node (None: of all) that began in a period, the oldest first."""
    found = [
        drain
        for drain in drains
        if node in (None, drain.node)
        and (since is None or (drain.started_at is not None and drain.started_at >= since))
        and (until is None or (drain.started_at is not None and drain.started_at < until))
    ]
    return sorted(found, key=lambda drain: (drain.started_at.timestamp() if drain.started_at else 0, drain.node))


def _parse_move(row: RawObject) -> PastMove:
    pod = f"{_text(row, 'namespace')}/{_text(row, 'pod')}"
    return PastMove(pod, _text(row, "way"), _text(row, "owner"), _text(row, "forced"), _count(row, "blockedSeconds"))


def _text(fields: RawObject, name: str) -> str:
    return bounded_text(fields.get(name), _MAX_TEXT)


def _count(fields: RawObject, name: str) -> int:
    return bounded_integer(fields.get(name), 0, _MAX_COUNT, 0)


def _object(value: Any) -> RawObject:
    return value if isinstance(value, Mapping) else {}


def _objects(value: Any) -> list[RawObject]:
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []
