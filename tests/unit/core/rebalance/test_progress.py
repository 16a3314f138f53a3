"""How far the evening out of a pool may go on."""

from rescheduler.core.model.nodes import Node
from rescheduler.core.model.pods import Pod
from rescheduler.core.rebalance.progress import MOST, Course, follow
from rescheduler.core.rebalance.selection import Bounds, Candidate, Roles, choose, sides
from rescheduler.core.rebalance.utilization import Load, Pair, load

BOUNDS = Bounds(0.8, 0.5)


def loads(**shares: int) -> list[Load]:
    return [
        load(Node(name, name, allocatable={"cpu": 10_000, "pods": 9}), {"cpu": share * 100})
        for name, share in shares.items()
    ]


def rounds(*after: dict[str, int], generation: int = 1) -> Course:
    """Rounds of one pod of 30 each, off a node of 90; how full the nodes were found after each."""
    before = loads(a=90, b=0)
    course = follow(None, before, 1)
    for shares in after:
        found = sides(before, BOUNDS, course.roles)
        shifts = choose(found, [Candidate(Pod("s", "p", "p", node="a"), {"cpu": 3000})])
        course = follow(course.begin(found).end(shifts), loads(**shares), generation)
    return course


def test_it_begins_with_one_pod_and_doubles_while_that_helps() -> None:
    assert rounds().allowance == 1
    assert rounds({"a": 60, "b": 30}).allowance == 2
    assert rounds(*[{"a": 60, "b": 30}] * 9).allowance == MOST


AS_BEFORE = {"a": 90, "b": 0}


def test_after_a_round_that_has_not_helped_it_is_one_pod_again_of_another_owner() -> None:
    course = rounds({"a": 60, "b": 30}, AS_BEFORE)
    assert not course.rests
    assert course.allowance == 1
    assert course.spared == {"p"}


def test_it_rests_once_two_in_a_row_have_not_helped() -> None:
    assert rounds(AS_BEFORE, AS_BEFORE).rests
    assert not rounds(AS_BEFORE, {"a": 60, "b": 30}, AS_BEFORE).rests


def test_half_of_what_was_promised_will_do() -> None:
    assert rounds({"a": 75, "b": 15}).failures == 0  # of 0.36, 0.225
    assert rounds({"a": 82, "b": 8}).failures == 1


def test_it_rests_until_the_pool_has_changed() -> None:
    resting = rounds(AS_BEFORE, AS_BEFORE)
    assert follow(resting, loads(a=90, b=4), 1).rests
    assert not follow(resting, loads(a=90, b=11), 1).rests  # 5.5% more is asked
    assert not follow(resting, loads(a=90, b=0, c=0), 1).rests
    assert not follow(resting, loads(a=90, c=0), 1).rests
    assert not follow(resting, loads(a=90, b=0), 2).rests


def test_a_round_that_moved_nothing_says_nothing() -> None:
    course = follow(None, loads(a=90, b=0), 1)
    course = course.begin(sides(loads(a=90, b=0), BOUNDS)).end([])
    assert follow(course, loads(a=90, b=0), 1).allowance == 1


def test_who_gives_and_takes_is_remembered_until_it_settles() -> None:
    course = rounds({"a": 60, "b": 30})
    assert course.roles == Roles(frozenset({"a"}), frozenset({"b"}))
    assert course.settle().roles == Roles()


def test_moves_for_the_sake_of_usage_may_leave_requests_as_uneven_as_they_promised() -> None:
    """The busy node asks for less than the idle one: by requests alone the move makes it worse."""
    node = Node("a", "a", allocatable={"cpu": 10_000, "pods": 9})
    other = Node("b", "b", allocatable={"cpu": 10_000, "pods": 9})
    before = [load(node, {"cpu": 3000}, [Pair(9000, 0)] * 3), load(other, {"cpu": 4000}, [Pair(500, 0)] * 3)]
    found = sides(before, BOUNDS)
    shifts = choose(found, [Candidate(Pod("s", "p", "p", node="a"), {"cpu": 500})])
    course = follow(None, before, 1).begin(found).end(shifts)
    assert not follow(course, [load(node, {"cpu": 2500}), load(other, {"cpu": 4500})], 1).rests
