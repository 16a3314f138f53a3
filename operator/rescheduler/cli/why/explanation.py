"""Explain what a drain does with one pod: the operator's own decision, and the state of a drain that runs."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import click

from rescheduler.api import API_VERSION
from rescheduler.api.drains import NodeDrain
from rescheduler.cli import messages as cli_messages
from rescheduler.cli.cluster_api import ClusterApi, PluginError, connect
from rescheduler.cli.cluster_reader import read_policies, read_preview_input
from rescheduler.cli.output import format_span, printable
from rescheduler.cli.printer import print_data
from rescheduler.cli.why import messages
from rescheduler.core.drain.pod_preview import PodOutcome, PodPreview, preview_pod
from rescheduler.core.model.pods import Pod, parse_pod


@dataclass(frozen=True, slots=True)
class Explanation:
    """A pod, and what a drain of its node does or would do with it.

    Attributes:
        source: which settings count, such as `with ReschedulePolicy default`.
        preview: None for a pod without a node.
        drain: the NodeDrain of its node; None without one.
    """

    pod: Pod
    now: datetime
    source: str = ""
    preview: PodPreview | None = None
    drain: NodeDrain | None = None


def show(name: str, output: str) -> None:
    """Print the explanation of a pod. `name`: namespace/name."""
    explanation = read_explanation(ClusterApi(connect()), name)
    if not print_data(as_json(explanation), [], output):
        click.echo("\n".join(as_text(explanation)))


def read_explanation(api: ClusterApi, name: str) -> Explanation:
    """Read what a drain does with a pod. Raises PluginError."""
    namespace, separator, pod_name = name.partition("/")
    if not (namespace and separator and pod_name) or "/" in pod_name or {namespace, pod_name} & {".", ".."}:
        raise click.UsageError(messages.NOT_A_POD_NAME)
    raw = api.get("v1", f"namespaces/{quote(namespace, safe='')}/pods/{quote(pod_name, safe='')}")
    if raw is None:
        raise PluginError(messages.pod_missing(name))
    pod = parse_pod(raw)
    policies = read_policies(api)
    if not pod.node:
        return Explanation(pod, datetime.now(UTC))
    inputs = read_preview_input(api, policies, [pod.node])
    node = inputs.placement_input.nodes[pod.node]
    policy, settings = policies.drain_for(node)
    preview = preview_pod(pod.uid, node, settings, inputs)
    if preview is None:
        raise PluginError(messages.pod_gone(name, pod.node))
    source = cli_messages.settings_source(policy, policies_exist=policies.policy_selector is not None)
    drain = None
    if pod.node in policies.overrides and (raw_drain := api.get(API_VERSION, f"nodedrains/{pod.node}")):
        drain = NodeDrain.from_object(raw_drain)
    return Explanation(pod, inputs.now, source, preview, drain)


def as_text(found: Explanation) -> list[str]:
    """Return the explanation as lines."""
    pod, preview = found.pod, found.preview
    owner = f"{pod.owner.kind} {pod.owner.name}" if pod.owner else ""
    lines = [messages.headline(pod.key, pod.node, owner)]
    if preview is None:
        lines.append(f"  {messages.NO_NODE}" + (f": {pod.unschedulable_message}" if pod.unschedulable_message else ""))
        return [printable(line) for line in lines]
    lines += ["", messages.on_drain(preview.outcome, preview.blocker_class or ""), f"  {found.source}"]
    lines += [f"  {line}" for line in _preview_lines(preview)]
    lines += ["", *_drain_lines(found)]
    return [printable(line) for line in lines]


def as_json(found: Explanation) -> dict[str, Any]:
    """Return the explanation for programs."""
    pod, preview, drain = found.pod, found.preview, found.drain
    blocker = _blocker(drain, pod)
    return {
        "pod": pod.key,
        "node": pod.node or None,
        "owner": {"kind": pod.owner.kind, "name": pod.owner.name} if pod.owner else None,
        "onDrain": preview
        and {
            "outcome": preview.outcome,
            "class": preview.blocker_class,
            "message": preview.message,
            "hint": preview.hint,
            "notReplacedFirst": preview.not_replaced_reason or None,
            "fit": preview.fit,
            "fitReason": preview.fit_reason,
            "optedOut": list(preview.opted_out),
        },
        "drain": drain
        and {
            "phase": drain.status.phase,
            "startedAt": _time(drain.status.started_at),
            "waiting": drain.status.waiting,
            "waitsForNode": pod.key in drain.status.waits_for_node,
            "releasedAt": _time(pod.release_record.released_at) if pod.released and pod.release_record else None,
            "blocker": blocker and blocker.model_dump(mode="json", by_alias=True, exclude_none=True),
        },
    }


def _preview_lines(preview: PodPreview) -> list[str]:
    lines = []
    if preview.message or preview.outcome is PodOutcome.STAYS:
        lines.append(preview.message or messages.STAYS_BY_KIND)
    if preview.hint:
        lines.append(f"-> {preview.hint}")
    if preview.not_replaced_reason and preview.outcome in (PodOutcome.EVICTED, PodOutcome.BLOCKED):
        lines.append(messages.not_replaced(preview.not_replaced_reason))
    if preview.fit and (not preview.fit_reason or preview.fit_reason not in preview.message):
        lines.append(messages.fit(preview.fit, preview.fit_reason))
    if preview.opted_out:
        lines.append(messages.opted_out(preview.opted_out))
    return lines


def _drain_lines(found: Explanation) -> list[str]:
    """Return what the NodeDrain says about the pod now."""
    pod, drain, now = found.pod, found.drain, found.now
    if drain is None:
        return [messages.NO_DRAIN]
    status = drain.status
    requests = ", ".join(f"{r.reason} ({r.message})" if r.message else r.reason for r in drain.spec.requests)
    since = format_span(now - status.started_at) if status.started_at else ""
    lines = [messages.drain_state(pod.node, status.phase or cli_messages.UNOBSERVED_STAGE, requests, since)]
    progressing = next((c for c in status.conditions if c.type == "Progressing"), None)
    if progressing and progressing.status == "False" and status.waiting:
        lines.append(f"  {messages.drain_waits(progressing.reason, progressing.message)}")
    lines.append(f"  {_pod_state(found, drain)}")
    if (blocker := _blocker(drain, pod)) and blocker.hint:
        lines.append(f"  -> {blocker.hint}")
    return lines


def _pod_state(found: Explanation, drain: NodeDrain) -> str:
    pod, now = found.pod, found.now
    if blocker := _blocker(drain, pod):
        return messages.blocked_for(blocker.class_, format_span(now - blocker.since), blocker.message)
    if pod.deletion_timestamp:
        left = pod.deletion_timestamp - now
        return messages.terminating(format_span(left) if left.total_seconds() >= 1 else "")
    if pod.released and pod.release_record:
        return messages.released_for(format_span(now - pod.release_record.released_at), pod.release_record.attempt)
    if pod.key in drain.status.waits_for_node:
        return messages.WAITS_FOR_NODE
    stays = found.preview is not None and found.preview.outcome is PodOutcome.STAYS
    return messages.NOT_CONCERNED if stays else messages.IN_TURN


def _blocker(drain: NodeDrain | None, pod: Pod) -> Any:
    rows = drain.status.blockers if drain else ()
    return next((row for row in rows if (row.namespace, row.pod) == (pod.namespace, pod.name)), None)


def _time(value: datetime | None) -> str | None:
    return value.isoformat() if value else None
