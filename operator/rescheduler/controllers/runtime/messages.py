"""Texts about the operator's own tasks, for `/readyz` and for the error that ends the process."""

from collections.abc import Sequence


def task_failed(task: str, subject: str, count: int, error: str) -> str:
    """Return the text for a task that fails; `count`: failures in a row."""
    name = f"{task} of {subject}" if subject else task
    times = "once" if count == 1 else f"{count} times in a row"
    return f"task {name} failed {times} ({error})"


def tasks_failing(failures: Sequence[str], not_shown: int) -> str:
    """Return the text for all tasks that fail now; `not_shown`: number of failures that are left out."""
    shown = "; ".join(failures) + (f"; and {not_shown} more" if not_shown else "")
    return f"{shown}: find task.failed in the operator's log"


def task_failed_for_too_long(failure: str, seconds: float) -> str:
    """Return the text for a vital task whose failure ends the process."""
    return f"{failure}, for {seconds:.0f} s"
