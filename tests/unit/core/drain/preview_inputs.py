"""Nodes, pods and budgets as the input of previews."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rescheduler.core.drain.preview import PreviewInput
from rescheduler.core.model import nodes as model_nodes
from rescheduler.core.model import pods
from rescheduler.core.model.disruption_budgets import DisruptionBudget, parse_budget
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.workloads import Deployment, ReplicaSet
from rescheduler.core.placement.pod_requirements import PodRequirementsParser
from rescheduler.core.placement.pod_snapshot import PodSnapshot
from rescheduler.core.placement.problem import PlacementInput
from unit.builders import NOW, raw_budget, raw_node, raw_pod

READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
WEB = Deployment("s", "web", "d", replicas=1)


def pod_of_kind(
    name: str, on: str = "old", *, kind: str = "ReplicaSet", notes: RawObject | None = None, **more: Any
) -> RawObject:
    raw = {**raw_pod(name, node=on, **more), "status": READY}
    owner = {
        "apiVersion": "apps/v1",
        "kind": kind,
        "name": "web-1",
        "uid": "r" if kind == "ReplicaSet" else "x",
        "controller": True,
    }
    raw["metadata"] |= {"ownerReferences": [owner] if kind else [], "annotations": notes or {}}
    return raw


def limit(name: str, *, allowed: int = 0, healthy: int = 1) -> DisruptionBudget:
    return parse_budget(
        raw_budget(name, disruptionsAllowed=allowed, currentHealthy=healthy, desiredHealthy=1, expectedPods=1)
    )


def world(
    raws: Sequence[RawObject], *budgets: DisruptionBudget, nodes: Sequence[RawObject] = (), deployment: Deployment = WEB
) -> PreviewInput:
    found = [raw_node("old", cpu="16"), *(nodes or [raw_node("n1")])]
    known = {n["metadata"]["name"]: model_nodes.parse_node(n) for n in found}
    census = PodSnapshot(PodRequirementsParser(), known)
    tenants = defaultdict(list)
    for raw in raws:
        census.add(raw)
        tenants[raw["spec"]["nodeName"]].append(pods.parse_pod(raw))
    owner = ReplicaSet("s", "web-1", "r", "d", replicas=deployment.replicas)
    return PreviewInput(
        NOW, PlacementInput(known, census), tenants, {}, {"s": budgets}, {"r": owner}, {deployment.uid: deployment}
    )
