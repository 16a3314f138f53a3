"""Scans and rounds of the rebalancer, on a cluster in memory with a mover that moves at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any, cast

import pytest

from rescheduler.controllers.rebalance.controller import Rebalancer
from rescheduler.controllers.rebalance.events import RebalanceEvents
from rescheduler.controllers.rebalance.moves import MoveOutcome
from rescheduler.controllers.rebalance.node_usage import NodeUsage
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.core.rebalance import node_groups
from rescheduler.core.rebalance.candidates import COOLDOWN_AFTER_FAILED_MOVE, COOLDOWN_AFTER_MOVE
from rescheduler.core.rebalance.node_groups import NodeGroup
from rescheduler.core.rebalance.selection import Candidate
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError, Client
from rescheduler.kube.event_recorder import EventRecorder
from unit.supervision import supervisor

MINUTE = 60.0


class Cluster:
    """Nodes of 10 CPUs, and pods by name with their node and their CPU in hundredths of a node."""

    def __init__(self) -> None:
        self.time = 0.0
        self.kept: set[str] = set()
        self.versions = 0
        self.clock = Clock(wall=lambda: 1_800_000_000.0, monotonic=lambda: self.time)
        self.store = Store(self.clock.now)
        self.at: dict[str, str] = {}
        self.size: dict[str, int] = {}
        self.owner: dict[str, str] = {}
        self.born: dict[str, str] = {}
        self.usage: dict[str, int] | None = None
        self.asked: list[str] = []
        self.said: list[tuple[str, str, str]] = []
        self.moved: list[tuple[str, str]] = []
        self.outcome = MoveOutcome.MOVED
        self.packs = False
        self.before_move: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)
        self.metrics = Metrics()
        client, recorder = cast("Client", self), cast("EventRecorder", self)
        self.usages = NodeUsage(client)
        announcer = RebalanceEvents(recorder, self.metrics)
        self.rebalancer = Rebalancer(
            client, self.store, self.clock, self, self.usages, announcer, supervisor(self.clock.monotonic)
        )

    def put(self, kind: ResourceKind, name: str, **body: Any) -> None:
        self.versions += 1
        metadata = {"name": name, "uid": name, "resourceVersion": str(self.versions), **body.pop("metadata", {})}
        self.store.put(kind, {"metadata": metadata, **body})

    def policy(self, **spec: Any) -> None:
        self.put(ResourceKind.POLICY, "p", spec={"rebalance": {"enabled": True}, **spec})

    def node(self, name: str, *pods: int, pool: str = "", **spec: Any) -> None:
        status = {
            "allocatable": {"cpu": "10", "memory": "10Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        labels = {"rescheduler.node-restriction.kubernetes.io/pool": pool} if pool else {}
        self.put(ResourceKind.NODE, name, metadata={"labels": labels}, spec=spec, status=status)
        for size in pods:
            pod = f"p{len(self.at) + 1}"
            self.at[pod], self.size[pod] = name, size

    def drain(self, name: str, **status: str) -> None:
        spec = {"nodeName": name, "requests": [{"reason": "Maintenance"}]}
        self.put(ResourceKind.DRAIN, name, spec=spec, status=status)

    def full(self, name: str) -> int:
        return sum(self.size[pod] for pod, node in self.at.items() if node == name)

    async def list(self, path: str, **params: str) -> AsyncIterator[dict[str, Any]]:
        self.asked.append(params.get("fieldSelector", path))
        if path == paths.NODE_METRICS:
            if self.usage is None:
                raise ApiError("GET", path, ErrorResponse(404, "NotFound", ""))
            rows = [
                {"metadata": {"name": n}, "timestamp": f"{self.time:09.1f}", "usage": {"cpu": f"{u * 100}m"}}
                for n, u in self.usage.items()
            ]
            yield {"items": rows}
            return
        if path == "/apis/apps/v1/namespaces/s/deployments":
            yield {"items": [deployment(self.owner.get(pod, pod)) for pod in self.at]}
            return
        assert path == paths.PODS
        place = params["fieldSelector"].split(",")[0]
        yield {
            "items": [
                self.raw(pod) for pod, at in self.at.items() if place in (f"spec.nodeName={at}", "spec.nodeName!=")
            ]
        }

    def raw(self, pod: str) -> dict[str, Any]:
        name = self.owner.get(pod, pod)
        owner = {"kind": "ReplicaSet", "name": f"{name}-a", "uid": name, "controller": True}
        requests = {"cpu": f"{self.size[pod] * 100}m"}
        created = self.born.get(pod, "2020-01-01T00:00:00Z")
        return {
            "metadata": {
                "namespace": "s",
                "creationTimestamp": created,
                "name": pod,
                "uid": pod,
                "labels": {"pod-template-hash": "a"},
                "ownerReferences": [owner],
            },
            "spec": {"nodeName": self.at[pod], "containers": [{"name": "app", "resources": {"requests": requests}}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }

    def emit(self, subject: Any, kind: str, reason: str, message: str) -> None:
        self.said.append((subject.name, reason, message))

    def start(self) -> None:
        pass

    def restrict_to_nodes(self, nodes: Collection[str]) -> None:
        self.kept = set(nodes)

    async def move(self, candidate: Candidate, group: NodeGroup) -> MoveOutcome:
        await self.before_move()
        pod = candidate.pod.name
        if self.outcome is MoveOutcome.MOVED:
            others = [node.name for node in group.nodes if node.name != self.at[pod]]
            fits = [name for name in others if self.full(name) + self.size[pod] <= 100]
            self.at[pod] = max(fits, key=self.full) if self.packs else min(fits, key=self.full)
            self.moved.append((pod, self.at[pod]))
            self.born[pod] = self.clock.now().isoformat()
        return self.outcome

    async def turn(self, minutes: float = 0.0) -> None:
        """Advance the time, reconcile once, and finish the round that starts."""
        self.time += minutes * MINUTE
        await self.rebalancer._reconcile(node_groups.build_groups(self.store.cluster_state()))
        await asyncio.gather(*self.rebalancer._round_tasks.values())

    async def settle(self) -> int:
        """Reconcile every minute until no pod has moved for half an hour; return the number of moved pods."""
        before, idle = len(self.moved), 0
        while idle < 30:
            moved = len(self.moved)
            await self.turn(1)
            idle = idle + 1 if len(self.moved) == moved else 0
        return len(self.moved) - before


def deployment(name: str) -> dict[str, Any]:
    counts = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}
    return {
        "metadata": {"namespace": "s", "name": name, "uid": name, "generation": 1},
        "spec": {"replicas": 1},
        "status": {"observedGeneration": 1, **counts},
    }


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


async def test_nothing_is_listed_without_a_policy_that_rebalances(cluster: Cluster) -> None:
    cluster.node("a", 30, 60)
    cluster.node("b")
    cluster.policy(rebalance={"enabled": False})
    await cluster.turn()
    assert cluster.asked == []


async def test_an_unbalanced_pool_is_balanced_with_events(cluster: Cluster) -> None:
    cluster.policy()
    cluster.node("a", 30, 20, 20, 20)
    cluster.node("b")
    assert await cluster.settle() == 2
    assert {cluster.full("a"), cluster.full("b")} == {40, 50}
    (node, reason, message), *_ = cluster.said
    assert (node, reason) == ("a", "Rebalancing")
    assert message.startswith("Moving pod s/p1 (30% of the node's CPU, 0% of its memory) off this node, which is above")
    assert cluster.metrics.rebalance_moves.labels("", "Moved")._value.get() == 2
    assert cluster.metrics.load_deviation.labels("", "p", "cpu")._value.get() == pytest.approx(0.05)


async def test_only_pods_of_source_nodes_are_parsed(cluster: Cluster) -> None:
    cluster.policy()
    cluster.node("a", 30, 60)
    cluster.node("b")
    cluster.node("c", 70)
    await cluster.turn()
    assert [word for word in cluster.asked if word.startswith("spec.nodeName=") and "," not in word] == [
        "spec.nodeName=a"
    ]


@pytest.mark.parametrize(
    ("few", "lists"), [(3, ["spec.nodeName=a", "spec.nodeName=b", "spec.nodeName=c"]), (2, ["spec.nodeName!="])]
)
async def test_pods_of_few_nodes_are_listed_by_node(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, few: int, lists: list[str]
) -> None:
    monkeypatch.setattr("rescheduler.controllers.rebalance.controller._MAX_NODES_LISTED_SINGLY", few)
    cluster.policy()
    for name in "abc":
        cluster.node(name, 60)
    await cluster.turn()
    assert [word.split(",")[0] for word in cluster.asked if "status.phase" in word] == lists


async def test_after_a_round_only_its_group_is_scanned(cluster: Cluster) -> None:
    cluster.policy()
    cluster.node("a", 30, 30, 30)
    cluster.node("b")
    for name in "cd":
        cluster.node(name, 60, pool="shop")
    await cluster.turn()
    cluster.asked.clear()
    await cluster.turn(0.1)
    assert {word[len("spec.nodeName=")] for word in cluster.asked if "status.phase" in word} == {"a", "b"}


async def test_mode_audit_reports_once_and_moves_nothing(cluster: Cluster) -> None:
    cluster.policy(mode="Audit")
    cluster.node("a", 30, 60)
    cluster.node("b")
    assert await cluster.settle() == 0
    assert [reason for _, reason, _ in cluster.said] == ["WouldRebalance"]


async def test_rebalancing_waits_for_a_drain_in_the_pool(cluster: Cluster) -> None:
    cluster.policy()
    cluster.node("a", 30, 60)
    cluster.node("b")
    cluster.node("c", unschedulable=True)
    cluster.drain("c", startedAt="2027-01-01T00:00:00Z")
    await cluster.turn()
    assert cluster.moved == []
    cluster.drain("c", startedAt="2027-01-01T00:00:00Z", drainedAt="2027-01-01T00:01:00Z")
    await cluster.turn(0.1)
    assert cluster.moved == [("p1", "b")]


async def test_a_returned_node_is_filled_at_once(cluster: Cluster) -> None:
    cluster.policy()
    cluster.node("a", *[10] * 7)
    cluster.node("b", *[10] * 7)
    cluster.node("back", unschedulable=True)
    cluster.drain("back", startedAt="2027-01-01T00:00:00Z", drainedAt="2027-01-01T00:01:00Z")
    assert await cluster.settle() == 0
    cluster.store.drop(ResourceKind.DRAIN, "back")
    cluster.node("back")
    await cluster.turn(0.1)
    assert cluster.full("back") == 10
    await cluster.settle()
    assert cluster.full("back") >= 40


async def test_the_refill_of_a_returned_node_ends_after_an_hour(cluster: Cluster) -> None:
    cluster.policy()
    cluster.node("a", *[10] * 7)
    cluster.node("b", *[10] * 7)
    cluster.node("back")
    cluster.drain("back", startedAt="2027-01-01T00:00:00Z", drainedAt="2027-01-01T00:01:00Z")
    await cluster.turn()
    cluster.store.drop(ResourceKind.DRAIN, "back")
    await cluster.settle()
    await cluster.turn(60)
    for pod in [pod for pod, node in cluster.at.items() if node == "back"]:
        cluster.at[pod] = min("ab", key=cluster.full)
    assert await cluster.settle() == 0


async def test_a_new_node_is_not_filled(cluster: Cluster) -> None:
    """An autoscaler may have added the node for pending pods."""
    cluster.policy()
    cluster.node("a", *[10] * 7)
    cluster.node("b")
    assert await cluster.settle() == 0


async def test_a_failed_move_is_not_retried_soon(cluster: Cluster) -> None:
    cluster.policy()
    cluster.node("a", 60, 30)
    cluster.node("b")
    cluster.node("c")
    cluster.outcome = MoveOutcome.RETURNED
    await cluster.turn()
    cluster.outcome = MoveOutcome.MOVED
    await cluster.turn(1)
    assert cluster.moved == [("p2", "b")]  # the other one will do meanwhile
    cluster.node("a", 40)
    await cluster.turn(4)
    assert len(cluster.moved) == 2


async def test_full_nodes_without_candidates_are_skipped(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rescheduler.core.rebalance.selection.MAX_SOURCE_NODES", 1)
    cluster.policy()
    cluster.node("full", 96)
    cluster.node("less", 45, 45)
    cluster.node("empty")
    cluster.node("spare")
    await cluster.turn()
    assert cluster.moved == []
    await cluster.turn(0.1)
    assert cluster.moved == [("p2", "empty")]
    await cluster.settle()
    assert cluster.asked.count("spec.nodeName=full") <= 5


async def test_the_last_place_for_the_largest_pod_is_kept(cluster: Cluster) -> None:
    cluster.policy()
    cluster.node("a", 70, 10, 10)
    cluster.node("b", 40, 40, 10)
    cluster.node("c", 25)
    assert await cluster.settle() == 0
    cluster.node("d")
    assert await cluster.settle() > 0
    assert min(cluster.full(name) for name in "abcd") <= 30


async def test_nodes_that_wait_for_a_better_move_are_not_skipped(cluster: Cluster) -> None:
    """The small pods of node b wait for the owner web, but not for the ten minutes of a node without candidates."""
    cluster.policy()
    cluster.node("a", *[10] * 10)
    cluster.owner = dict.fromkeys(cluster.at, "web")
    cluster.node("b", *[5] * 18)
    cluster.node("c")
    cluster.node("d")
    await cluster.turn()
    await cluster.turn(1)
    assert [pod for pod, _ in cluster.moved] == ["p1"]
    for _ in range(8):
        await cluster.turn(1)
    assert cluster.full("b") < 90


async def test_a_failed_move_is_not_retried_for_lack_of_other_candidates(cluster: Cluster) -> None:
    cluster.policy()
    cluster.node("a", 85)
    cluster.node("b")
    cluster.size["p1"] = 40
    cluster.node("a", 45)
    cluster.outcome = MoveOutcome.RETURNED
    await cluster.settle()
    tried = cluster.metrics.rebalance_moves.labels("", "Returned")._value.get()
    assert tried == 2
    cluster.outcome = MoveOutcome.MOVED
    await cluster.turn(COOLDOWN_AFTER_FAILED_MOVE.total_seconds() / MINUTE)
    assert len(cluster.moved) == 1


async def test_an_owner_has_a_cooldown_after_a_move(cluster: Cluster) -> None:
    cluster.policy()
    cluster.node("a", 5, 25, 25, 40)
    cluster.owner = {"p2": "web", "p3": "web", "p4": "web"}
    cluster.node("b")
    await cluster.turn()
    assert cluster.moved == [("p4", "b")]
    cluster.node("a", 40)
    cluster.owner["p5"] = "web"
    await cluster.turn(COOLDOWN_AFTER_MOVE.total_seconds() / MINUTE - 0.1)
    assert len(cluster.moved) == 1
    await cluster.turn(0.2)
    assert len(cluster.moved) == 2


async def test_a_recent_replacement_stays(cluster: Cluster) -> None:
    cluster.policy()
    cluster.node("a", 50, 25, 20)
    cluster.node("b")
    await cluster.turn()
    assert cluster.moved == [("p1", "b")]
    cluster.at["p2"] = cluster.at["p3"] = "b"
    await cluster.turn(5)
    assert cluster.moved[1:] == [("p2", "a")]


async def test_rebalancing_stops_under_a_packing_scheduler(cluster: Cluster) -> None:
    cluster.policy()
    cluster.node("a", 30, 30, 30)
    cluster.node("b")
    cluster.node("c", 40)
    cluster.node("d", 30, 30, 30)
    cluster.packs = True
    assert await cluster.settle() == 2
    assert "RebalancingStopped" in {reason for _, reason, _ in cluster.said}
    cluster.node("e")
    assert await cluster.settle() >= 1


async def test_the_next_round_waits_for_the_end_of_the_last(cluster: Cluster) -> None:
    cluster.policy()
    cluster.node("a", 30, 30, 30)
    cluster.node("b")
    done = asyncio.Event()
    cluster.before_move = done.wait
    turn = asyncio.create_task(cluster.turn())
    await asyncio.sleep(0)
    for _ in range(5):
        cluster.time += 5 * MINUTE
        await cluster.rebalancer._reconcile(node_groups.build_groups(cluster.store.cluster_state()))
    assert len(cluster.rebalancer._round_tasks) == 1
    done.set()
    await turn
    assert len(cluster.moved) == 1


async def test_a_node_with_high_usage_in_three_samples_is_a_source(cluster: Cluster) -> None:
    cluster.policy()
    cluster.node("a", *[5] * 6)
    cluster.node("b", *[5] * 6)
    cluster.usage = {"a": 90, "b": 30}
    for _ in range(2):
        await cluster.turn(1)
    assert cluster.moved == []
    await cluster.turn(1)
    await cluster.turn(3)
    assert cluster.moved == [("p1", "b")]
    await cluster.turn(1)
    await cluster.turn(1)
    assert len(cluster.moved) == 1  # what was used before the move says nothing any more
    await cluster.turn(1)
    await cluster.turn(3)
    assert len(cluster.moved) == 2


async def test_a_node_with_high_usage_is_no_destination(cluster: Cluster) -> None:
    cluster.policy()
    cluster.node("a", 30, 60)
    cluster.node("b")
    cluster.usage = {"b": 60}
    assert await cluster.settle() == 0
