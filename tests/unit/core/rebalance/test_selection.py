"""Source nodes, destination nodes, and the pods that move."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.core.model.node_affinity import NodeConstraints
from rescheduler.core.model.nodes import Node, Taint
from rescheduler.core.model.pods import Owner, Pod
from rescheduler.core.model.resource_requests import ResourceList
from rescheduler.core.rebalance.likely_destinations import LikelyDestinations
from rescheduler.core.rebalance.selection import (
    MAX_MIN_GAIN,
    Candidate,
    NodeRoles,
    PlannedMove,
    Thresholds,
    choose_moves,
    classify_nodes,
    min_gain,
)
from rescheduler.core.rebalance.utilization import CpuMemory, NodeLoad, imbalance, node_load

GI = 2**30
BOUNDS = Thresholds(high=0.8, low=0.5)


class Pool:
    """Nodes of 10 CPUs and 10 Gi with a fixed load and pods; CPU and memory in hundredths of a node."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.asked: dict[str, Counter[str]] = {}
        self.candidates: list[Candidate] = []

    def node(self, name: str, stays: int | tuple[int, int] = 0, *pods: int | tuple[int, int], **changes: Any) -> "Pool":
        what = {"cpu": 10_000, "memory": 10 * GI, "pods": 110}
        self.nodes[name], self.asked[name] = Node(name, name, allocatable=what, **changes), Counter(_asked(stays))
        for each in pods:
            self.pod(name, each)
        return self

    def pod(self, node: str, size: int | tuple[int, int], owner: str = "", **changes: Any) -> "Pool":
        asked = _asked(size)
        self.asked[node].update(asked, pods=1)
        name = f"p{len(self.candidates) + 1}"
        pod = Pod("s", name, name, node=node, owner=Owner("ReplicaSet", owner or name, owner or name))
        self.candidates.append(Candidate(pod, asked, **changes))
        return self

    def move(self, requests: ResourceList, source: str, destination: str) -> None:
        self.asked[source].subtract({**requests, "pods": 1})
        self.asked[destination].update({**requests, "pods": 1})

    def loads(self, usage: dict[str, CpuMemory] | None = None) -> list[NodeLoad]:
        used = usage or {}
        return [
            node_load(n, self.asked[n.name], [used[n.name]] * 3 if n.name in used else ()) for n in self.nodes.values()
        ]

    def choose(self, roles: NodeRoles | None = None, returned: frozenset[str] = frozenset(), **how: Any) -> list[str]:
        found = classify_nodes(self.loads(), BOUNDS, roles, returned_nodes=returned)
        return [name(shift) for shift in choose_moves(found, self.candidates, **{"max_moves": 8, **how})]


