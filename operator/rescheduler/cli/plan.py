"""`kubectl reschedule plan`: print the preview of a drain, as text or as JSON."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from rescheduler.cli import messages
from rescheduler.cli.chain_reader import find_chain_plan
from rescheduler.cli.cluster_api import ClusterApi, connect
from rescheduler.cli.cluster_reader import LivePolicies, read_policies, read_preview_input
from rescheduler.cli.output import format_span, format_table
from rescheduler.cli.printer import print_data, print_table
from rescheduler.core.drain.preview import Drainable, DrainPreview, plan_node, preview_plan
from rescheduler.core.model.nodes import Node
from rescheduler.core.placement.planner import Fit

_COLUMNS = ("NODE", "CAN BE DRAINED", "FIT", "DO NOT FIT", "UNKNOWN", "BLOCKED", "WAIT", "STAY", "TAKES AT LEAST")
_ANSWER_TEXTS = {
    Drainable.YES: messages.CAN_BE_DRAINED,
    Drainable.UNSURE: messages.MAY_BE_DRAINABLE,
    Drainable.NO: messages.CANNOT_BE_DRAINED,
}

_PROGRESS_INTERVAL = 5.0  # seconds

Rows = Iterable[tuple[str, ...]]


def show(names: Sequence[str], output: str) -> None:
    """Print the plan of each node, or of every node if none is named. Exit with the code of the result."""
    server = ClusterApi(connect())
    policies = read_policies(server)
    preview_input = read_preview_input(server, policies, names or None)
    nodes = preview_input.placement_input.nodes
    planned_nodes = [nodes[name] for name in dict.fromkeys(names) or sorted(nodes)]
    one, previews = len(names) == 1, []
    for node in _with_progress(planned_nodes):
        policy, drain = policies.drain_for(node)
        node_plan = plan_node(node, drain, preview_input)
        chain_plan = None
        if node_plan.lacks_room and (names or drain.chain_moves):
            chain_plan = find_chain_plan(server, node, policies, preview_input, node_plan, max(1, drain.chain_moves))
        previews.append((policy, preview_plan(node, drain, preview_input, node_plan, chain_plan)))
    objects = [_json(policy, preview) for policy, preview in previews]
    drainable = [f"node/{preview.node}" for _, preview in previews if preview.drainable is Drainable.YES]
    if print_data(objects[0] if one else objects, drainable, output):
        pass
    elif output == "wide":
        print_table(_wide_table(previews))
    elif one:
        click.echo("\n".join(_format_one(*previews[0], policies)))
    else:
        print_table(_table(previews))
        click.echo("\n".join(_format_all(previews)))
    failures = (Drainable.NO, Drainable.UNSURE) if names else (Drainable.NO,)
    sys.exit(1 if any(preview.drainable in failures for _, preview in previews) else 0)


def _with_progress(nodes: Sequence[Node]) -> Iterator[Node]:
    """Yield the nodes in order, and print the progress on stderr every few seconds."""
    last_printed = time.monotonic()
    for number, node in enumerate(nodes):
        if time.monotonic() - last_printed >= _PROGRESS_INTERVAL:
            last_printed = time.monotonic()
            click.echo(messages.plan_progress(number, len(nodes)), err=True)
        yield node


def _format_all(previews: Sequence[tuple[str, DrainPreview]]) -> list[str]:
    """Return details of nodes that may not be drainable, then pods that need care."""
    lines: list[str] = []
    for _, preview in previews:
        if preview.drainable is not Drainable.YES:
            lines += ["", f"{preview.node}: {_ANSWER_TEXTS[preview.drainable]}", *_details(preview)]
    lines += _notes([preview for _, preview in previews])
    not_drainable = sum(preview.drainable is Drainable.NO for _, preview in previews)
    return [*lines, "", messages.plan_total(not_drainable, len(previews))]


def _table(previews: Sequence[tuple[str, DrainPreview]]) -> list[tuple[str, ...]]:
    """Return the column names, and a row for each node."""
    return [_COLUMNS, *(_format_row(preview) for _, preview in previews)]


def _wide_table(previews: Sequence[tuple[str, DrainPreview]]) -> list[tuple[str, ...]]:
    """Return the table with the policy of each node."""
    return [(*_COLUMNS, "POLICY"), *((*_format_row(preview), policy or "<none>") for policy, preview in previews)]


def _format_row(preview: DrainPreview) -> tuple[str, ...]:
    counts = (
        preview.placed,
        _count(preview, Fit.DOES_NOT_FIT),
        _count(preview, Fit.UNKNOWN),
        len(preview.blockers),
        len(preview.waits_for_node) + len(preview.pending),
        preview.staying,
    )
    return (preview.node, preview.drainable.lower(), *map(str, counts), format_span(preview.min_duration))


def _format_one(policy: str, preview: DrainPreview, policies: LivePolicies) -> list[str]:
    source = messages.settings_source(policy, policies_exist=policies.policy_selector is not None)
    return [
        f"{preview.node}: {_ANSWER_TEXTS[preview.drainable]} ({source})",
        *_details(preview),
        *_notes([preview]),
    ]


def _details(preview: DrainPreview) -> list[str]:
    misfits = [
        row
        for pod, reason in _misfits(preview, Fit.DOES_NOT_FIT)
        for row in ((pod, reason), ("", _chain_hint(preview, pod)))
        if row[1]
    ]
    unknown = _misfits(preview, Fit.UNKNOWN)
    blocked = [
        row
        for blocker in preview.blockers
        for row in ((blocker.pod, f"{blocker.blocker_class}: {blocker.message}"), ("", blocker.hint))
        if row[1]
    ]
    return [
        f"  {messages.plan_summary(preview.placed, preview.staying, format_span(preview.min_duration))}",
        *_section(messages.misfits_title(_count(preview, Fit.DOES_NOT_FIT)), misfits),
        *_section(messages.unknown_title(len(unknown)), unknown),
        *_section(messages.blockers_title(len(preview.blockers)), blocked),
    ]


def _notes(previews: Sequence[DrainPreview]) -> list[str]:
    """Return the pods that need care but block no drain. For several nodes, each row names the node."""
    several = len(previews) > 1
    staying = [
        (pod, reason, *((preview.node,) if several else ()))
        for preview in previews
        for pod, reason in preview.named_staying
    ]
    waiting = [(pod, preview.node if several else "") for preview in previews for pod in preview.waits_for_node]
    pending = [
        row
        for preview in previews
        for found in preview.pending
        for row in (
            (found.pod, found.reason, preview.node if several else ""),
            ("", found.hint, ""),
            ("", _chain_hint(preview, found.pod), ""),
        )
        if row[1]
    ]
    first = [(pod, preview.node if several else "") for preview in previews for pod in preview.replaced_first]
    single = [(pod, preview.node if several else "") for preview in previews for pod in preview.single_replica_pods]
    opted_out = [
        (f"{row.namespace}/{row.pod}", ", ".join(row.annotations), *((preview.node,) if several else ()))
        for preview in previews
        for row in preview.opted_out
    ]
    return [
        *_section(messages.waiting_for_node_title(len(waiting)), waiting),
        *_section(messages.pending_title(sum(len(preview.pending) for preview in previews)), pending),
        *_section(messages.staying_title(len(staying)), staying),
        *_section(messages.REPLACED_FIRST_TITLE, first),
        *_section(messages.opted_out_title(len(opted_out)), opted_out),
        *_section(messages.SINGLE_REPLICAS_TITLE, single),
    ]


def _chain_hint(preview: DrainPreview, pod: str) -> str:
    """Return which pod would make room for this pod, and whether the drain moves it; empty if none is known."""
    move = preview.chain_plan.by_pod.get(pod)
    if move is None:
        return ""
    if preview.makes_room_for(pod):
        return messages.moves_first(move.pod, move.node)
    return messages.would_fit_after_move(move.pod, move.node)


def _section(title: str, rows: Rows) -> list[str]:
    cells = [("", *row) for row in rows]
    return ["", f"  {title}", *(f"  {line}" for line in format_table(cells))] if cells else []


def _misfits(preview: DrainPreview, fit: Fit) -> list[tuple[str, str]]:
    return [(pod, forecast.reason or "") for pod, forecast in preview.unplaced if forecast.fit is fit]


def _count(preview: DrainPreview, fit: Fit) -> int:
    return len(_misfits(preview, fit))


def _json(policy: str, preview: DrainPreview) -> dict[str, Any]:
    return {
        "node": preview.node,
        "policy": policy or None,
        "canBeDrained": preview.drainable,
        "fit": preview.placed,
        "stay": preview.staying,
        "doNotFit": [{"pod": pod, "reason": reason} for pod, reason in _misfits(preview, Fit.DOES_NOT_FIT)],
        "unknown": [{"pod": pod, "reason": reason} for pod, reason in _misfits(preview, Fit.UNKNOWN)],
        "blocked": [
            {"pod": b.pod, "class": b.blocker_class, "message": b.message, "hint": b.hint} for b in preview.blockers
        ],
        "optedOut": [
            {"pod": f"{row.namespace}/{row.pod}", "annotations": list(row.annotations)} for row in preview.opted_out
        ],
        "waitsForNode": list(preview.waits_for_node),
        "newPodsPending": [{"pod": row.pod, "reason": row.reason, "hint": row.hint} for row in preview.pending],
        "staying": [{"pod": pod, "reason": reason} for pod, reason in preview.named_staying],
        "replacedFirst": list(preview.replaced_first),
        "chainMoves": [
            {
                "pod": move.pod,
                "node": move.node,
                "makesRoomFor": sorted(pod for pod, by in preview.chain_plan.by_pod.items() if by == move),
                "byDrain": preview.max_chain_moves > 0,
            }
            for move in preview.chain_plan.moves
        ],
        "singleReplicas": list(preview.single_replica_pods),
        "takesAtLeastSeconds": round(preview.min_duration.total_seconds()),
    }
