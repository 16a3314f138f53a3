"""Progress of a drain as lines: a line for each change, and once for each blocked pod its hint."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from rescheduler.api.untrusted import parse_time
from rescheduler.cli import messages
from rescheduler.cli.output import format_span, printable
from rescheduler.core.model.messages import listing
from rescheduler.core.model.raw import RawObject


@dataclass(frozen=True, slots=True)
class ProgressLine:
    """A line of output.

    Attributes:
        detail: the line belongs to the line before it.
    """

    text: str
    detail: bool = False


class DrainProgress:
    """Progress of one drain, with the lines that were printed already."""

    def __init__(self) -> None:
        self._last_text = ""
        self._reported_blockers: set[tuple[str, str, str]] = set()

    def new_lines(self, drain: RawObject, now: datetime) -> list[ProgressLine]:
        """Return the lines for changes since the last call. `drain`: the raw NodeDrain."""
        status = drain.get("status") or {}
        stage, counts = _stage_with_reason(drain), _counts(status)
        lines = []
        if (text := ", ".join((stage, *counts))) != self._last_text:
            self._last_text = text
            left = time_left(status, now)
            ends = [messages.time_left(format_span(left))] if left else []
            lines.append(ProgressLine(", ".join((stage, *counts, *ends))))
        for blocker in status.get("blockers") or ():
            key = (blocker["namespace"], blocker["pod"], blocker["class"])
            if key not in self._reported_blockers:
                self._reported_blockers.add(key)
                lines += _blocker_lines(blocker)
        return lines


def is_unobserved(drain: RawObject) -> bool:
    """Whether the operator has not read the current generation of the NodeDrain."""
    return int((drain.get("status") or {}).get("observedGeneration", 0)) < int(drain["metadata"]["generation"])


def is_drained(drain: RawObject) -> bool:
    """Whether the node is Drained and the NodeDrain is not being deleted."""
    drained = (drain.get("status") or {}).get("phase") == "Drained"
    return drained and not is_unobserved(drain) and "deletionTimestamp" not in drain["metadata"]


def format_requests(drain: RawObject) -> str:
    """Return the requests of a NodeDrain as text, such as `Manual (swap disk), Failure`."""
    requests = drain["spec"]["requests"]
    return printable(
        ", ".join(f"{r['reason']} ({r['message']})" if r.get("message") else r["reason"] for r in requests)
    )


def waiting_lines(drains: Iterable[RawObject]) -> list[str]:
    """Return a line for each drain with pods that only its node can have. `drains`: raw NodeDrains."""
    return [
        printable(messages.pods_waiting_for_node(drain["spec"]["nodeName"], len(pods), listing(pods)))
        for drain in drains
        if (pods := (drain.get("status") or {}).get("waitsForNode"))
    ]


def drain_stage(drain: RawObject) -> str:
    """Return the phase, or what stands for it while there is none."""
    status = drain.get("status") or {}
    if "deletionTimestamp" in drain["metadata"]:
        return messages.WITHDRAWN_STAGE
    return str(status.get("phase") or messages.UNOBSERVED_STAGE)


def wait_message(drain: RawObject) -> str:
    """Return reason and message of the condition `Progressing`, unless the phase says the same. Empty for none."""
    status = drain.get("status") or {}
    progressing = next((c for c in status.get("conditions") or () if c["type"] == "Progressing"), None)
    if progressing is None or progressing["reason"] in (status.get("phase"), "Restoring"):
        return ""
    if "deletionTimestamp" in drain["metadata"]:
        return ""
    return messages.reason_with_message(progressing["reason"], progressing.get("message", ""))


def moved_pods(status: RawObject) -> tuple[int, int]:
    """Return the numbers of moved pods, and of all pods that must leave."""
    pods = status.get("pods") or {}
    return int(pods.get("moved") or 0), int(pods.get("total") or 0)


def _stage_with_reason(drain: RawObject) -> str:
    stage, reason = drain_stage(drain), wait_message(drain)
    return f"{stage} ({reason})" if reason else stage


def _counts(status: RawObject) -> list[str]:
    pods = status.get("pods") or {}
    counts = [messages.moved(status["progress"])] if status.get("startedAt") and status.get("progress") else []
    if waiting := pods.get("waitingForReplacement"):
        counts.append(messages.waiting_for_replacement(waiting))
    if waiting := pods.get("waitsForNode"):
        counts.append(messages.waits_for_node(waiting))
    if blocked := status.get("blockersTotal"):
        counts.append(messages.blocked(blocked))
    return counts


def time_left(status: RawObject, now: datetime) -> timedelta | None:
    """Return the time left; None if it is not known. It is no change by itself, because it changes with the clock."""
    completion = parse_time(status.get("estimatedCompletion"))
    left = completion - now if completion else timedelta()
    return left if left >= timedelta(seconds=1) else None


def _blocker_lines(blocker: RawObject) -> list[ProgressLine]:
    pod = f"{blocker['namespace']}/{blocker['pod']}"
    lines = [ProgressLine(messages.blocked_pod(pod, blocker["class"], blocker.get("message", "")), detail=True)]
    if hint := blocker.get("hint"):
        lines.append(ProgressLine(messages.blocked_pod_hint(hint), detail=True))
    return lines
