"""`kubectl reschedule plan`: what would become of a node's pods, read by somebody at three in the morning."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from rescheduler.cli.cluster_api import ClusterApi, connect
from rescheduler.cli.cluster_reader import LivePolicies, read_policies, read_preview_input
from rescheduler.cli.output import format_span, format_table
from rescheduler.core.drain.preview import Drainable, DrainPreview, preview_node
from rescheduler.core.model.nodes import Node
from rescheduler.core.placement.planner import Fit

_COLUMNS = ("NODE", "CAN BE DRAINED", "FIT", "DO NOT FIT", "UNKNOWN", "BLOCKED", "STAY", "TAKES AT LEAST")
_ANSWER_TEXTS = {
    Drainable.YES: "can be drained",
    Drainable.UNSURE: "may be drained: of some pods only the scheduler can say",
    Drainable.NO: "cannot be drained as things are",
}

_PROGRESS_INTERVAL = 5.0  # seconds

Rows = Iterable[tuple[str, str]]


def show(name: str | None, output: str) -> None:
    """Plan for one node, or for each node by itself; ends with the exit code."""
    reader = ClusterApi(connect())
    live = read_policies(reader)
    seen = read_preview_input(reader, live, [name] if name else None)
    nodes = seen.placement_input.nodes
    wanted = [nodes[name]] if name else sorted(nodes.values(), key=lambda node: node.name)
    found = []
    for node in _with_progress(wanted):
        policy, drain = live.drain_for(node)
        found.append((policy, preview_node(node, drain, seen)))
    if output == "json":
        shown = [_json(policy, each) for policy, each in found]
        click.echo(json.dumps(shown[0] if name else shown, indent=2))
    else:
        click.echo("\n".join(_format_one(*found[0], live) if name else _format_all(found)))
    refused = (Drainable.NO,) if name is None else (Drainable.NO, Drainable.UNSURE)
    sys.exit(1 if any(each.drainable in refused for _, each in found) else 0)


def _with_progress(nodes: Sequence[Node]) -> Iterator[Node]:
    """The nodes in turn; where that takes long, how far it is."""
    told = time.monotonic()
    for number, node in enumerate(nodes):
        if time.monotonic() - told >= _PROGRESS_INTERVAL:
            told = time.monotonic()
            click.echo(f"{number} of {len(nodes)} nodes are planned", err=True)
        yield node


def _format_all(found: Sequence[tuple[str, DrainPreview]]) -> list[str]:
    """A line for each node, the details of those that cannot be drained for sure, and whom other tools would harm."""
    rows = [_COLUMNS, *(_format_row(each) for _, each in found)]
    lines = format_table(rows)
    for _, each in found:
        if each.drainable is not Drainable.YES:
            lines += ["", f"{each.node}: {_ANSWER_TEXTS[each.drainable]}", *_details(each)]
    lines += _notes([each for _, each in found])
    cannot = sum(each.drainable is Drainable.NO for _, each in found)
    return [*lines, "", f"{cannot} of {len(found)} nodes cannot be drained, each taken by itself."]


def _format_row(each: DrainPreview) -> tuple[str, ...]:
    counts = (each.placed, _count(each, Fit.DOES_NOT_FIT), _count(each, Fit.UNKNOWN), len(each.blockers), each.staying)
    return (each.node, each.drainable.lower(), *map(str, counts), format_span(each.min_duration))


def _format_one(policy: str, each: DrainPreview, policies: LivePolicies) -> list[str]:
    if policy:
        by = f"by ReschedulePolicy {policy}"
    elif policies.policy_selector:
        by = "by the defaults: no ReschedulePolicy selects it, so that it would not be drained on request"
    else:
        by = "by the defaults: there is no ReschedulePolicy here"
    return [f"{each.node}: {_ANSWER_TEXTS[each.drainable]} ({by})", *_details(each), *_notes([each])]


def _details(each: DrainPreview) -> list[str]:
    pods = f"{each.placed} {'pod fits' if each.placed == 1 else 'pods fit'} elsewhere"
    summary = f"  {pods}, {each.staying} {'stays' if each.staying == 1 else 'stay'}; a drain takes at least {format_span(each.min_duration)}"
    misfits, unknown = _misfits(each, Fit.DOES_NOT_FIT), _misfits(each, Fit.UNKNOWN)
    blocked = [
        row for o in each.blockers for row in ((o.pod, f"{o.blocker_class}: {o.message}"), ("", o.hint)) if row[1]
    ]
    return [
        summary,
        *_section(f"Do not fit anywhere ({len(misfits)}):", misfits),
        *_section(f"Only the scheduler can say ({len(unknown)}):", unknown),
        *_section(f"Would hold the drain up ({len(each.blockers)}):", blocked),
    ]


def _notes(found: Sequence[DrainPreview]) -> list[str]:
    """What holds nothing up, and is good to know; of several nodes with the node of each pod."""
    several = len(found) > 1
    first = [(pod, each.node if several else "") for each in found for pod in each.replaced_first]
    single = [(pod, each.node if several else "") for each in found for pod in each.single_replica_pods]
    return [
        *_section(
            "Their budget lets none go; a new pod is Ready first, then they may (kubectl drain waits on):", first
        ),
        *_section("The only pod of their Deployment; evicted plainly, as by kubectl drain, they are away:", single),
    ]


def _section(title: str, rows: Rows) -> list[str]:
    cells = [("", *row) for row in rows]
    return ["", f"  {title}", *(f"  {line}" for line in format_table(cells))] if cells else []


def _misfits(each: DrainPreview, fit: Fit) -> list[tuple[str, str]]:
    return [(pod, forecast.reason) for pod, forecast in each.unplaced if forecast.fit is fit]


def _count(each: DrainPreview, fit: Fit) -> int:
    return len(_misfits(each, fit))


def _json(policy: str, each: DrainPreview) -> dict[str, Any]:
    return {
        "node": each.node,
        "policy": policy or None,
        "canBeDrained": each.drainable,
        "fit": each.placed,
        "stay": each.staying,
        "doNotFit": [{"pod": pod, "reason": reason} for pod, reason in _misfits(each, Fit.DOES_NOT_FIT)],
        "unknown": [{"pod": pod, "reason": reason} for pod, reason in _misfits(each, Fit.UNKNOWN)],
        "blocked": [
            {"pod": o.pod, "class": o.blocker_class, "message": o.message, "hint": o.hint} for o in each.blockers
        ],
        "replacedFirst": list(each.replaced_first),
        "singleReplicas": list(each.single_replica_pods),
        "takesAtLeastSeconds": round(each.min_duration.total_seconds()),
    }
