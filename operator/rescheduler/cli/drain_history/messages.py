"""Sentences of `kubectl reschedule history`: pure functions and constants, from facts to text."""

from rescheduler.api.names import HISTORY

NO_RECORDS = "no drain is recorded for this selection"
RUNNING = "Running"


def not_a_time(text: str) -> str:
    """Return the error for a time that cannot be read."""
    return f"{text!r:.60} is no time: write a date (2026-03-01), a time (2026-03-01T12:00:00Z) or a span (72h)"


def no_history(namespace: str) -> str:
    """Return the error for an operator without an audit record."""
    return (
        f"the ConfigMap {HISTORY} does not exist in namespace {namespace}: install the chart of this version, "
        "or name the namespace of the operator with --namespace"
    )


def requester(reason: str, message: str, manager: str) -> str:
    """Return who requested a drain, and why; message and manager may be empty."""
    text = f"{reason} ({message})" if message else reason
    return f"{text} by {manager}" if manager else text


def interrupted(node: str, started: str, count: int) -> str:
    """Return the title of the pods of a drain that left without a replacement first."""
    pods = "1 pod" if count == 1 else f"{count} pods"
    return f"{node}, {started}: {pods} left without a replacement first"


def nothing_interrupted(node: str, started: str) -> str:
    """Return that each pod was replaced before it left."""
    return f"{node}, {started}: no pod left without a replacement first"


def not_named(count: int) -> str:
    """Return that the record does not name all moves."""
    return f"{count} more pods left, which the record does not name: look for audit.move in the log of the operator"


def blocked_for(span: str) -> str:
    """Return for how long a pod was a blocker."""
    return f"blocked for {span}"


def forced_by(cause: str) -> str:
    """Return that a pod left without regard to its budgets."""
    return f"forced: {cause}"


def proven_by(proof: str) -> str:
    """Return the proof that the boot of the node was dead."""
    return f"proof that the boot was dead: {proof}"
