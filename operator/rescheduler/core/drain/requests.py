"""Compare the wanted requests of a node with its NodeDrain.

The user owns `Manual` requests, and the operator never changes them. The operator owns `Maintenance` and `Failure`.
"""

from dataclasses import dataclass

from rescheduler.api import API_VERSION, names
from rescheduler.api.drains import NodeDrain, RequestReason
from rescheduler.api.scalars import truncate
from rescheduler.core.drain.triggers import WantedRequest, WantedRequests
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.raw import RawObject

OPERATOR_REASONS = (RequestReason.MAINTENANCE, RequestReason.FAILURE)


@dataclass(frozen=True, slots=True)
class CreateDrain:
    """Create the NodeDrain."""

    body: RawObject


@dataclass(frozen=True, slots=True)
class UpdateRequests:
    """Change the requests of the NodeDrain; the patch carries the resourceVersion."""

    patch: RawObject


@dataclass(frozen=True, slots=True)
class DeleteDrain:
    """Delete the NodeDrain without requests. The finalizer keeps it until the node is restored."""


def required_change(
    node: Node, drain: NodeDrain | None, wanted: WantedRequests
) -> CreateDrain | UpdateRequests | DeleteDrain | None:
    """Return the change that makes the NodeDrain state the wanted requests; None if it states them."""
    if drain is None:
        return CreateDrain(_body(node, wanted.requests)) if wanted.requests else None
    if drain.deletion_timestamp is not None:
        return None
    current = {request.reason: request.message for request in drain.spec.requests}
    messages = {reason: message for reason, message in current.items() if reason not in OPERATOR_REASONS}
    for request in wanted.requests:
        messages[request.reason] = (
            current.get(request.reason, "") if request.is_unchanged else truncate(request.message)
        )
    if not messages:
        return DeleteDrain()
    if messages == current and names.FINALIZER in drain.finalizers:
        return None
    return UpdateRequests(
        {
            "metadata": {
                "resourceVersion": drain.resource_version,
                "finalizers": sorted({*drain.finalizers, names.FINALIZER}),
            },
            "spec": {"requests": [{"reason": reason, "message": message} for reason, message in messages.items()]},
        }
    )


def _body(node: Node, requests: tuple[WantedRequest, ...]) -> RawObject:
    return {
        "apiVersion": API_VERSION,
        "kind": "NodeDrain",
        "metadata": {"name": node.name, "finalizers": [names.FINALIZER]},
        "spec": {
            "nodeName": node.name,
            "requests": [{"reason": request.reason, "message": truncate(request.message)} for request in requests],
        },
    }