def _asked(size: int | tuple[int, int]) -> dict[str, int]:
    cpu, memory = size if isinstance(size, tuple) else (size, size)
    return {"cpu": cpu * 100, "memory": memory * GI // 10}


def name(shift: PlannedMove) -> str:
    return shift.candidate.pod.name


def test_a_node_above_high_gives_and_one_below_low_takes() -> None:
    found = classify_nodes(Pool().node("full", 81).node("even", 79).node("empty", 49).loads(), BOUNDS)
    assert [load.name for load in found.source_nodes] == ["full"]
    assert [load.name for load in found.destination_nodes] == ["empty"]


@pytest.mark.parametrize(("full", "empty"), [(80, 49), (81, 50), (20, 10), (95, 90)])
def test_between_the_thresholds_no_pod_moves(full: int, empty: int) -> None:
    assert classify_nodes(Pool().node("full", full).node("empty", empty).loads(), BOUNDS).has_nothing_to_move


def test_one_resource_above_high_is_full_both_below_low_are_empty() -> None:
    pool = Pool().node("full", (81, 10)).node("half", (10, 60)).node("empty", (10, 49))
    found = classify_nodes(pool.loads(), BOUNDS)
    assert [load.name for load in found.source_nodes] == ["full"]
    assert [load.name for load in found.destination_nodes] == ["empty"]


def test_the_pod_with_the_largest_gain_moves_first() -> None:
    pool = Pool().node("full", 0, 5, 30, 40, 10).node("empty")
    assert pool.choose() == ["p3"]


def test_a_pod_that_would_only_swap_the_nodes_stays() -> None:
    assert Pool().node("full", 5, 80).node("empty", 20).choose() == []


def test_a_pod_with_too_small_a_gain_stays() -> None:
    """The gain of one resource is 2 x share x (gap - share): 0.01 at least."""
    assert Pool().node("full", (83, 83), (2, 2)).node("empty", 49).choose() == ["p1"]
    assert Pool().node("full", (84, 84), (1, 1)).node("empty", 49).choose() == ["p1"]
    assert Pool().node("full", (84, 85), (1, 0)).node("empty", 49).choose() == []
    assert Pool().node("full", (84, 85), (1, 0)).node("empty").choose() == ["p1"]


def test_the_minimum_gain_follows_the_mean_pod_and_the_thresholds() -> None:
    """A pod of mean size moves if the nodes differ by three quarters of the distance from low to high."""
    small = Pool().node("full", 0, *[1] * 85).node("empty", 0, *[1] * 5)
    assert min_gain(classify_nodes(small.loads(), Thresholds(0.85, 0.75))) == pytest.approx(2 * 0.02 * 0.075)
    assert min_gain(classify_nodes(small.loads(), Thresholds(0.8, 0.3))) == MAX_MIN_GAIN
    large = Pool().node("full", 0, 25, 60).node("empty")
    assert min_gain(classify_nodes(large.loads(), BOUNDS)) == MAX_MIN_GAIN


def test_pods_without_requests_do_not_lower_the_minimum_gain_to_nothing() -> None:
    pool = Pool().node("full", 81, *[0] * 100).node("empty", 0, *[0] * 100)
    assert min_gain(classify_nodes(pool.loads(), Thresholds(0.8, 0.79))) == pytest.approx(0.001)


def test_a_pool_of_small_pods_reaches_a_narrow_band() -> None:
    """All pods have 1% of a node. With a minimum gain of 0.01 they would stop with all three nodes above 95%."""
    band = Thresholds(0.95, 0.85)
    pool = Pool().node("empty", 0, *[1] * 70)
    for node in "abc":
        pool.node(node, 0, *[1] * 99)
    moves = 0
    for _ in range(60):
        classification = classify_nodes(pool.loads(), band, NodeRoles(frozenset("abc"), frozenset({"empty"})))
        chosen = choose_moves(classification, pool.candidates)
        if not chosen:
            break
        pool.move(chosen[0].candidate.requests, chosen[0].candidate.pod.node, "empty")
        pool.candidates.remove(chosen[0].candidate)
        moves += 1
    assert all(load.sustained_utilization.max_share <= band.high for load in pool.loads())
    assert moves < 20


def test_a_pod_moves_only_if_every_likely_destination_helps() -> None:
    """A pod of 30 from 84 to 53 would only swap the nodes, and the scheduler may choose 53 instead of 49."""
    assert Pool().node("full", (54, 50), (30, 0)).node("near", (53, 40)).node("empty", (49, 40)).choose() == []


def test_a_node_that_the_scheduler_hardly_chooses_does_not_count() -> None:
    assert Pool().node("full", (54, 50), (30, 0)).node("far", (56, 40)).node("empty", (49, 40)).choose() == ["p1"]


def test_a_node_that_would_exceed_high_takes_no_pod() -> None:
    assert Pool().node("full", (50, 40), (40, 33)).node("empty", (0, 49)).choose() == []
    assert Pool().node("full", (50, 40), (40, 30)).node("empty", (0, 49)).choose() == ["p1"]


def test_a_node_that_cannot_take_the_pod_does_not_count() -> None:
    pool = Pool().node("full", 48).node("half", 48, labels={"disk": "hdd"}).node("empty", labels={"disk": "ssd"})
    assert pool.pod("full", 37, node_constraints=NodeConstraints({"nodeSelector": {"disk": "ssd"}})).choose() == ["p1"]


def test_a_pod_that_fits_nowhere_stays() -> None:
    pool = Pool().node("full", 60).node("empty", taints=(Taint("own", "", "NoSchedule"),))
    assert pool.pod("full", 30).choose() == []
    tolerated = [{"key": "own", "operator": "Exists"}]
    assert pool.pod("full", 31, node_constraints=NodeConstraints({"tolerations": tolerated})).choose() == ["p2"]


def test_a_node_with_prefer_no_schedule_takes_no_pod() -> None:
    taint = Taint("DeletionCandidateOfClusterAutoscaler", "1", "PreferNoSchedule")
    assert Pool().node("full", 60, 30).node("empty", taints=(taint,)).choose() == []


def test_a_node_without_room_for_more_pods_takes_none() -> None:
    pool = Pool().node("full", 60, 30).node("empty")
    pool.asked["empty"]["pods"] = 110
    assert pool.choose() == []


def test_a_round_has_one_move_for_each_source_node_and_owner() -> None:
    pool = Pool().node("a", 60).node("b", 60).node("c", 60).node("x").node("y")
    for node in "abc":
        pool.pod(node, 20, owner=node).pod(node, 20, owner=node)
    assert pool.choose() == ["p1", "p3", "p5"]
    pool.candidates = [
        Candidate(
            Pod("s", c.pod.name, c.pod.name, node=c.pod.node, owner=Owner("ReplicaSet", "web", "web")), c.requests
        )
        for c in pool.candidates
    ]
    assert len(pool.choose()) == 1


def test_each_move_counts_for_the_next_move_of_the_round() -> None:
    """Two pods of 45 from nodes of 85 find one empty node: after the first, the second would only swap the nodes."""
    assert Pool().node("a", 40, 45).node("b", 40, 45).node("empty").choose() == ["p1"]
    assert Pool().node("a", 40, 45).node("b", 40, 45).node("x").node("y").choose() == ["p1", "p2"]


_shares = st.integers(0, 45)
_pods = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=4)


