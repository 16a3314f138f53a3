"""`kubectl reschedule drain` and `cancel`: a drain asked for by hand, followed to its end, and withdrawn.

What is done is the operator's business: here only the request is made and taken back.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import click
import pykube
import requests

from rescheduler.api import GROUP, VERSION, names
from rescheduler.cli.readings import ReadError, cause, connect

_PATCH = {"Content-Type": "application/merge-patch+json"}
_MANUAL = "Manual"


def start(node: str, message: str, *, wait: bool) -> None:
    """Ask for the drain of a node, and follow it until it is Drained."""
    api = connect()
    with _told():
        _node(api, node)
        drain = _drains(api).get_or_none(name=node)
        request = {"reason": _MANUAL, "message": message}
        if drain is None:
            body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "NodeDrain", "metadata": {"name": node}}
            _kind(api)(api, body | {"spec": {"nodeName": node, "requests": [request]}}).create()
        elif all(each["reason"] != _MANUAL for each in drain.obj["spec"]["requests"]):
            guard = {"resourceVersion": drain.obj["metadata"]["resourceVersion"]}
            requested = [*drain.obj["spec"]["requests"], request]
            drain.patch({"metadata": guard, "spec": {"requests": requested}})
        click.echo(f"{node}: a drain is asked for")
        if wait:
            _follow(api, node)


def cancel(node: str) -> None:
    """Withdraw every request: the annotation, and the NodeDrain with all that stand in it."""
    api = connect()
    with _told():
        found, drain = _node(api, node), _drains(api).get_or_none(name=node)
        asked = names.MAINTENANCE in found.annotations
        if asked:
            guard = {"uid": found.obj["metadata"]["uid"]}
            body = {"metadata": guard | {"annotations": {names.MAINTENANCE: None}}}
            _insist(api.patch(version="v1", url=f"nodes/{node}", headers=_PATCH, data=json.dumps(body)))
        if drain is not None:
            options = {"preconditions": {"uid": drain.obj["metadata"]["uid"]}}
            path = {"version": f"{GROUP}/{VERSION}", "url": f"nodedrains/{node}"}
            answer = api.delete(**path, data=json.dumps(options), headers={"Content-Type": "application/json"})
            if answer.status_code != 404:  # the annotation may have been its only request
                _insist(answer)
    click.echo(f"{node}: {'every request is withdrawn' if asked or drain else 'nothing asks for a drain'}")


def _follow(api: pykube.HTTPClient, node: str) -> None:
    """A line per change until the node is Drained."""
    said = ""
    while True:
        drain = _drains(api).get_or_none(name=node)
        if drain is None:
            raise ReadError(f"the drain of {node} was withdrawn")
        version = drain.obj["metadata"]["resourceVersion"]
        events = _drains(api).filter(field_selector={"metadata.name": node}).watch(since=version)
        for obj in _states(drain.obj, events):
            if (line := _line(obj)) != said:
                said = line
                click.echo(f"{node}: {line}")
            if (obj.get("status") or {}).get("phase") == "Drained":
                return


def _states(first: dict[str, Any], events: Any) -> Iterator[dict[str, Any]]:
    """The drain as it is, then as it becomes, until the watch ends or it is gone."""
    yield first
    for event in events:
        if event.type in ("DELETED", "ERROR"):
            return
        yield event.object.obj


def _line(obj: dict[str, Any]) -> str:
    status = obj.get("status") or {}
    parts = [
        status.get("phase") or "not looked at yet",
        f"{status['progress']} moved" if status.get("progress") else "",
    ]
    if blockers := status.get("blockers"):
        first = blockers[0]
        total = status.get("blockersTotal", len(blockers))
        parts.append(f"{total} blocked: {first['namespace']}/{first['pod']}: {first['class']}")
    return ", ".join(part for part in parts if part)


def _kind(api: pykube.HTTPClient) -> Any:
    return pykube.object_factory(api, f"{GROUP}/{VERSION}", "NodeDrain")


def _drains(api: pykube.HTTPClient) -> Any:
    return _kind(api).objects(api)


def _node(api: pykube.HTTPClient, name: str) -> Any:
    found = pykube.Node.objects(api).get_or_none(name=name)
    if found is None:
        raise ReadError(f"there is no node {name}")
    return found


def _insist(answer: requests.Response) -> None:
    if not answer.ok:
        raise ReadError(f"the API server refused: {answer.text} (HTTP {answer.status_code})")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (requests.RequestException, pykube.exceptions.PyKubeError, ValueError) as error:
        raise ReadError(f"the API server did not do as asked: {cause(error)}") from error
