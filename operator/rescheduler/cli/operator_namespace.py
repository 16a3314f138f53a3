"""Find the namespace of the operator: the installation that acts holds a Lease that all installations share."""

import contextlib
import re

from rescheduler.cli.cluster_api import ClusterApi, PluginError

DEFAULT_NAMESPACE = "rescheduler-system"
INSTALLATION_LEASE = "namespaces/kube-system/leases/rescheduler-installation"
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def read_operator_namespace(api: ClusterApi) -> str:
    """Return the namespace of the installation that acts; the default if none does, or if it cannot be read."""
    with contextlib.suppress(PluginError):
        lease = api.get("coordination.k8s.io/v1", INSTALLATION_LEASE)
        holder = str(((lease or {}).get("spec") or {}).get("holderIdentity", ""))
        # The name becomes a part of paths.
        if _NAMESPACE.fullmatch(holder):
            return holder
    return DEFAULT_NAMESPACE
