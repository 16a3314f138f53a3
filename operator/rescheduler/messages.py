"""Texts about the process: for `/healthz`, `/readyz`, the Event `OtherInstallation`, and the last line of stderr.

docs/reference/cli.md and docs/reference/metrics.md list them.
"""

from collections.abc import Sequence


def not_listed() -> str:
    """Return the text for a process that has not listed all kinds yet."""
    return "nodes, namespaces, policies, pools and NodeDrains are not listed yet"


def list_stale(seconds: float) -> str:
    """Return the text for a process whose lists fail, so that it may not act."""
    return (
        f"nodes, namespaces, policies, pools and NodeDrains were listed {seconds:.0f} s ago: a right is missing, or the "
        "API server does not answer; find task.retried in the operator's log"
    )


def crds_missing(crd_names: Sequence[str], hint: str) -> str:
    """Return the text for CRDs that are not installed; `hint`: how to install them."""
    return f"the CRDs {', '.join(crd_names)} are not installed: {hint}"


def event_loop_stalled(seconds: float) -> str:
    """Return the text for an event loop that a task blocks."""
    return f"the event loop has been blocked for {seconds:.0f} s"


def other_installation(namespace: str, lease: str) -> str:
    """Return the text for a process that waits because another installation holds the shared Lease."""
    return (
        f"another installation of Rescheduler, in namespace {namespace}, leads this cluster (Lease {lease}): "
        "uninstall one of them; this one does nothing while the other one runs, and for two minutes after that"
    )


def other_installation_event(reason: str) -> str:
    """Return the message of the Event `OtherInstallation`."""
    return f"Does nothing: {reason}"


def shared_lease_failed(lease: str, error: str) -> str:
    """Return the text for a Lease of the installations that cannot be read or written."""
    return f"the Lease {lease} cannot be written: {error}"


def clock_stepped(seconds_behind: float) -> str:
    """Return the text for a clock that differs from the API server's; negative seconds: the clock is ahead."""
    direction = "behind" if seconds_behind > 0 else "ahead of"
    return (
        f"the operator's clock is {abs(seconds_behind):.0f} s {direction} the API server's: "
        "the machine was suspended, or a clock was set; a restart takes the API server's time"
    )


def cannot_listen(error: object) -> str:
    """Return the text for a port that is in use."""
    return f"cannot listen: {error}"


def task_ended(task: str, error: BaseException | None) -> str:
    """Return the text for a main task that ended; None: without an error."""
    return f"{task} ended" + (f": {type(error).__name__}: {error}" if error else "")


def kopf_failed(error: Exception) -> str:
    """Return the text for an error that ended Kopf."""
    return f"Kopf failed: {type(error).__name__}: {error}"


def kopf_ended() -> str:
    """Return the text for a Kopf that ended without an error and without a signal."""
    return "Kopf ended without a reason"


def shutdown_failed(error: Exception) -> str:
    """Return the text for an error during the shutdown."""
    return f"the shutdown failed: {type(error).__name__}: {error}"


def cleanup_unfinished() -> str:
    """Return the text for a cleanup that has left something in the cluster."""
    return "the cleanup did not finish: see the log above, and run it again"


def low_file_limit(recommended: int) -> str:
    """Return the hint for a low limit of open files."""
    return f"allow {recommended} open files: ulimit -n, LimitNOFILE"