@given(st.lists(st.tuples(st.tuples(_shares, _shares), _pods), min_size=2, max_size=8), st.integers(1, 8))
def test_each_move_lowers_the_imbalance_on_each_likely_destination(
    rows: list[tuple[tuple[int, int], list[tuple[int, int]]]], max_moves: int
) -> None:
    pool = Pool()
    for n, (stays, pods) in enumerate(rows):
        pool.node(f"n{n}", stays, *pods)
    classification = classify_nodes(pool.loads(), BOUNDS)
    for move in choose_moves(classification, pool.candidates, max_moves=max_moves):
        before, requests, source = imbalance(pool.loads()), move.candidate.requests, move.candidate.pod.node
        likely = LikelyDestinations(pool.loads()).likely(requests, NodeConstraints(), source)
        for node in reversed(likely):  # the expected one is the last and remains
            pool.move(requests, source, node.name)
            gain = before - imbalance(pool.loads())
            assert gain >= min_gain(classification) - 1e-9
            if node is not likely[0]:
                pool.move(requests, node.name, source)
        assert gain == pytest.approx(move.balance_gain)


def test_a_round_has_no_more_moves_than_the_batch_size() -> None:
    pool = Pool().node("a", 60, 30).node("b", 60, 30).node("x").node("y")
    assert len(pool.choose(max_moves=1)) == 1


def test_pods_wait_for_a_much_better_pod_in_cooldown() -> None:
    pool = Pool().node("full", 60).pod("full", 30, owner="web").node("other", 80, 5).node("empty")
    assert pool.choose(owners_cooling_down={"web"}) == []
    pool.pod("full", 25)
    assert pool.choose(owners_cooling_down={"web"}, max_moves=1) == ["p3"]


def test_pods_with_replacement_first_move_first() -> None:
    pool = Pool().node("full", 60).node("empty").pod("full", 30, can_be_replaced_first=False).pod("full", 10)
    assert pool.choose() == ["p2"]


def test_nodes_above_high_give_before_others() -> None:
    pool = Pool().node("high", 60, 22).node("less", 40, 35).node("empty")
    assert pool.choose(NodeRoles(frozenset({"less"}), frozenset()), max_moves=1) == ["p1"]


def test_started_rebalancing_continues_between_the_thresholds() -> None:
    """No node is above high or below low; a pod of 22 has a small gain between 78 and 54."""
    pool = Pool().node("was full", 46, 22, 10).node("was empty", 40, 14).node("other", 62)
    assert pool.choose() == []
    assert pool.choose(NodeRoles(frozenset({"was full"}), frozenset({"was empty"}))) == ["p2"]


def test_a_node_below_high_needs_a_larger_gain() -> None:
    begun = NodeRoles(frozenset({"was full"}), frozenset({"was empty"}))
    assert Pool().node("was full", 65, 5).node("was empty", 54).node("other", 58).choose(begun) == []
    assert Pool().node("was full", 65, 8).node("was empty", 52).node("other", 58).choose(begun) == ["p1"]


def test_other_nodes_wait_while_one_above_high_waits() -> None:
    pool = Pool().node("high", 60).pod("high", 30, owner="web").node("less", 40, 30).node("empty")
    roles = NodeRoles(frozenset({"less"}), frozenset())
    assert pool.choose(roles, owners_cooling_down={"web"}) == []


def test_roles_change_if_a_node_crosses_the_other_threshold() -> None:
    pool = Pool().node("a", 81).node("b", 49)
    found = classify_nodes(pool.loads(), BOUNDS, NodeRoles(frozenset({"b"}), frozenset({"a"})))
    assert found.roles == NodeRoles(frozenset({"a"}), frozenset({"b"}))


def test_a_returned_node_is_filled_by_nodes_above_the_mean() -> None:
    pool = Pool().node("a", 20, 20, 20).node("b", 20, 20, 20).node("c", 40).node("back")
    assert pool.choose() == []
    assert pool.choose(returned=frozenset({"back"})) == ["p1", "p3"]
    found = classify_nodes(pool.loads(), BOUNDS, returned_nodes=frozenset({"back"}))
    assert [load.name for load in found.source_nodes] == ["a", "b"]


def test_usage_decides_if_it_is_known() -> None:
    pool = Pool().node("busy", 0, *[5] * 6).node("idle", 0, *[5] * 6)
    assert classify_nodes(pool.loads(), BOUNDS).has_nothing_to_move
    used = {"busy": CpuMemory(9000, GI), "idle": CpuMemory(500, GI)}
    found = classify_nodes(pool.loads(used), BOUNDS)
    (shift,) = choose_moves(found, pool.candidates)
    assert shift.candidate.pod.node == "busy"
    assert shift.node_share.cpu == pytest.approx(0.15)  # 5 of 30 asked, of 90 used
