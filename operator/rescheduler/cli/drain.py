"""`kubectl reschedule drain` and `cancel`: a drain asked for by hand, followed to its end, and withdrawn.

What is done is the operator's business: here only the request is made and taken back.
"""

import json
import sys
from typing import Any

import click

from rescheduler.api import API_VERSION, names
from rescheduler.cli.api import Reader, ReadError, connect, insist, parsed
from rescheduler.cli.follow import follow
from rescheduler.cli.progress import requested

_APPLY = {"Content-Type": "application/apply-patch+yaml"}
_MERGE = {"Content-Type": "application/merge-patch+json"}
_JSON = {"Content-Type": "application/json"}
_MANUAL = "Manual"
_INTERRUPTED = 130  # as shells count SIGINT


def start(node: str, message: str, *, wait: bool) -> None:
    """Ask for the drain of a node, and follow it until it is Drained; ends with the exit code."""
    server = Reader(connect())
    server.insist_installed("nodedrains")
    if server.one("v1", f"nodes/{node}") is None:
        raise ReadError(f"there is no node {node}")
    drain = _ask(server, node, message)
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
        sys.exit(_INTERRUPTED)
    if not drained:
        click.echo(f"{node}: the drain was withdrawn before the node was Drained", err=True)
        sys.exit(1)
    click.echo(f"{node}: to put it back: kubectl reschedule cancel {node}", err=True)


def _ask(server: Reader, node: str, message: str) -> dict[str, Any]:
    """Make the request where it does not stand yet; the NodeDrain."""
    found = server.one(API_VERSION, f"nodedrains/{node}")
    if found and "deletionTimestamp" in found["metadata"]:
        raise ReadError(f"{node} is still being put back after its last drain: try again when its NodeDrain is gone")
    if found and any(each["reason"] == _MANUAL for each in found["spec"]["requests"]):
        click.echo(f"{node}: a drain is asked for already: {requested(found)}")
        return found
    # Applied, for the operator writes on the same object: each has a request of its own in the list.
    request = {"reason": _MANUAL} | ({"message": message} if message else {})
    body = {"apiVersion": API_VERSION, "kind": "NodeDrain", "metadata": {"name": node}}
    body |= {"spec": {"nodeName": node, "requests": [request]}}
    manager = {"fieldManager": "kubectl-reschedule"}
    answer = server.send(
        "patch", API_VERSION, f"nodedrains/{node}", params=manager, headers=_APPLY, data=json.dumps(body)
    )
    insist(answer, f"ask for the drain of {node}")
    beside = f", beside {requested(found)}: it is put back when all are withdrawn" if found else ""
    click.echo(f"{node}: a drain is asked for{beside}")
    return parsed(answer)


def cancel(node: str) -> None:
    """Withdraw every request: the annotation, and the NodeDrain with all that stand in it."""
    server = Reader(connect())
    here = server.one("v1", f"nodes/{node}")
    drain = server.one(API_VERSION, f"nodedrains/{node}")
    if here is None and drain is None:
        raise ReadError(f"there is no node {node}")
    annotated = here is not None and names.MAINTENANCE in (here["metadata"].get("annotations") or {})
    if here is not None and annotated:
        guard = {"uid": here["metadata"]["uid"]}
        body = {"metadata": guard | {"annotations": {names.MAINTENANCE: None}}}
        insist(
            server.send("patch", "v1", f"nodes/{node}", headers=_MERGE, data=json.dumps(body)),
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
    answer = server.send("delete", API_VERSION, f"nodedrains/{node}", data=json.dumps(options), headers=_JSON)
    if answer.status_code != 404:  # the annotation may have been its only request
        insist(answer, f"withdraw the drain of {node}")
    kept = (drain.get("status") or {}).get("node", {}).get("cordonedByUs") is False
    after = "; it stays cordoned: somebody else had done that" if kept and drain["status"].get("startedAt") else ""
    click.echo(
        f"{node}: every request is withdrawn ({requested(drain)}), the operator puts the node back as it was{after}"
    )
