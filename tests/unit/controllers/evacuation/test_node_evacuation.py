"""The evacuation of one node: what an evaluation waits for, and which requests it leads to."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from rescheduler.api.drains import BlockerClass, NodeDrainStatus
from rescheduler.api.history import DrainHistory, Move, MoveWay
from rescheduler.api.policies import DrainSettings, ReschedulePolicy
from rescheduler.controllers.evacuation.chain_outcomes import ChainOutcomes
from rescheduler.controllers.evacuation.eviction_queue import refuse_unproven
from rescheduler.controllers.evacuation.node_evacuation import RECHECK_INTERVAL, EvacuationDependencies, NodeEvacuation
from rescheduler.controllers.evacuation.planner import ChainRequest
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.core.drain import chain_progress
from rescheduler.core.drain.pod_evaluation import MoveMode, PodEvaluation
from rescheduler.core.eviction.api_responses import EvictionOutcome, EvictionResult
from rescheduler.core.eviction.pod_actions import EvictionContext, PodAction, PodDecision
from rescheduler.core.model.pods import Owner, Pod, Toleration
from rescheduler.core.model.release_record import ReleaseRecord
from rescheduler.core.model.volumes import NodeVolumes
from rescheduler.core.placement.chain_moves import ChainMove
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.replacement.decisions import ReplacementDecision, ReplacementStep
from rescheduler.core.replacement.move_history import MoveHistory
from unit.builders import NOW, pod

RECORD = ReleaseRecord("NodeDrain/n1", None, 1, NOW, 1, "web", "d", "web-a", "r1")
POLICY: Any = SimpleNamespace(name="default")
STEPS = (ReplacementStep.RELEASE, ReplacementStep.RETURN, ReplacementStep.CLEAR_RECORD)


class FakeRelatedObjects:
    """Related objects that add given volumes to a context; `missing`: the list that is missing."""

    missing, volumes, is_subscribed = "", NodeVolumes(), False

    def complete_context(
        self, _subscriber: str, _node: str, context: EvictionContext, *_facts: object, **_options: object
    ) -> EvictionContext | None:
        self.is_subscribed = True
        return None if self.missing else replace(context, volumes=self.volumes)

    def why_not_synced(self, _subscriber: str) -> str:
        return self.missing

    def unsubscribe(self, _subscriber: str) -> None:
        self.is_subscribed = False


class FakeBudgets:
    """Budgets that cover no pod; `missing`: the list that is missing."""

    missing = ""

    def subscribe(self, _subscriber: str, namespaces: Iterable[str]) -> None:
        self.namespaces = set(namespaces)

    def is_synced(self, _namespaces: Iterable[str]) -> bool:
        return not self.missing

    def why_not_synced(self, _namespaces: Iterable[str]) -> str:
        return self.missing

    def for_pod(self, _pod: Pod) -> tuple[()]:
        return ()

    def forget(self, _uids: Iterable[str]) -> None: ...


class FakeQueue:
    """An eviction queue that records what it is given."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, PodAction]] = []
        self.refusals: dict[str, EvictionResult] = {}

    def evicting_uids(self) -> frozenset[str]:
        return frozenset()

    def predicted_refusals(self, _pods: Sequence[tuple[Pod, PodDecision]]) -> dict[str, EvictionResult]:
        return self.refusals

    def send(self, _session: object, pods: Sequence[tuple[Pod, PodDecision]], **_limits: object) -> None:
        self.sent = [(pod.name, decision.action) for pod, decision in pods]

    def forget(self, _session: object, _uids: Iterable[str]) -> None: ...

    def close(self, _session: object) -> None: ...


