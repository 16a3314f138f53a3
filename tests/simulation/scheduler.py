"""The scheduler: binds pods to the emptiest node that takes them, from a slightly old view."""

import asyncio
from functools import partial
from typing import Any

from invariants.objects import (
    copied,
    deleting,
    finished,
    labels,
    name,
    node_of,
    required_affinity,
    selects,
    set_condition,
    uid,
)
from rescheduler.core.model.raw import RawObject
from simulation.controllers import Controller

_LATE = (0.0, 0.0, 0.05, 1.5)
"""Seconds from a decision to its binding, sometimes longer than a cordon takes."""


class Scheduler(Controller):
    kinds = ("pods", "nodes")
    period = 60.0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._assumed: dict[str, str] = {}  # by uid of a pod with affinity: its node, until the pod is bound

    def reconcile(self) -> None:
        pods = self.server.all("pods")
        bound: dict[str, int] = {}
        for pod in pods:
            if node_of(pod) and not finished(pod):
                bound[node_of(pod)] = bound.get(node_of(pod), 0) + 1
        for pod in [p for p in pods if not node_of(p) and not deleting(p) and uid(p) not in self._assumed]:
            nodes, why = self._fitting(pod, bound)
            if required_affinity(pod) and nodes:
                nodes, why = self._near(pod, nodes), f"0/{len(nodes)} nodes are available: pod affinity rules."
            if not nodes:
                self.server.edit("pods", pod, partial(self._unschedulable, why=why))
                continue
            node = min(nodes, key=lambda n: (_waits(n), bound.get(name(n), 0), self.chance.random()))
            bound[name(node)] = bound.get(name(node), 0) + 1
            if required_affinity(pod):
                self._assumed[uid(pod)] = name(node)
            late = self.chance.choice(_LATE)
            asyncio.get_running_loop().call_later(late, self._bind, pod, name(node))

    def _fitting(self, pod: RawObject, bound: dict[str, int]) -> tuple[list[RawObject], str]:
        nodes = self.server.all("nodes")
        open_ = [n for n in nodes if not n["spec"].get("unschedulable") and _tolerates(pod, n)]
        room = [n for n in open_ if bound.get(name(n), 0) < int(n["status"]["allocatable"]["pods"])]
        why = f"0/{len(nodes)} nodes are available: {len(open_)} Too many pods, {len(nodes) - len(open_)} had taints."
        return room, why if open_ else f"0/{len(nodes)} nodes are available: {len(nodes)} node(s) were unschedulable."

    def _near(self, pod: RawObject, nodes: list[RawObject]) -> list[RawObject]:
        """Return the nodes that the pod's affinity allows: all of them if no pod matches but the pod itself."""

        def matches(other: RawObject) -> bool:
            same_space = other["metadata"]["namespace"] == pod["metadata"]["namespace"]
            return same_space and all(selects(wanted, labels(other)) for wanted in required_affinity(pod))

        there = {node_of(p) or self._assumed.get(uid(p), "") for p in self.server.all("pods") if matches(p)} - {""}
        return [n for n in nodes if name(n) in there] if there or not matches(pod) else nodes

    def _unschedulable(self, raw: dict[str, Any], why: str) -> None:
        set_condition(raw, "PodScheduled", "False", "Unschedulable", self.server.now())
        next(c for c in raw["status"]["conditions"] if c["type"] == "PodScheduled")["message"] = why

    def _bind(self, pod: RawObject, node: str) -> None:
        self._assumed.pop(uid(pod), None)
        if self.server.away:
            return

        def bind(raw: dict[str, Any]) -> None:
            if "nodeName" not in raw["spec"] and not deleting(raw):
                raw["spec"] = {**copied(raw["spec"]), "nodeName": node}
                set_condition(raw, "PodScheduled", "True", "", self.server.now())

        self.server.edit("pods", pod, bind)


def _waits(node: RawObject) -> bool:
    return any(t["effect"] == "PreferNoSchedule" for t in node["spec"].get("taints") or ())


def _tolerates(pod: RawObject, node: RawObject) -> bool:
    """Whether the pod tolerates every taint, or the taints that it names with `Exists`."""
    tolerated = {t.get("key", "") for t in pod["spec"].get("tolerations") or ()}
    taints = [t["key"] for t in node["spec"].get("taints") or () if t["effect"] != "PreferNoSchedule"]
    return "" in tolerated or all(key in tolerated for key in taints)
