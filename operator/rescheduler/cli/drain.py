"""`kubectl reschedule drain` and `cancel`: request a drain, follow it, and withdraw all requests.

The operator drains and restores the node. The plugin only writes the request and withdraws it.
"""

import json
import sys

import click

from rescheduler.api import API_VERSION, names
from rescheduler.cli import messages
from rescheduler.cli.cluster_api import ClusterApi, PluginError, connect, parse_json, raise_for_error
from rescheduler.cli.follow import follow
from rescheduler.cli.progress import format_requests
from rescheduler.core.model.raw import RawObject

_APPLY_PATCH_HEADERS = {"Content-Type": "application/apply-patch+yaml"}
_MERGE_PATCH_HEADERS = {"Content-Type": "application/merge-patch+json"}
_JSON_HEADERS = {"Content-Type": "application/json"}
_MANUAL_REASON = "Manual"
_INTERRUPTED_EXIT_CODE = 130  # of shells for SIGINT


def start(node: str, message: str, *, wait: bool) -> None:
    """Request the drain of a node, and follow the drain until the node is Drained. Exit with the code of the result."""
    server = ClusterApi(connect())
    server.require_installed("nodedrains")
    if server.get("v1", f"nodes/{node}") is None:
        raise PluginError(messages.node_missing(node))
    drain = _request_drain(server, node, message)
    if not wait:
        return
    try:
        drained = follow(server, drain)
    except KeyboardInterrupt:
        click.echo(f"\n{messages.following_interrupted(node)}", err=True)
        sys.exit(_INTERRUPTED_EXIT_CODE)
    if not drained:
        click.echo(messages.drain_ended_early(node), err=True)
        sys.exit(1)
    click.echo(messages.restore_hint(node), err=True)


def _request_drain(server: ClusterApi, node: str, message: str) -> RawObject:
    """Add the `Manual` request unless it stands already. Return the raw NodeDrain."""
    existing = server.get(API_VERSION, f"nodedrains/{node}")
    if existing and "deletionTimestamp" in existing["metadata"]:
        raise PluginError(messages.still_restoring(node))
    if existing and any(request["reason"] == _MANUAL_REASON for request in existing["spec"]["requests"]):
        click.echo(messages.drain_already_requested(node, format_requests(existing)))
        return existing
    # Server-side apply: a plain patch of the list would remove the operator's own requests.
    request = {"reason": _MANUAL_REASON} | ({"message": message} if message else {})
    body = {"apiVersion": API_VERSION, "kind": "NodeDrain", "metadata": {"name": node}}
    body |= {"spec": {"nodeName": node, "requests": [request]}}
    manager = {"fieldManager": "kubectl-reschedule"}
    answer = server.send(
        "patch", API_VERSION, f"nodedrains/{node}", params=manager, headers=_APPLY_PATCH_HEADERS, data=json.dumps(body)
    )
    raise_for_error(answer, f"request the drain of {node}")
    click.echo(messages.drain_requested(node, format_requests(existing) if existing else ""))
    return parse_json(answer)


def cancel(node: str) -> None:
    """Withdraw every request: remove the maintenance annotation and delete the NodeDrain."""
    server = ClusterApi(connect())
    raw_node = server.get("v1", f"nodes/{node}")
    drain = server.get(API_VERSION, f"nodedrains/{node}")
    if raw_node is None and drain is None:
        raise PluginError(messages.node_missing(node))
    annotated = raw_node is not None and names.MAINTENANCE in (raw_node["metadata"].get("annotations") or {})
    if raw_node is not None and annotated:
        precondition = {"uid": raw_node["metadata"]["uid"]}
        body = {"metadata": precondition | {"annotations": {names.MAINTENANCE: None}}}
        raise_for_error(
            server.send("patch", "v1", f"nodes/{node}", headers=_MERGE_PATCH_HEADERS, data=json.dumps(body)),
            f"remove the annotation {names.MAINTENANCE} from {node}",
        )
        click.echo(messages.annotation_removed(node))
    if drain is None:
        if not annotated:
            cordoned = raw_node is not None and bool(raw_node["spec"].get("unschedulable"))
            click.echo(messages.nothing_to_cancel(node, cordoned=cordoned))
        return
    if "deletionTimestamp" in drain["metadata"]:
        click.echo(messages.already_withdrawn(node))
        return
    options = {"preconditions": {"uid": drain["metadata"]["uid"]}}
    answer = server.send("delete", API_VERSION, f"nodedrains/{node}", data=json.dumps(options), headers=_JSON_HEADERS)
    if answer.status_code != 404:  # the annotation may have been the only request
        raise_for_error(answer, f"delete the NodeDrain of {node}")
    status = drain.get("status") or {}
    cordoned_before = status.get("node", {}).get("cordonedByUs") is False and bool(status.get("startedAt"))
    click.echo(messages.withdrawn(node, format_requests(drain), stays_cordoned=cordoned_before))
