"""What is said of a drain while it goes on: a line for each change, and once of each pod that cannot leave, what would help."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rescheduler.api.untrusted import parse_time
from rescheduler.cli.output import format_span, printable

_Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ProgressLine:
    """One line; on a terminal it takes the place of the one before, where both tell of one `stage`."""

    text: str
    stage: str = ""


class DrainProgress:
    """Of one drain; what has been said is not said again."""

    def __init__(self) -> None:
        self._last_text = ""
        self._reported_blockers: set[tuple[str, str, str]] = set()

    def new_lines(self, drain: _Raw, now: datetime) -> list[ProgressLine]:
        """What is new."""
        status = drain.get("status") or {}
        stage, counts = _stage(drain), _counts(status)
        found = []
        if (said := ", ".join((stage, *counts))) != self._last_text:
            self._last_text = said
            found.append(ProgressLine(", ".join((stage, *counts, *_time_left(status, now))), stage))
        for blocker in status.get("blockers") or ():
            key = (blocker["namespace"], blocker["pod"], blocker["class"])
            if key not in self._reported_blockers:
                self._reported_blockers.add(key)
                found += _blocker_lines(blocker)
        return found


def is_unobserved(drain: _Raw) -> bool:
    """Whether the operator has not looked at what the NodeDrain says now."""
    return int((drain.get("status") or {}).get("observedGeneration", 0)) < int(drain["metadata"]["generation"])


def is_drained(drain: _Raw) -> bool:
    """Whether the node is Drained, and its drain is to stay."""
    drained = (drain.get("status") or {}).get("phase") == "Drained"
    return drained and not is_unobserved(drain) and "deletionTimestamp" not in drain["metadata"]


def format_requests(drain: _Raw) -> str:
    """Why it is drained, for people."""
    asked = drain["spec"]["requests"]
    return printable(", ".join(f"{r['reason']} ({r['message']})" if r.get("message") else r["reason"] for r in asked))


def _stage(drain: _Raw) -> str:
    status = drain.get("status") or {}
    if "deletionTimestamp" in drain["metadata"]:
        return "withdrawn, the node is being put back"
    if not (phase := status.get("phase")):
        return "waits for the operator"
    progressing = next((c for c in status.get("conditions") or () if c["type"] == "Progressing"), None)
    if progressing is None or progressing["reason"] in (phase, "Restoring"):
        return str(phase)
    return f"{phase} ({progressing['reason']}: {progressing['message']})"


def _counts(status: _Raw) -> list[str]:
    pods = status.get("pods") or {}
    found = [f"{status['progress']} moved"] if status.get("startedAt") and status.get("progress") else []
    if waiting := pods.get("waitingForReplacement"):
        found.append(f"{waiting} {'waits' if waiting == 1 else 'wait'} for a replacement")
    if blocked := status.get("blockersTotal"):
        found.append(f"{blocked} blocked")
    return found


def _time_left(status: _Raw, now: datetime) -> list[str]:
    """Not of what is told from one another: it changes by the clock alone."""
    if not (when := parse_time(status.get("estimatedCompletion"))):
        return []
    left = when - now
    return [f"about {format_span(left)} left"] if left >= timedelta(seconds=1) else []


def _blocker_lines(blocker: _Raw) -> list[ProgressLine]:
    message = f": {blocker['message']}" if blocker.get("message") else ""
    found = [ProgressLine(f"  {blocker['namespace']}/{blocker['pod']} cannot leave: {blocker['class']}{message}")]
    return [*found, ProgressLine(f"    {blocker['hint']}")] if blocker.get("hint") else found