class FakeReplacer:
    """A replacer whose decisions are given, and that records each started step."""

    def __init__(self) -> None:
        self.decisions: dict[str, ReplacementDecision] | None = {}
        self.modes: list[MoveMode] = []
        self.started: list[tuple[str, ReplacementStep, str]] = []
        self.removed: set[str] = set()
        self.new: Pod | None = None

    def evaluate(
        self, _subscriber: str, _pods: object, _drain: object, _now: object, mode: MoveMode, **_facts: object
    ) -> dict[str, ReplacementDecision] | None:
        self.modes.append(mode)
        return None if self.decisions is None else dict(self.decisions)

    def why_not_synced(self, _subscriber: str) -> str:
        return "the ReplicaSets are not listed"

    def start(self, _subscriber: str, pod: Pod, decision: ReplacementDecision, cause: str = "") -> None:
        if decision.step in STEPS:
            self.started.append((pod.name, decision.step, cause))

    def record_removals(self, *_facts: object) -> None: ...

    def record_replacement(self, _pod: Pod) -> None: ...

    def was_removed_by_others(self, uid: str) -> bool:
        return uid in self.removed

    def as_released(self, pod: Pod) -> Pod:
        return pod

    def new_pod(self, _uid: str) -> Pod | None:
        return self.new

    def forget(self, _uids: Iterable[str]) -> None: ...

    def close(self, _subscriber: str) -> None: ...


class FakePlanner:
    """A planner with given forecasts."""

    forecasts: Mapping[str, Forecast] | None

    def __init__(self) -> None:
        self.forecasts, self.waits = {}, list[bool]()

        self.offer: ChainMove | None = None
        self.planned_at: datetime | None = None
        self.chain_requests: list[ChainRequest] = []
        self.replans = 0

    def forecast(self, *_facts: object, wait_for_plan: bool, chain: ChainRequest) -> Mapping[str, Forecast] | None:
        self.waits.append(wait_for_plan)
        self.chain_requests.append(chain)
        return self.forecasts

    def chain_offer(self, _node: str) -> ChainMove | None:
        return self.offer

    def replan(self, _subscriber: str) -> None:
        self.replans += 1

    def close(self, _subscriber: str) -> None: ...


class Node:
    """One node with its pods, and its evacuation with fakes around it."""

    def __init__(self, *pods: Pod) -> None:
        self.budgets, self.queue, self.replacer, self.planner = (
            FakeBudgets(),
            FakeQueue(),
            FakeReplacer(),
            FakePlanner(),
        )
        self.related = FakeRelatedObjects()
        deps: Any = EvacuationDependencies(
            None,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            self.budgets,  # type: ignore[arg-type]
            self.queue,  # type: ignore[arg-type]
            self.replacer,  # type: ignore[arg-type]
            Metrics(),
            MoveHistory(),
            self.planner,  # type: ignore[arg-type]
            self.related,  # type: ignore[arg-type]
            ChainOutcomes(lambda _: None),
        )
        self.evacuation = NodeEvacuation("n1", "n1", deps, lambda: None)
        self.informer = SimpleNamespace(synced=True, error="", items={}, unreadable={}, unreadable_uids=frozenset())
        self.evacuation._informer = self.informer  # type: ignore[assignment]
        self.set_pods(*pods)

    def set_pods(self, *pods: Pod) -> None:
        self.informer.items = {pod.uid: pod for pod in pods}

    def evaluate(
        self, mode: MoveMode = MoveMode.ALL, requests: Mapping[str, str] | None = None
    ) -> PodEvaluation | None:
        context = EvictionContext(NOW, started_at=NOW if mode is not MoveMode.NONE and requests is None else None)
        return self.evacuation.evaluate(NodeDrainStatus(), DrainSettings(), context, mode, requests)

    def move(self, mode: MoveMode = MoveMode.ALL, requests: Mapping[str, str] | None = None) -> PodEvaluation:
        evaluation = self.evaluate(mode, requests)
        assert evaluation is not None
        policy: ReschedulePolicy = POLICY
        self.evacuation.move(evaluation, mode, policy, DrainSettings(), refuse_unproven)
        return evaluation


def released(name: str) -> Pod:
    return pod(name, release_record=RECORD, released=True)


