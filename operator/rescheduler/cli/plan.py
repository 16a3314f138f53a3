"""`kubectl reschedule plan`: what would become of a node's pods, read by somebody at three in the morning."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from rescheduler.cli.api import Reader, connect
from rescheduler.cli.cluster_reader import Settings, settings, world
from rescheduler.cli.output import span, table
from rescheduler.core.drain.preview import Answer, Outlook, outlook
from rescheduler.core.model.nodes import Node
from rescheduler.core.placement.planner import Fit

_HEAD = ("NODE", "CAN BE DRAINED", "FIT", "DO NOT FIT", "UNKNOWN", "BLOCKED", "STAY", "TAKES AT LEAST")
_WORDS = {
    Answer.YES: "can be drained",
    Answer.UNSURE: "may be drained: of some pods only the scheduler can say",
    Answer.NO: "cannot be drained as things are",
}

_SILENCE = 5.0  # seconds

Rows = Iterable[tuple[str, str]]


def show(name: str | None, output: str) -> None:
    """Plan for one node, or for each node by itself; ends with the exit code."""
    reader = Reader(connect())
    live = settings(reader)
    seen = world(reader, live, [name] if name else None)
    nodes = seen.ground.nodes
    wanted = [nodes[name]] if name else sorted(nodes.values(), key=lambda node: node.name)
    found = []
    for node in _told(wanted):
        policy, drain = live.of(node)
        found.append((policy, outlook(node, drain, seen)))
    if output == "json":
        shown = [_json(policy, each) for policy, each in found]
        click.echo(json.dumps(shown[0] if name else shown, indent=2))
    else:
        click.echo("\n".join(_one(*found[0], live) if name else _all(found)))
    refused = (Answer.NO,) if name is None else (Answer.NO, Answer.UNSURE)
    sys.exit(1 if any(each.answer in refused for _, each in found) else 0)


def _told(nodes: Sequence[Node]) -> Iterator[Node]:
    """The nodes in turn; where that takes long, how far it is."""
    told = time.monotonic()
    for number, node in enumerate(nodes):
        if time.monotonic() - told >= _SILENCE:
            told = time.monotonic()
            click.echo(f"{number} of {len(nodes)} nodes are planned", err=True)
        yield node


def _all(found: Sequence[tuple[str, Outlook]]) -> list[str]:
    """A line for each node, the details of those that cannot be drained for sure, and whom other tools would harm."""
    rows = [_HEAD, *(_row(each) for _, each in found)]
    lines = table(rows)
    for _, each in found:
        if each.answer is not Answer.YES:
            lines += ["", f"{each.node}: {_WORDS[each.answer]}", *_details(each)]
    lines += _remarks([each for _, each in found])
    cannot = sum(each.answer is Answer.NO for _, each in found)
    return [*lines, "", f"{cannot} of {len(found)} nodes cannot be drained, each taken by itself."]


def _row(each: Outlook) -> tuple[str, ...]:
    counts = (each.fits, _count(each, Fit.DOES_NOT_FIT), _count(each, Fit.UNKNOWN), len(each.obstacles), each.stay)
    return (each.node, each.answer.lower(), *map(str, counts), span(each.takes))


def _one(policy: str, each: Outlook, live: Settings) -> list[str]:
    if policy:
        by = f"by ReschedulePolicy {policy}"
    elif live.winners:
        by = "by the defaults: no ReschedulePolicy selects it, so that it would not be drained on request"
    else:
        by = "by the defaults: there is no ReschedulePolicy here"
    return [f"{each.node}: {_WORDS[each.answer]} ({by})", *_details(each), *_remarks([each])]


def _details(each: Outlook) -> list[str]:
    pods = f"{each.fits} {'pod fits' if each.fits == 1 else 'pods fit'} elsewhere"
    summary = (
        f"  {pods}, {each.stay} {'stays' if each.stay == 1 else 'stay'}; a drain takes at least {span(each.takes)}"
    )
    misfits, unknown = _misfits(each, Fit.DOES_NOT_FIT), _misfits(each, Fit.UNKNOWN)
    blocked = [row for o in each.obstacles for row in ((o.pod, f"{o.cause}: {o.message}"), ("", o.hint)) if row[1]]
    return [
        summary,
        *_section(f"Do not fit anywhere ({len(misfits)}):", misfits),
        *_section(f"Only the scheduler can say ({len(unknown)}):", unknown),
        *_section(f"Would hold the drain up ({len(each.obstacles)}):", blocked),
    ]


def _remarks(found: Sequence[Outlook]) -> list[str]:
    """What holds nothing up, and is good to know; of several nodes with the node of each pod."""
    several = len(found) > 1
    first = [(pod, each.node if several else "") for each in found for pod in each.first]
    single = [(pod, each.node if several else "") for each in found for pod in each.singles]
    return [
        *_section(
            "Their budget lets none go; a new pod is Ready first, then they may (kubectl drain waits on):", first
        ),
        *_section("The only pod of their Deployment; evicted plainly, as by kubectl drain, they are away:", single),
    ]


def _section(title: str, rows: Rows) -> list[str]:
    cells = [("", *row) for row in rows]
    return ["", f"  {title}", *(f"  {line}" for line in table(cells))] if cells else []


def _misfits(each: Outlook, fit: Fit) -> list[tuple[str, str]]:
    return [(pod, forecast.reason) for pod, forecast in each.misfits if forecast.fit is fit]


def _count(each: Outlook, fit: Fit) -> int:
    return len(_misfits(each, fit))


def _json(policy: str, each: Outlook) -> dict[str, Any]:
    return {
        "node": each.node,
        "policy": policy or None,
        "canBeDrained": each.answer,
        "fit": each.fits,
        "stay": each.stay,
        "doNotFit": [{"pod": pod, "reason": reason} for pod, reason in _misfits(each, Fit.DOES_NOT_FIT)],
        "unknown": [{"pod": pod, "reason": reason} for pod, reason in _misfits(each, Fit.UNKNOWN)],
        "blocked": [{"pod": o.pod, "class": o.cause, "message": o.message, "hint": o.hint} for o in each.obstacles],
        "replacedFirst": list(each.first),
        "singleReplicas": list(each.singles),
        "takesAtLeastSeconds": round(each.takes.total_seconds()),
    }
