"""Leave out the parts of libraries that the operator never uses: they would take 8 MB of memory."""

import importlib.util
import sys
from typing import Any


def leave_out_unused_parts() -> None:
    """Import the clients of Kubernetes without their synchronous half; call it before any import of Kopf or a client.

    The package `kubernetes` imports all of its parts, among them requests, OAuth and a websocket client. The operator
    uses only `kubernetes.aio`. Kopf imports the other clients to recognise their objects, if they are there.
    """
    modules: dict[str, Any] = sys.modules
    spec = importlib.util.find_spec("kubernetes")
    if spec is None or "kubernetes" in modules:
        return
    modules["kubernetes"] = importlib.util.module_from_spec(spec)  # not executed
    for unused in ("kubernetes.client", "pykube"):
        modules.setdefault(unused, None)  # an import of it fails