def _miss_related_objects(node: Node) -> None:
    node.related.missing = "the DaemonSets are not listed"


def _miss_pods(node: Node) -> None:
    node.informer.synced, node.informer.error = False, "403 Forbidden"


def _miss_budgets(node: Node) -> None:
    node.budgets.missing = "the budgets are not listed"


def _miss_plan(node: Node) -> None:
    node.planner.forecasts = None


def _miss_workloads(node: Node) -> None:
    node.replacer.decisions = None


def test_an_evaluation_names_the_list_that_is_missing() -> None:
    missing: dict[Callable[[Node], None], str] = {
        _miss_related_objects: "the DaemonSets are not listed",
        _miss_pods: "the pods of the node are not listed yet (403 Forbidden)",
        _miss_budgets: "the budgets are not listed",
        _miss_plan: "the plan for the pods is not made yet",
        _miss_workloads: "the ReplicaSets are not listed",
    }
    for miss, reason in missing.items():
        node = Node(pod("a"))
        miss(node)
        assert node.evaluate() is None
        assert node.evacuation.unsynced_reason == reason


def test_the_reason_ends_once_everything_is_listed() -> None:
    node = Node(pod("a"))
    _miss_plan(node)
    node.evaluate()
    node.planner.forecasts = {}
    assert node.evaluate() is not None
    assert node.evacuation.unsynced_reason is None


def test_only_a_drain_that_moves_pods_waits_for_its_plan() -> None:
    node = Node(pod("a"))
    for mode in MoveMode:
        node.evaluate(mode)
    assert dict(zip(MoveMode, node.planner.waits, strict=True)) == {
        MoveMode.NONE: False,
        MoveMode.RELEASE_ONLY: False,
        MoveMode.BEGUN_ONLY: True,
        MoveMode.ALL: True,
    }
    assert node.replacer.modes == list(MoveMode)


def test_a_pod_is_released_first_and_others_are_evicted() -> None:
    node = Node(pod("a"), pod("b"))
    node.replacer.decisions = {"a": ReplacementDecision(ReplacementStep.RELEASE)}
    node.move()
    assert node.replacer.started == [("a", ReplacementStep.RELEASE, "NodeDrain/n1")]
    assert node.queue.sent == [("b", PodAction.EVICT)]


def test_a_drain_without_a_slot_moves_only_released_pods() -> None:
    node = Node(pod("a"), released("b"))
    node.replacer.decisions = {"b": ReplacementDecision(ReplacementStep.EVICT)}
    node.move(MoveMode.BEGUN_ONLY)
    assert node.queue.sent == [("b", PodAction.EVICT)]


def test_a_suspected_node_releases_pods_and_evicts_none() -> None:
    node = Node(pod("a"), pod("b"))
    node.replacer.decisions = {"a": ReplacementDecision(ReplacementStep.RELEASE)}
    evaluation = node.evaluate(MoveMode.RELEASE_ONLY)
    assert evaluation is not None
    node.evacuation.release(evaluation)
    assert [name for name, *_ in node.replacer.started] == ["a"]
    assert node.queue.sent == []


def test_a_pod_without_room_is_held_only_if_pods_move() -> None:
    node = Node(pod("a", owner=Owner("StatefulSet", "db", "o")))
    node.planner.forecasts = {"a": Forecast(Fit.DOES_NOT_FIT, reason="full")}
    assert [str(blocker.class_) for blocker in node.move().summary.blockers] == ["NoRoomInPool"]
    assert node.queue.sent == []
    waiting = node.evaluate(MoveMode.NONE)
    assert waiting is not None
    assert waiting.summary.blockers == ()


def test_pods_of_equal_priority_are_evicted_in_the_order_of_the_plan() -> None:
    node = Node(*(pod(name, owner=Owner("StatefulSet", name, name)) for name in "abc"), pod("d", priority=1))
    node.planner.forecasts = {name: Forecast(Fit.FITS, rank) for rank, name in enumerate("dbca")}
    node.move()
    assert [name for name, _ in node.queue.sent] == ["b", "c", "a", "d"]


