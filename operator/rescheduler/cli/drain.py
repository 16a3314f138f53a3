"""`kubectl reschedule drain`: request drains, and follow them. The operator drains the nodes."""

import json
import sys
from collections.abc import Sequence
from datetime import timedelta

import click

from rescheduler.api import API_VERSION
from rescheduler.cli import messages
from rescheduler.cli.cluster_api import ClusterApi, PluginError, connect, parse_json, raise_for_error
from rescheduler.cli.follow import Outcome, follow
from rescheduler.cli.output import format_span
from rescheduler.cli.progress import format_requests
from rescheduler.cli.screens import open_screen
from rescheduler.core.model.raw import RawObject

_APPLY_PATCH_HEADERS = {"Content-Type": "application/apply-patch+yaml"}
_MANUAL_REASON = "Manual"
_INTERRUPTED_EXIT_CODE = 130  # of shells for SIGINT


def start(nodes: Sequence[str], selector: str, message: str, *, wait: bool, timeout: float | None) -> None:
    """Request drains of nodes, and follow them until each node is Drained. Exit with the code of the result.

    All nodes are checked before the first request. The operator chooses the order.
    """
    server = ClusterApi(connect())
    server.require_installed("nodedrains")
    names = list(dict.fromkeys(nodes)) if nodes else _selected_nodes(server, selector)
    existing = {name: server.get(API_VERSION, f"nodedrains/{name}") for name in names}
    for name, drain in existing.items():
        if nodes and server.get("v1", f"nodes/{name}") is None:
            raise PluginError(messages.node_missing(name))
        if drain and "deletionTimestamp" in drain["metadata"]:
            raise PluginError(messages.still_restoring(name))
    drains = [_request_drain(server, name, message, drain) for name, drain in existing.items()]
    if wait:
        _follow(server, names, drains, timeout)


def _selected_nodes(server: ClusterApi, selector: str) -> list[str]:
    names = [node["metadata"]["name"] for node in server.list_items("v1", "nodes", labelSelector=selector)]
    if not names:
        raise PluginError(messages.no_node_selected(selector))
    return names


def _follow(server: ClusterApi, names: list[str], drains: list[RawObject], timeout: float | None) -> None:
    try:
        with open_screen(names) as screen:
            outcomes = follow(server, drains, screen, timeout)
    except KeyboardInterrupt:
        click.echo(f"\n{messages.following_interrupted(names)}", err=True)
        sys.exit(_INTERRUPTED_EXIT_CODE)
    for name, outcome in outcomes.items():
        if outcome is Outcome.WITHDRAWN:
            click.echo(messages.drain_ended_early(name), err=True)
        elif outcome is Outcome.TIMED_OUT:
            click.echo(messages.following_timed_out(name, format_span(timedelta(seconds=timeout or 0))), err=True)
    if drained := [name for name in names if outcomes[name] is Outcome.DRAINED]:
        click.echo(messages.restore_hint(drained), err=True)
    if len(drained) < len(names):
        sys.exit(1)


def _request_drain(server: ClusterApi, node: str, message: str, existing: RawObject | None) -> RawObject:
    """Add the `Manual` request unless it stands already. Return the raw NodeDrain."""
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
