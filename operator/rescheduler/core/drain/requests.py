"""From what a node asks for to what its NodeDrain should say.

`Manual` requests are the user's and are never touched; `Maintenance` and `Failure` are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rescheduler.api import API_VERSION, names
from rescheduler.api.drains import NodeDrain, Reason
from rescheduler.api.scalars import cut
from rescheduler.core.drain.triggers import Want, Wants
from rescheduler.core.model.nodes import Node

OURS = (Reason.MAINTENANCE, Reason.FAILURE)


@dataclass(frozen=True, slots=True)
class Create:
    """Make the NodeDrain."""

    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Amend:
    """Change its requests; the patch carries the resourceVersion."""

    patch: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Delete it: nobody asks any more. The finalizer holds it until the node is restored."""


def change(node: Node, drain: NodeDrain | None, wants: Wants) -> Create | Amend | Withdraw | None:
    """What to do so that the NodeDrain says what the node asks for; None where it does."""
    if drain is None:
        return Create(_body(node, wants.requests)) if wants.requests else None
    if drain.deletion_timestamp is not None:
        return None
    have = {request.reason: request.message for request in drain.spec.requests}
    want = {reason: message for reason, message in have.items() if reason not in OURS}
    for request in wants.requests:
        want[request.reason] = have.get(request.reason, "") if request.goes_on else cut(request.message)
    if not want:
        return Withdraw()
    if want == have and names.FINALIZER in drain.finalizers:
        return None
    return Amend(
        {
            "metadata": {
                "resourceVersion": drain.resource_version,
                "finalizers": sorted({*drain.finalizers, names.FINALIZER}),
            },
            "spec": {"requests": [{"reason": reason, "message": message} for reason, message in want.items()]},
        }
    )


def _body(node: Node, requests: tuple[Want, ...]) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "NodeDrain",
        "metadata": {"name": node.name, "finalizers": [names.FINALIZER]},
        "spec": {
            "nodeName": node.name,
            "requests": [{"reason": want.reason, "message": cut(want.message)} for want in requests],
        },
    }
