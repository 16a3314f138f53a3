"""`kubectl reschedule drain` and `cancel`: a drain asked for by hand, followed to its end, and withdrawn.

What is done is the operator's business: here only the request is made and taken back.
"""

import json
import sys
from typing import Any

import click

from rescheduler.api import API_VERSION, names
from rescheduler.cli.cluster_api import ClusterApi, PluginError, connect, parse_json, raise_for_error
from rescheduler.cli.follow import follow
from rescheduler.cli.progress import format_requests

_APPLY_PATCH_HEADERS = {"Content-Type": "application/apply-patch+yaml"}
_MERGE_PATCH_HEADERS = {"Content-Type": "application/merge-patch+json"}
_JSON_HEADERS = {"Content-Type": "application/json"}
_MANUAL_REASON = "Manual"
_INTERRUPTED_EXIT_CODE = 130  # as shells count SIGINT


def start(node: str, message: str, *, wait: bool) -> None:
    """Ask for the drain of a node, and follow it until it is Drained; ends with the exit code."""
    server = ClusterApi(connect())
    server.require_installed("nodedrains")
    if server.get("v1", f"nodes/{node}") is None:
        raise PluginError(f"there is no node {node}")
    drain = _request_drain(server, node, message)
    if not wait:
        return
    try:
        drained = follow(server, drain)
    except KeyboardInterrupt:
        click.echo(
            f"\n{node}: the drain goes on. See it: kubectl get nd {node} -w; "
            f"withdraw it: kubectl reschedule cancel {node}",
            err=True,
        )
        sys.exit(_INTERRUPTED_EXIT_CODE)
    if not drained:
        click.echo(f"{node}: the drain was withdrawn before the node was Drained", err=True)
        sys.exit(1)
    click.echo(f"{node}: to put it back: kubectl reschedule cancel {node}", err=True)


def _request_drain(server: ClusterApi, node: str, message: str) -> dict[str, Any]:
    """Make the request where it does not stand yet; the NodeDrain."""
    found = server.get(API_VERSION, f"nodedrains/{node}")
    if found and "deletionTimestamp" in found["metadata"]:
        raise PluginError(f"{node} is still being put back after its last drain: try again when its NodeDrain is gone")
    if found and any(each["reason"] == _MANUAL_REASON for each in found["spec"]["requests"]):
        click.echo(f"{node}: a drain is asked for already: {format_requests(found)}")
        return found
    # Applied, for the operator writes on the same object: each has a request of its own in the list.
    request = {"reason": _MANUAL_REASON} | ({"message": message} if message else {})
    body = {"apiVersion": API_VERSION, "kind": "NodeDrain", "metadata": {"name": node}}
    body |= {"spec": {"nodeName": node, "requests": [request]}}
    manager = {"fieldManager": "kubectl-reschedule"}
    answer = server.send(
        "patch", API_VERSION, f"nodedrains/{node}", params=manager, headers=_APPLY_PATCH_HEADERS, data=json.dumps(body)
    )
    raise_for_error(answer, f"ask for the drain of {node}")
    beside = f", beside {format_requests(found)}: it is put back when all are withdrawn" if found else ""
    click.echo(f"{node}: a drain is asked for{beside}")
    return parse_json(answer)


def cancel(node: str) -> None:
    """Withdraw every request: the annotation, and the NodeDrain with all that stand in it."""
    server = ClusterApi(connect())
    here = server.get("v1", f"nodes/{node}")
    drain = server.get(API_VERSION, f"nodedrains/{node}")
    if here is None and drain is None:
        raise PluginError(f"there is no node {node}")
    annotated = here is not None and names.MAINTENANCE in (here["metadata"].get("annotations") or {})
    if here is not None and annotated:
        guard = {"uid": here["metadata"]["uid"]}
        body = {"metadata": guard | {"annotations": {names.MAINTENANCE: None}}}
        raise_for_error(
            server.send("patch", "v1", f"nodes/{node}", headers=_MERGE_PATCH_HEADERS, data=json.dumps(body)),
            f"take the annotation {names.MAINTENANCE} off {node}",
        )
        click.echo(f"{node}: the annotation {names.MAINTENANCE} is taken off")
    if drain is None:
        if not annotated:
            cordoned = here is not None and here["spec"].get("unschedulable")
            beside = f"; it is cordoned, by somebody else: kubectl uncordon {node}" if cordoned else ""
            click.echo(f"{node}: nothing asks for a drain{beside}")
        return
    if "deletionTimestamp" in drain["metadata"]:
        click.echo(f"{node}: every request is withdrawn already, the operator is putting the node back as it was")
        return
    options = {"preconditions": {"uid": drain["metadata"]["uid"]}}
    answer = server.send("delete", API_VERSION, f"nodedrains/{node}", data=json.dumps(options), headers=_JSON_HEADERS)
    if answer.status_code != 404:  # the annotation may have been its only request
        raise_for_error(answer, f"withdraw the drain of {node}")
    kept = (drain.get("status") or {}).get("node", {}).get("cordonedByUs") is False
    after = "; it stays cordoned: somebody else had done that" if kept and drain["status"].get("startedAt") else ""
    click.echo(
        f"{node}: every request is withdrawn ({format_requests(drain)}), the operator puts the node back as it was{after}"
    )
