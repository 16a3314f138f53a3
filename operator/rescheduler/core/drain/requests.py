"""From what a node asks for to what its NodeDrain should say.

`Manual` requests are the user's and are never touched; `Maintenance` and `Failure` are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rescheduler.api import API_VERSION, names
from rescheduler.api.drains import NodeDrain, RequestReason
from rescheduler.api.scalars import truncate
from rescheduler.core.drain.triggers import WantedRequest, WantedRequests
from rescheduler.core.model.nodes import Node

OPERATOR_REASONS = (RequestReason.MAINTENANCE, RequestReason.FAILURE)


@dataclass(frozen=True, slots=True)
class CreateDrain:
    """Make the NodeDrain."""

    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class UpdateRequests:
    """Change its requests; the patch carries the resourceVersion."""

    patch: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DeleteDrain:
    """Delete it: nobody asks any more. The finalizer holds it until the node is restored."""


def required_change(
    node: Node, drain: NodeDrain | None, wanted: WantedRequests
) -> CreateDrain | UpdateRequests | DeleteDrain | None:
    """What to do so that the NodeDrain says what the node asks for; None where it does."""
    if drain is None:
        return CreateDrain(_body(node, wanted.requests)) if wanted.requests else None
    if drain.deletion_timestamp is not None:
        return None
    have = {request.reason: request.message for request in drain.spec.requests}
    want = {reason: message for reason, message in have.items() if reason not in OPERATOR_REASONS}
    for request in wanted.requests:
        want[request.reason] = have.get(request.reason, "") if request.is_unchanged else truncate(request.message)
    if not want:
        return DeleteDrain()
    if want == have and names.FINALIZER in drain.finalizers:
        return None
    return UpdateRequests(
        {
            "metadata": {
                "resourceVersion": drain.resource_version,
                "finalizers": sorted({*drain.finalizers, names.FINALIZER}),
            },
            "spec": {"requests": [{"reason": reason, "message": message} for reason, message in want.items()]},
        }
    )


def _body(node: Node, requests: tuple[WantedRequest, ...]) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "NodeDrain",
        "metadata": {"name": node.name, "finalizers": [names.FINALIZER]},
        "spec": {
            "nodeName": node.name,
            "requests": [{"reason": want.reason, "message": truncate(want.message)} for want in requests],
        },
    }
