"""User-facing sentences of rebalancing: texts of its Events (docs/reference/events.md)."""

from collections.abc import Sequence

from rescheduler.core.rebalance.utilization import CpuMemory

_MAX_NODES_NAMED = 3


def rebalance_move(
    pod: str,
    pod_share: CpuMemory,
    node_utilization: CpuMemory,
    *,
    high: str | None,
    destinations: Sequence[str],
    audit: bool,
) -> str:
    """Return that a pod moves off the node of the Event, or would move in mode Enforce.

    `pod_share` and `node_utilization`: shares of the node. `high`: the threshold if the node is above it, else None.
    """
    action = "In mode Enforce this would move" if audit else "Moving"
    why = "fuller than the mean" if high is None else f"above high ({high})"
    named = ", ".join(destinations[:_MAX_NODES_NAMED]) + (" and others" if len(destinations) > _MAX_NODES_NAMED else "")
    return (
        f"{action} pod {pod} ({_percent(pod_share.cpu)} of the node's CPU, {_percent(pod_share.memory)} of its memory) "
        f"off this node, which is {why} with {_percent(node_utilization.cpu)} CPU and "
        f"{_percent(node_utilization.memory)} memory; {named} {'has' if len(destinations) == 1 else 'have'} room"
    )


def rebalancing_stopped(pool: str) -> str:
    """Return that rebalancing of a pool has stopped; `pool`: empty for the nodes of no pool."""
    nodes = f"the nodes of pool {pool}" if pool else "the nodes of no pool"
    return (
        f"Moving pods has not balanced {nodes}: the scheduler does not choose the emptiest nodes. "
        "No more pods are moved until nodes, requests or the policy change"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