def test_a_pod_whose_controlling_pod_is_gone_is_left_to_garbage_collection_first() -> None:
    node = Node(pod("a"), pod("b", owner=Owner("Pod", "a", "a")))
    node.move()
    node.set_pods(pod("b", owner=Owner("Pod", "a", "a")))
    node.move()
    assert node.queue.sent == []


def test_a_pod_that_must_share_a_node_with_a_blocked_pod_stays() -> None:
    node = Node(pod("a", owner=Owner("StatefulSet", "db", "o")), pod("b", owner=None))
    together = Forecast(Fit.FITS, colocated_uids=frozenset({"a", "b"}))
    node.planner.forecasts = {"a": together, "b": together}
    blockers = node.move().summary.blockers
    assert {(blocker.pod, str(blocker.class_)) for blocker in blockers} == {("a", "Unmanaged"), ("b", "Unmanaged")}
    assert node.queue.sent == []


def test_a_pod_that_another_pod_controls_leaves_with_that_pod() -> None:
    node = Node(pod("a"), pod("b", owner=Owner("Pod", "a", "a")))
    assert node.move().summary.remaining == 2
    assert node.queue.sent == [("a", PodAction.EVICT)]


def test_a_migration_moves_the_requested_pod_and_returns_others() -> None:
    node = Node(pod("a"), released("b"), pod("c"))
    node.replacer.decisions = {
        "a": ReplacementDecision(ReplacementStep.RELEASE),
        "b": ReplacementDecision(ReplacementStep.RETURN),
    }
    evaluation = node.move(requests={"a": "NamespacePool/shop"})
    assert evaluation.move_causes == {"a": "NamespacePool/shop", "b": "NodeDrain/n1"}
    assert node.replacer.started == [
        ("a", ReplacementStep.RELEASE, "NamespacePool/shop"),
        ("b", ReplacementStep.RETURN, ""),
    ]
    assert node.queue.sent == []


def test_an_ending_drain_evicts_the_pods_that_cannot_be_returned() -> None:
    node = Node(released("a"), released("b"), released("c"))
    node.replacer.decisions = {
        "a": ReplacementDecision(ReplacementStep.DELETE),
        "b": ReplacementDecision(ReplacementStep.EVICT),
        "c": ReplacementDecision(ReplacementStep.RETURN),
    }
    evaluation = node.evaluate(MoveMode.NONE)
    assert evaluation is not None
    node.evacuation.return_pods(evaluation)
    node.evacuation.evict_unreturnable(evaluation, "default")
    assert [name for name, *_ in node.replacer.started] == ["c"]
    assert node.queue.sent == [("a", PodAction.DELETE), ("b", PodAction.EVICT)]


def test_a_pod_that_has_left_counts_as_moved_unless_others_removed_it() -> None:
    node = Node(pod("a"), pod("b"), pod("c"))
    node.evaluate()
    node.replacer.removed = {"b"}
    node.set_pods(pod("c"))
    evaluation = node.evaluate()
    assert node.evacuation.moved_count == 1
    assert node.evacuation.last_move_at == NOW
    assert evaluation is not None
    assert [removed.name for removed in evaluation.summary.removed_released_pods] == ["b"]


def test_released_pods_are_handed_on_when_the_task_ends() -> None:
    node = Node(pod("a"), released("b"))
    assert node.evacuation.has_released_pods
    assert node.evacuation.pods_to_return() == ("s/b",)
    node.set_pods(pod("a"), replace(released("b"), deletion_timestamp=NOW + timedelta(seconds=30)))
    assert not node.evacuation.has_released_pods
    assert node.evacuation.pods_to_return() == ()


def test_node_counts_as_in_use_while_its_volumes_are_unknown() -> None:
    node = Node()
    _miss_related_objects(node)
    node.evaluate()
    assert node.evacuation.is_node_in_use()
    assert node.evacuation.node_in_use_by() == ()
    node.related.missing = ""
    node.evaluate()
    assert not node.evacuation.is_node_in_use()


