"""Forecasts of placement for a drain of the node `n` in a small cluster."""

from collections.abc import Sequence
from random import Random
from typing import Any

from rescheduler.core.model import nodes as model_nodes
from rescheduler.core.model.raw import RawObject
from rescheduler.core.placement.planner import Fit, Forecast, plan
from rescheduler.core.placement.pod_requirements import PodRequirementsParser
from rescheduler.core.placement.pod_snapshot import PodSnapshot, ScheduledPod
from rescheduler.core.placement.problem import PlacementInput
from unit.builders import HOST, ZONE, raw_node

FITS, DOES_NOT, UNKNOWN = Fit.FITS, Fit.DOES_NOT_FIT, Fit.UNKNOWN
SELF = {"matchLabels": {"app": "a"}}


def forecast(nodes: Sequence[RawObject], pods: Sequence[RawObject], **more: Any) -> list[Fit]:
    """Return whether each pod of the drained node fits on the other nodes, in this order."""
    return [each.fit for each in forecasts(nodes, pods, **more)]


def forecasts(nodes: Sequence[RawObject], pods: Sequence[RawObject], **more: Any) -> list[Forecast]:
    """Return the forecast of each pod of the drained node, in this order."""
    leaving, cluster = placement_input(nodes, pods, **more)
    return plan(leaving, cluster, Random(0))


def placement_input(
    nodes: Sequence[RawObject], pods: Sequence[RawObject], **more: Any
) -> tuple[list[ScheduledPod], PlacementInput]:
    """Return the pods of the drained node, and the cluster with this node and these other nodes."""
    snapshot = PodSnapshot(PodRequirementsParser(), {"n"})
    for pod in pods:
        snapshot.add(pod)
    known = {n.name: n for n in map(model_nodes.parse_node, [raw_node("n", cpu="16"), *nodes])}
    return snapshot.pods_by_node["n"], PlacementInput(known, snapshot, competing_pods=snapshot.pending, **more)


def affinity(kind: str, key: str = HOST, selector: RawObject | None = None, **more: Any) -> RawObject:
    """Return the part of a pod's spec with one required term of this kind; it selects the pod itself by default."""
    term = {"topologyKey": key, "labelSelector": selector or SELF, **more}
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def spread(key: str = ZONE, skew: int = 1, **more: Any) -> RawObject:
    """Return the part of a pod's spec with one topology spread constraint over the pod's equals."""
    constraint = {"topologyKey": key, "maxSkew": skew, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": SELF}
    return {"topologySpreadConstraints": [constraint | more]}
