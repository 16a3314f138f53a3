"""Orphaned pods: which released pods a scan finds, what happens to each, and when the next scan runs."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import structlog

from rescheduler.api import names
from rescheduler.controllers.evacuation.chain_outcomes import ChainOutcomes
from rescheduler.controllers.evacuation.eviction_queue import ConfirmProof, refuse_unproven
from rescheduler.controllers.evacuation.node_evacuation import EvacuationDependencies
from rescheduler.controllers.evacuation.orphaned_pods import ORPHANED_PODS_SUBSCRIBER, OrphanedPodController
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.core.drain.pod_evaluation import MoveMode
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.raw import RawObject
from rescheduler.core.replacement.decisions import ReplacementDecision, ReplacementStep
from rescheduler.core.replacement.move_history import MoveHistory
from rescheduler.kube.client import ApiError
from unit.builders import NOW, raw_replica, release_record
from unit.fakes import FakeClock, FakeClusterClient, settle
from unit.supervision import supervisor


class World:
    """A cluster with pods, and the controller; the class plays budgets, replacer and eviction queue.

    Attributes:
        tasks: nodes whose NodeDrain has a task.
        decisions: decision of the replacer by UID of the pod; the default is to return it.
        started: name and step of each started decision.
        sent: what the last evaluation gave to the eviction queue.
        forgotten: UIDs that were forgotten, once by each collaborator.
    """

    def __init__(self, *pods: RawObject) -> None:
        self.client, self.clock, self.metrics = FakeClusterClient(), FakeClock(), Metrics()
        self.client.put("pods", *pods)
        self.tasks: set[str] = set()
        self.decisions: dict[str, ReplacementDecision] = {}
        self.started: list[tuple[str, ReplacementStep]] = []
        self.sent: list[tuple[str, PodAction]] = []
        self.forgotten: list[str] = []
        self.namespaces: set[str] = set()
        self.is_closed = False
        deps: Any = EvacuationDependencies(
            self.client,
            self.clock,
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self.metrics,
            MoveHistory(),
            None,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            ChainOutcomes(lambda _: None),
        )
        self.controller = OrphanedPodController(deps, lambda: self.tasks, supervisor())

    def subscribe(self, subscriber: str, namespaces: Iterable[str]) -> None:
        assert subscriber == ORPHANED_PODS_SUBSCRIBER
        self.namespaces = set(namespaces)

    def evaluate(
        self,
        subscriber: str,
        pods: Sequence[tuple[Pod, PodDecision]],
        _drain: object,
        _now: object,
        mode: MoveMode,
        **_facts: object,
    ) -> dict[str, ReplacementDecision] | None:
        assert (subscriber, mode) == (ORPHANED_PODS_SUBSCRIBER, MoveMode.NONE)
        return {pod.uid: self.decisions.get(pod.uid, ReplacementDecision(ReplacementStep.RETURN)) for pod, _ in pods}

    def start(self, _subscriber: str, pod: Pod, decision: ReplacementDecision) -> None:
        self.started.append((pod.name, decision.step))

    def send(
        self,
        _session: object,
        pods: Sequence[tuple[Pod, PodDecision]],
        *,
        policy: str,
        rate: float,
        confirm: ConfirmProof,
    ) -> None:
        assert (policy, rate, confirm) == (ORPHANED_PODS_SUBSCRIBER, 20, refuse_unproven)
        self.sent = [(pod.name, decision.action) for pod, decision in pods]

    def forget(self, first: Any, uids: Iterable[str] | None = None) -> None:
        self.forgotten += first if uids is None else uids

    def close(self, _subscriber: str) -> None:
        self.is_closed = True

    async def reconcile(self, after: float = 0.0) -> float:
        """Reconcile after these seconds; return the seconds until the next time."""
        self.clock.seconds += after
        self.started.clear()
        return await self.controller._reconcile()

    @property
    def found(self) -> list[str]:
        return list(self.controller.waiting_reasons)


def released(name: str = "a", *, node: str = "n", cause: str = "NodeDrain/n", **meta: Any) -> RawObject:
    raw = raw_replica(name, node=node, record=release_record(cause))
    raw["metadata"].update(meta)
    return raw


def with_forged_record() -> RawObject:
    """Return a pod whose record names the right Deployment, and whose controller is its ReplicaSet."""
    return raw_replica(annotations={names.MOVE: release_record().to_annotation()})


def of_another_deployment() -> RawObject:
    raw = released()
    raw["metadata"]["ownerReferences"][0]["uid"] = "a newer Deployment"
    return raw


def with_unreadable_record() -> RawObject:
    raw = released()
    raw["metadata"]["annotations"] = {names.MOVE: "{"}
    return raw


def adopted_by_replica_set() -> RawObject:
    raw = released()
    raw["metadata"]["ownerReferences"] = raw_replica()["metadata"]["ownerReferences"]
    return raw


# -- which pods are orphaned -------------------------------------------------------------------------------------------


async def test_released_pod_that_no_task_manages_is_returned() -> None:
    world = World(released("a"), raw_replica("b"))
    await world.reconcile()
    assert world.started == [("a", ReplacementStep.RETURN)]
    assert world.namespaces == {"s"}
    assert world.metrics.orphaned_released_pods._value.get() == 1


@pytest.mark.parametrize(
    "made", [with_forged_record, of_another_deployment, with_unreadable_record, adopted_by_replica_set]
)
@pytest.mark.parametrize("scan", ["cluster", "node"])
async def test_pod_whose_record_and_controller_disagree_is_not_touched(made: Any, scan: str) -> None:
    world = World(made())
    if scan == "node":
        await world.reconcile()
        world.controller.request_node_scan("n")
    await world.reconcile()
    assert (world.started, world.sent, world.found) == ([], [], [])


@pytest.mark.parametrize("cause", ["NodeDrain/n", "NamespacePool/shop", "NodeDrain/another"])
async def test_released_pod_on_a_node_with_a_task_is_left_to_the_task(cause: str) -> None:
    world = World(released(cause=cause))
    world.tasks = {"n"}
    await world.reconcile()
    assert world.started == []


async def test_pod_of_a_drain_with_a_task_is_not_even_read() -> None:
    world = World(released(cause="NodeDrain/n"))
    world.tasks = {"n"}
    await world.reconcile()
    assert [query for _, query in world.client.listed] == [{}]


async def test_terminating_pod_is_not_orphaned() -> None:
    world = World(released(deletionTimestamp=NOW.isoformat()))
    await world.reconcile()
    assert world.found == []


async def test_bad_object_does_not_hide_an_orphaned_pod() -> None:
    odd = {"metadata": {"name": "x", "uid": "x", "namespace": "s", "labels": {}, "annotations": "no object"}}
    world = World(odd, released())
    await world.reconcile()
    assert world.found == ["s/a"]


async def test_pod_that_changes_between_scan_and_read_is_left_alone() -> None:
    world = World(released())
    listed = world.client.list_metadata

    async def then_returned(path: str, **params: str | int) -> Any:
        async for page in listed(path, **params):
            world.client.put("pods", raw_replica("a"))
            yield page

    world.client.list_metadata = then_returned  # type: ignore[method-assign]
    await world.reconcile()
    assert world.found == []


# -- what happens to an orphaned pod -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "sent"),
    [
        (ReplacementStep.EVICT, [("a", PodAction.EVICT)]),
        (ReplacementStep.DELETE, [("a", PodAction.DELETE)]),
        (ReplacementStep.RETURN, []),
        (ReplacementStep.CLEAR_RECORD, []),
        (ReplacementStep.WAIT, []),
        (ReplacementStep.HOLD, []),
    ],
)
async def test_only_a_pod_that_cannot_be_returned_is_evicted_or_deleted(
    step: ReplacementStep, sent: list[tuple[str, PodAction]]
) -> None:
    world = World(released())
    world.decisions = {"a": ReplacementDecision(step)}
    await world.reconcile()
    assert world.sent == sent


async def test_nothing_is_sent_while_the_workloads_are_not_listed() -> None:
    world = World(released())
    world.evaluate = lambda *_, **__: None  # type: ignore[method-assign]
    await world.reconcile()
    assert (world.started, world.sent) == ([("a", ReplacementStep.WAIT)], [])


async def test_pod_that_others_returned_is_forgotten() -> None:
    world = World(released())
    await world.reconcile()
    world.client.put("pods", raw_replica("a"))
    await world.reconcile(after=5)
    assert world.forgotten == ["a"] * 3
    assert world.started == []
    assert world.metrics.orphaned_released_pods._value.get() == 0


async def test_orphaned_pod_whose_node_gets_a_task_is_handed_to_it() -> None:
    world = World(released())
    await world.reconcile()
    world.tasks = {"n"}
    await world.reconcile(after=5)
    assert (world.started, world.found) == ([], [])


async def test_reason_for_a_wait_is_logged_once() -> None:
    world = World(released())
    world.decisions = {"a": ReplacementDecision(ReplacementStep.HOLD, message="denied by policy")}
    with structlog.testing.capture_logs() as logs:
        await world.reconcile()
        await world.reconcile(after=5)
    assert [line["why"] for line in logs if line["event"] == "orphaned_pods.waiting"] == ["denied by policy"]
    assert world.controller.waiting_reasons == {"s/a": "denied by policy"}


# -- when a scan runs --------------------------------------------------------------------------------------------------


async def test_cluster_is_scanned_again_after_an_hour() -> None:
    world = World()
    assert await world.reconcile() == 3600
    world.client.put("pods", released())
    assert await world.reconcile(after=3599) == 1
    assert world.found == []
    await world.reconcile(after=1)
    assert world.found == ["s/a"]


async def test_requested_scan_does_not_wait_for_the_hour() -> None:
    world = World()
    await world.reconcile()
    world.client.put("pods", released())
    world.controller.request_scan()
    await world.reconcile()
    assert world.found == ["s/a"]


async def test_end_of_a_task_scans_only_its_node() -> None:
    world = World()
    await world.reconcile()
    world.client.put("pods", released("a"), released("b", node="other"))
    world.controller.request_node_scan("n")
    await world.reconcile()
    assert world.found == ["s/a"]
    await world.reconcile(after=5)
    assert [query for _, query in world.client.listed].count({"fieldSelector": "spec.nodeName=n"}) == 1


async def test_known_orphaned_pods_are_read_again_less_and_less_often() -> None:
    world = World(released())
    waits = [await world.reconcile(after=5) for _ in range(6)]
    assert waits == [5, 10, 20, 40, 60, 60]
    world.client.put("pods", released("a", labels={"app": "other"}))
    assert await world.reconcile() == 5


@pytest.mark.parametrize("node_scan", [False, True])
async def test_scan_that_fails_is_still_due(node_scan: bool) -> None:
    world = World()
    if node_scan:
        await world.reconcile()
        world.controller.request_node_scan("n")
    world.client.put("pods", released())
    world.client.refuse("LIST pods", 503, "overloaded")
    with pytest.raises(ApiError):
        await world.reconcile()
    world.client.refused.clear()
    await world.reconcile()
    assert world.found == ["s/a"]


async def test_orphaned_pod_is_kept_while_it_cannot_be_read() -> None:
    world = World(released())
    await world.reconcile()
    world.client.refuse("LIST pods", 503, "overloaded")
    with pytest.raises(ApiError):
        await world.reconcile(after=5)
    assert world.forgotten == []
    assert world.found == ["s/a"]


async def test_cleanup_hears_when_no_orphaned_pod_is_left() -> None:
    world = World(released())
    await world.reconcile()
    assert not world.controller.none_left.is_set()
    world.client.remove("pods", "a")
    await world.reconcile(after=5)
    assert world.controller.none_left.is_set()
    world.controller.request_scan()
    assert not world.controller.none_left.is_set()


async def test_first_scan_runs_at_start_and_the_end_closes_the_watches() -> None:
    world = World(released())
    task = asyncio.create_task(world.controller.run())
    await settle()
    assert world.found == ["s/a"]
    task.cancel()
    await asyncio.wait({task})
    assert world.namespaces == set()
    assert world.is_closed