def test_attached_volume_and_terminating_pod_use_the_node() -> None:
    node = Node(pod("a", deletion_timestamp=NOW))
    node.related.volumes = NodeVolumes(attached_volumes=frozenset({"v"}))
    node.evaluate()
    assert node.evacuation.is_node_in_use()
    assert len(node.evacuation.node_in_use_by()) == 2


def test_next_look_is_due_when_a_refusal_becomes_a_blocker_or_a_request_is_due() -> None:
    node = Node(pod("a"))
    node.evaluate()
    assert node.evacuation.seconds_until_recheck(NOW, None) == RECHECK_INTERVAL
    assert node.evacuation.seconds_until_recheck(NOW, 2.0) == 2.0
    node.queue.refusals = {"a": EvictionResult(EvictionOutcome.REFUSED)}
    node.evaluate()
    assert node.evacuation.seconds_until_recheck(NOW + timedelta(seconds=2), None) == 3.0
    node.replacer.decisions = {
        str(seconds): ReplacementDecision(ReplacementStep.WAIT, decide_again_at=NOW + timedelta(seconds=seconds))
        for seconds in (7, 2)
    }
    node.evaluate()
    assert node.evacuation.seconds_until_recheck(NOW, None) == 2.0


def test_closed_evacuation_watches_nothing() -> None:
    node = Node(pod("a"))
    node.evaluate()
    assert node.related.is_subscribed
    assert node.budgets.namespaces == {"s"}
    node.evacuation.close()
    assert not node.related.is_subscribed
    assert node.budgets.namespaces == set()


FULL = {"a": Forecast(Fit.DOES_NOT_FIT, reason="full")}


def test_a_pod_with_data_on_its_node_leaves_without_room_and_waits_for_the_node() -> None:
    node = Node(pod("a", owner=Owner("StatefulSet", "db", "o"), host_paths=("/d",), has_host_data=True))
    node.planner.forecasts = FULL
    evaluation = node.move()
    assert (evaluation.summary.blockers, evaluation.summary.waits_for_node) == ((), ("s/a",))
    assert node.queue.sent == [("a", PodAction.EVICT)]
    node.set_pods()
    evaluation = node.move()
    assert evaluation.summary.waits_for_node == ("s/a",)


def test_a_migration_leaves_a_pod_without_room_whatever_data_is_on_its_node() -> None:
    node = Node(pod("a", owner=Owner("StatefulSet", "db", "o"), host_paths=("/d",), has_host_data=True))
    node.planner.forecasts = FULL
    assert node.move(requests={"a": "NamespacePool/shop"}).summary.waits_for_node == ()
    assert node.queue.sent == []


ANYTHING = (Toleration("", "Exists", "", ""),)
CORDONED = EvictionContext(NOW, cordoned_at=NOW)


def look(node: Node, status: NodeDrainStatus | None = None, seconds: float = 0) -> PodEvaluation:
    context = replace(CORDONED, now=NOW + timedelta(seconds=seconds))
    found = node.evacuation.evaluate(status or NodeDrainStatus(), DrainSettings(), context, MoveMode.ALL)
    assert found is not None
    return found


def successor(number: int, *, tolerates: bool = False) -> Pod:
    created = NOW + timedelta(seconds=10 + number)
    return pod(f"new-{number}", created=created, tolerations=ANYTHING if tolerates else ())


def test_a_pod_that_tolerates_the_cordon_leaves_until_its_third_successor_stays() -> None:
    node = Node(pod("old", tolerations=ANYTHING))
    found = look(node)
    for number in range(3):
        assert found.summary.existing == 1
        node.set_pods(successor(number, tolerates=True))
        found = look(node, seconds=10 + number)
        assert [len(entry.pods) for entry in found.summary.came_back] == [number + 1]
    assert (found.summary.existing, found.summary.skipped, found.summary.blockers) == (0, 1, ())
    assert [p.name for p, _ in found.summary.staying] == ["new-2"]
    assert found.summary.tolerating_left_at is None
    assert node.evacuation.moved_count == 3


