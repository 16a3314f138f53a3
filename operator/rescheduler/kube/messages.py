"""Texts about the API server that users read: in `/readyz`, in statuses, and on the command line.

docs/reference/cli.md and docs/reference/metrics.md list them.
"""

from collections.abc import Sequence


def no_answer(server: str, error: object) -> str:
    """Return the text for an API server that cannot be reached."""
    return f"the API server at {server} does not answer: {error}"


def credentials_refused(server: str, message: str) -> str:
    """Return the text for a 401."""
    return f"the API server at {server} does not accept the credentials: {message}"


def start_refused(server: str, error: object) -> str:
    """Return the text for an API server that refuses the first request."""
    return f"the API server at {server} refused: {error}"


def missing_permissions(permissions: Sequence[str]) -> str:
    """Return the text for missing RBAC permissions, such as `list pods`."""
    return (
        f"RBAC does not allow this identity to {'; '.join(permissions)}: "
        "install the chart's ClusterRole and its binding (manifests/install.yaml), or grant these"
    )


def unusable_kubeconfig(kubeconfig: str | None, error: object) -> str:
    """Return the text for credentials that the client library refuses; None: KUBECONFIG is not set."""
    source = f"KUBECONFIG {kubeconfig}" if kubeconfig else "~/.kube/config or the ServiceAccount's token"
    return f"{source} cannot be used: {error}"


def kubeconfig_missing(path: str) -> str:
    """Return the text for a KUBECONFIG with the path of no file."""
    return f"KUBECONFIG names {path}, which is not a file: set it to a kubeconfig that exists"


def no_credentials() -> str:
    """Return the text for a process without kubeconfig and ServiceAccount."""
    return (
        "no KUBECONFIG, no ~/.kube/config and no ServiceAccount token: set KUBECONFIG, "
        "or run in a cluster under the chart's ServiceAccount"
    )


def exec_plugin_timed_out(seconds: float) -> str:
    """Return the text for an exec plugin that hangs."""
    return f"the exec plugin of KUBECONFIG did not answer within {seconds:.0f} s: run it by hand"


def exec_plugin_without_credentials(command: str) -> str:
    """Return the text for an exec plugin that returns no credentials."""
    return f"the exec plugin {command} returned neither a token nor a certificate: run it by hand"


def server_changed(server: str) -> str:
    """Return the text for a kubeconfig that was changed to another API server."""
    return f"the kubeconfig now names another API server, {server}: restart the operator"


def list_not_synced(path: str, error: str) -> str:
    """Return the text for a view whose first list is missing; `error`: the cause, empty if unknown."""
    return f"the list {path} is not available yet" + (f" ({error})" if error else "")


def waiting_for_watch_connection(limit: int) -> str:
    """Return the text for a watch that waits for a connection."""
    return f"its watch waits for one of the {limit} connections for watches"


def list_expired() -> str:
    """Return the text for a list that took longer than its continue token is valid."""
    return "the list took too long"


def watch_stalled(request: str) -> str:
    """Return the text for a watch that delivers nothing, not even bookmarks."""
    return f"{request}: the API server sent nothing for too long"


def write_not_sent(method: str, path: str) -> str:
    """Return the text for a write that the guard stopped."""
    return f"{method} {path} was not sent: this process is not certain to be the leader"


def not_an_object(json_type: str) -> str:
    """Return the text for a response that is not a JSON object."""
    return f"the response is not a JSON object but {json_type}"


def invalid_name() -> str:
    """Return the text for a value that cannot be the name of an object."""
    return "this is not a valid object name"


def event_queue_full(limit: int) -> str:
    """Return the text for an Event that is lost because too many wait."""
    return f"more than {limit} Events are waiting"


def events_not_written(count: int) -> str:
    """Return the text for Events that are lost because the process ends."""
    return f"the process ends: {count} Events were not written"
