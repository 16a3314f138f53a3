"""`kubectl reschedule cancel`: withdraw all requests to drain nodes. The operator restores the nodes."""

import json
import sys
from collections.abc import Sequence

import click

from rescheduler.api import API_VERSION, names
from rescheduler.cli import messages
from rescheduler.cli.cluster_api import ClusterApi, PluginError, connect, raise_for_error
from rescheduler.cli.progress import format_requests

_MERGE_PATCH_HEADERS = {"Content-Type": "application/merge-patch+json"}
_JSON_HEADERS = {"Content-Type": "application/json"}


def cancel(nodes: Sequence[str]) -> None:
    """Withdraw every request for these nodes. A node whose requests stay is reported, and the others are cancelled."""
    server = ClusterApi(connect())
    failed = 0
    for node in dict.fromkeys(nodes):
        try:
            _cancel(server, node)
        except PluginError as error:
            error.show()
            failed = error.exit_code
    sys.exit(failed)


def _cancel(server: ClusterApi, node: str) -> None:
    """Remove the maintenance annotation, and delete the NodeDrain."""
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