def test_the_third_pod_that_ignores_the_cordon_blocks() -> None:
    node = Node(pod("old"))
    look(node)
    for number in range(3):
        node.set_pods(successor(number))
        found = look(node, seconds=10 + number)
    assert [b.class_ for b in found.summary.blockers] == [BlockerClass.REPLACEMENT_NOT_READY]
    assert found.summary.next_pods == ()


def test_pods_that_came_back_outlast_a_restart_of_the_operator() -> None:
    node = Node(pod("old"))
    look(node)
    node.set_pods(successor(0), successor(1))
    before = look(node, seconds=20).summary.came_back
    assert [entry.pods for entry in before] == [("new-0", "new-1")]
    for started_at, count in ((NOW, 3), (None, 0)):
        restarted = Node(successor(2))
        status = NodeDrainStatus(started_at=started_at, came_back=before)
        assert [len(entry.pods) for entry in look(restarted, status, 20).summary.came_back] == (
            [count] if count else []
        )


def test_a_released_pod_that_stays_after_all_does_not_count_as_moved() -> None:
    old = replace(released("old"), tolerations=ANYTHING)
    node = Node(old, successor(0, tolerates=True), successor(1, tolerates=True))
    node.evacuation._seen = {"old": ("s", "r1")}
    assert look(node, seconds=20).summary.existing == 3
    node.set_pods(old, successor(2, tolerates=True))
    found = look(node, seconds=21)
    assert (found.summary.existing, found.summary.skipped) == (0, 2)
    assert node.evacuation.moved_count == 2  # the two new pods that are gone


def test_the_successor_of_a_pod_that_tolerates_the_cordon_is_awaited() -> None:
    node = Node(pod("old", tolerations=ANYTHING))
    look(node)
    node.set_pods()
    assert look(node, seconds=5).summary.tolerating_left_at == NOW + timedelta(seconds=5)
    assert node.evacuation.seconds_until_recheck(NOW + timedelta(seconds=12), None) == 3
    for other in (pod("old"), replace(released("old"), tolerations=ANYTHING)):  # its replacement is on its node already
        node = Node(other)
        look(node)
        node.set_pods()
        assert look(node, seconds=5).summary.tolerating_left_at is None


def test_pods_that_wait_for_their_node_outlast_a_restart_of_the_operator() -> None:
    reported = ("s/a", "s/gone")
    begun = NodeDrainStatus(waits_for_node=reported, started_at=NOW)
    for status, found in ((begun, ("s/b", "s/gone")), (NodeDrainStatus(waits_for_node=reported), ("s/b",))):
        node = Node(pod("a"), pod("b", pinned_to_node=True))
        evaluation = node.evacuation.evaluate(status, DrainSettings(), EvictionContext(NOW), MoveMode.ALL)
        assert evaluation is not None
        assert evaluation.summary.waits_for_node == found


def test_a_pod_that_left_is_logged_and_joins_the_moves() -> None:
    node = Node(released("a"), pod("b"))
    node.replacer.new = pod("a2", node="n2")
    node.move()
    node.evacuation._session.sent["a"] = PodDecision(PodAction.EVICT)
    node.set_pods(pod("b"))
    with capture_logs() as logs:
        evaluation = node.evaluate()
    assert evaluation is not None
    (move,) = evaluation.summary.moves
    assert (move.pod, move.way, move.owner, move.new_pod, move.new_node) == (
        "a",
        MoveWay.REPLACED_FIRST,
        "Deployment/web",
        "a2",
        "n2",
    )
    assert evaluation.summary.moves_total == 1
    (line,) = [line for line in logs if line["event"] == "audit.move"]
    assert {
        "node": "n1",
        "podUID": "a",
        "cause": "NodeDrain/n1",
        "policy": "default",
        "pod": "a",
    }.items() <= line.items()


