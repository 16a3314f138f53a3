"""Progress of rebalancing: larger rounds while moves help, and a stop if they do not."""

from rescheduler.core.model.nodes import Node
from rescheduler.core.model.pods import Pod
from rescheduler.core.rebalance.progress import MAX_BATCH_SIZE, RebalanceProgress, evaluate_round
from rescheduler.core.rebalance.selection import Candidate, NodeRoles, Thresholds, choose_moves, classify_nodes
from rescheduler.core.rebalance.utilization import CpuMemory, NodeLoad, node_load

BOUNDS = Thresholds(0.8, 0.5)


def loads(**shares: int) -> list[NodeLoad]:
    return [
        node_load(Node(name, name, allocatable={"cpu": 10_000, "pods": 9}), {"cpu": share * 100})
        for name, share in shares.items()
    ]


def rounds(*after: dict[str, int], generation: int = 1) -> RebalanceProgress:
    """Run rounds of one pod of 30 each, off a node of 90; the arguments are the loads after each round."""
    before = loads(a=90, b=0)
    course = evaluate_round(None, before, 1)
    for shares in after:
        found = classify_nodes(before, BOUNDS, course.roles)
        shifts = choose_moves(found, [Candidate(Pod("s", "p", "p", node="a"), {"cpu": 3000})])
        course = evaluate_round(course.begin_round(found).end_round(shifts), loads(**shares), generation)
    return course


def test_rounds_begin_with_one_pod_and_double_while_they_help() -> None:
    assert rounds().batch_size == 1
    assert rounds({"a": 60, "b": 30}).batch_size == 2
    assert rounds(*[{"a": 60, "b": 30}] * 9).batch_size == MAX_BATCH_SIZE


AS_BEFORE = {"a": 90, "b": 0}


def test_a_failed_round_resets_the_batch_and_skips_the_owner() -> None:
    course = rounds({"a": 60, "b": 30}, AS_BEFORE)
    assert not course.is_stopped
    assert course.batch_size == 1
    assert course.skipped_owners == {"p"}


def test_two_failed_rounds_in_a_row_stop_rebalancing() -> None:
    assert rounds(AS_BEFORE, AS_BEFORE).is_stopped
    assert not rounds(AS_BEFORE, {"a": 60, "b": 30}, AS_BEFORE).is_stopped


def test_half_of_the_expected_gain_is_enough() -> None:
    assert rounds({"a": 75, "b": 15}).failed_rounds == 0  # of 0.36, 0.225
    assert rounds({"a": 82, "b": 8}).failed_rounds == 1


def test_rebalancing_stays_stopped_until_the_group_changes() -> None:
    resting = rounds(AS_BEFORE, AS_BEFORE)
    assert evaluate_round(resting, loads(a=90, b=4), 1).is_stopped
    assert not evaluate_round(resting, loads(a=90, b=11), 1).is_stopped  # 5.5% more is asked
    assert not evaluate_round(resting, loads(a=90, b=0, c=0), 1).is_stopped
    assert not evaluate_round(resting, loads(a=90, c=0), 1).is_stopped
    assert not evaluate_round(resting, loads(a=90, b=0), 2).is_stopped


def test_a_round_without_moves_does_not_count() -> None:
    course = evaluate_round(None, loads(a=90, b=0), 1)
    course = course.begin_round(classify_nodes(loads(a=90, b=0), BOUNDS)).end_round([])
    assert evaluate_round(course, loads(a=90, b=0), 1).batch_size == 1


def test_roles_are_kept_until_nothing_is_left_to_move() -> None:
    course = rounds({"a": 60, "b": 30})
    assert course.roles == NodeRoles(frozenset({"a"}), frozenset({"b"}))
    assert course.clear_roles().roles == NodeRoles()


def test_moves_by_usage_may_worsen_the_imbalance_by_requests() -> None:
    """The busy node has fewer requests than the idle node: by requests, the move increases the imbalance."""
    node = Node("a", "a", allocatable={"cpu": 10_000, "pods": 9})
    other = Node("b", "b", allocatable={"cpu": 10_000, "pods": 9})
    before = [
        node_load(node, {"cpu": 3000}, [CpuMemory(9000, 0)] * 3),
        node_load(other, {"cpu": 4000}, [CpuMemory(500, 0)] * 3),
    ]
    found = classify_nodes(before, BOUNDS)
    shifts = choose_moves(found, [Candidate(Pod("s", "p", "p", node="a"), {"cpu": 500})])
    course = evaluate_round(None, before, 1).begin_round(found).end_round(shifts)
    assert not evaluate_round(course, [node_load(node, {"cpu": 2500}), node_load(other, {"cpu": 4500})], 1).is_stopped
