"""Sentences of `kubectl reschedule report`: pure functions and constants, from facts to text."""

REDACTED_PARTS = (
    "Left out or redacted: environment, arguments, commands and probes of containers; values of annotations that are "
    "not of rescheduler.dev; inline data of volumes; messages of ended containers; Secrets and ConfigMaps."
)
SHOWN_PARTS = (
    "Not redacted: names, labels, images, requests, messages of conditions and Events, and the operator's own logs. "
    "Read the files before you share them."
)


def written(path: str, files: int, size: str) -> str:
    """Return the last line of the output."""
    return f"{path}: {files} files, {size}"


def file_exists(path: str) -> str:
    """Return the error for a file that is there already."""
    return f"{path} exists already: name another file with --file"


def not_writable(path: str, cause: str) -> str:
    """Return the error for a file that cannot be written."""
    return f"{path} cannot be written: {cause}"


def no_operator_pods(namespace: str) -> str:
    """Return that the report has no logs and no metrics."""
    return f"no logs and no metrics: no pod of the operator is in namespace {namespace}; --namespace names another one"


def cut(name: str, count: int) -> str:
    """Return that a list is cut."""
    return f"{name} is cut: it has the first {count} objects only"
