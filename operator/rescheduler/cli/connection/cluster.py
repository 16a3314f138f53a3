"""Find the cluster that kubectl talks to, and connect to it."""

import os
from pathlib import Path

from rescheduler.cli.connection import messages
from rescheduler.cli.connection.credentials import credential_source, impersonation_headers
from rescheduler.cli.connection.kubeconfig import (
    ChosenEntries,
    ConnectionFlags,
    Section,
    choose_entries,
    kubeconfig_paths,
    read_kubeconfig,
)
from rescheduler.cli.connection.transport import Connection
from rescheduler.cli.errors import PluginError

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def open_connection(flags: ConnectionFlags) -> Connection:
    """Connect to the cluster of the kubeconfig and the flags, or else to the cluster of the pod. Raises PluginError.

    No request is sent and no exec plugin runs before the first request.
    """
    kubeconfig = read_kubeconfig(kubeconfig_paths(flags.kubeconfig))
    chosen = choose_entries(kubeconfig, flags) or _service_account()
    if chosen is None:
        named = os.environ.get("KUBECONFIG") or "~/.kube/config"
        files = os.pathsep.join(map(str, kubeconfig.paths))
        raise PluginError(messages.no_context(files) if files else messages.no_kubeconfig(named))
    return Connection(
        chosen.cluster,
        credential_source(chosen.user, chosen.cluster),
        namespace=chosen.namespace,
        headers=impersonation_headers(chosen.user, flags),
        timeout=flags.request_timeout,
    )


def _service_account() -> ChosenEntries | None:
    """Return cluster and user of the pod that the plugin runs in; None outside of a pod."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (_SERVICE_ACCOUNT / "token").is_file():
        return None
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    namespace = _SERVICE_ACCOUNT / "namespace"
    config = _SERVICE_ACCOUNT / "config"  # relative paths start in its folder; the file need not exist
    return ChosenEntries(
        Section(config, "cluster", {"server": server, "certificate-authority": "ca.crt"}),
        Section(config, "user", {"tokenFile": "token"}),
        namespace.read_text().strip() if namespace.is_file() else "default",
    )