def test_moves_continue_those_of_the_last_process() -> None:
    node = Node(pod("b"))
    before = Move(namespace="s", pod="a", way=MoveWay.EVICTED, left_at=NOW)
    status = NodeDrainStatus(history=DrainHistory(moves=(before,), moves_total=3))

    def evaluate() -> PodEvaluation | None:
        return node.evacuation.evaluate(status, DrainSettings(), EvictionContext(NOW, started_at=NOW), MoveMode.ALL)

    evaluate()
    node.set_pods()
    evaluation = evaluate()
    assert evaluation is not None
    assert [move.pod for move in evaluation.summary.moves] == ["a", "b"]
    assert evaluation.summary.moves_total == 4


def test_a_pod_that_leaves_in_mode_audit_is_no_move() -> None:
    node = Node(pod("b"))
    node.evaluate(MoveMode.NONE)
    node.set_pods()
    with capture_logs() as logs:
        evaluation = node.evaluate(MoveMode.NONE)
    assert evaluation is not None
    assert evaluation.summary.moves == ()
    assert not [line for line in logs if line["event"] == "audit.move"]


CHAINED = DrainSettings(chain_moves=1)
OFFER = ChainMove("s/api", "api", "n7", for_pod="s/a", for_uid="a", for_node="n1")


def chained(node: Node, mode: MoveMode = MoveMode.ALL, **more: Any) -> PodEvaluation:
    evaluation = node.evacuation.evaluate(NodeDrainStatus(started_at=NOW), CHAINED, EvictionContext(NOW), mode, **more)
    assert evaluation is not None
    return evaluation


def test_chain_move_begins_if_the_plan_offers_it_and_its_pod_waits() -> None:
    node = Node(pod("a"), pod("b"))
    node.planner.forecasts, node.planner.offer = FULL, OFFER
    node.replacer.decisions = {"a": ReplacementDecision(ReplacementStep.RELEASE)}
    evaluation = chained(node)
    assert [(move.pod, str(move.state)) for move in evaluation.summary.chain_moves] == [("api", "Moving")]
    assert evaluation.replacement_decisions["a"].step is ReplacementStep.WAIT
    assert evaluation.sends(pod("b"))
    chained(node)
    assert node.planner.chain_requests == [ChainRequest(1, frozenset()), ChainRequest(0, frozenset({"api"}))]


@pytest.mark.parametrize("more", [{"mode": MoveMode.NONE}, {"mode": MoveMode.BEGUN_ONLY}, {"migration_requests": {}}])
def test_no_chain_move_begins_without_a_drain_that_moves_pods(more: dict[str, Any]) -> None:
    node = Node(pod("a"))
    node.planner.forecasts, node.planner.offer = FULL, OFFER
    assert chained(node, **more).summary.chain_moves == ()
    assert node.planner.chain_requests == [ChainRequest()]


def test_end_of_a_chain_move_is_recorded_and_a_new_plan_is_made() -> None:
    node = Node(pod("a"))
    node.planner.forecasts, node.planner.offer = FULL, OFFER
    chained(node)
    node.evacuation._deps.chain_outcomes.record("api", "n1")
    assert [str(move.state) for move in chained(node).summary.chain_moves] == ["Moved"]
    assert node.planner.replans == 1


def test_chain_moves_of_the_last_process_count() -> None:
    node = Node(pod("a"))
    node.planner.forecasts = FULL
    (move,) = chain_progress.begin_move((), OFFER, CHAINED, NOW)
    status = NodeDrainStatus(started_at=NOW, chain_moves=(move,))
    evaluation = node.evacuation.evaluate(status, CHAINED, EvictionContext(NOW), MoveMode.ALL)
    assert evaluation is not None
    assert evaluation.summary.chain_moves == (move,)
    assert node.planner.chain_requests == [ChainRequest(0, frozenset({"api"}))]
