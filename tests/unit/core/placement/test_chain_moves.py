"""Chain moves: which other pod moves first, and laws that hold in every cluster."""

from collections.abc import Iterable, Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.resource_requests import allocated_with_pod
from rescheduler.core.placement.chain_moves import ChainPlan, find_chain_moves, nodes_to_ask
from rescheduler.core.placement.planner import Forecast, plan
from rescheduler.core.placement.pod_snapshot import ScheduledPod
from rescheduler.core.placement.problem import MovablePod, PlacementInput
from unit.builders import HOST, raw_node, raw_pod
from unit.core.placement.forecasting import DOES_NOT, FITS, affinity, placement_input


def cluster(
    nodes: Sequence[RawObject], pods: Iterable[RawObject]
) -> tuple[list[ScheduledPod], list[Forecast], PlacementInput, list[MovablePod]]:
    """Return the plan for a drain of `n`, and its other pods, all of which may move."""
    pods = list(pods)
    leaving, inputs = placement_input(nodes, pods)
    running = [raw for raw in pods if raw["spec"].get("nodeName") not in ("n", None, "")]
    movable = [MovablePod(inputs.pod_snapshot.scheduled_pod(raw), allocated_with_pod(raw)) for raw in running]
    return leaving, plan(leaving, inputs, Random(0)), inputs, movable


def chain(nodes: Sequence[RawObject], pods: Iterable[RawObject], limit: int = 1) -> ChainPlan:
    """Return the chain moves of a drain of `n`."""
    leaving, forecasts, inputs, movable = cluster(nodes, pods)
    return find_chain_moves(leaving, forecasts, inputs, {"n": movable}, {"n": limit})


def moved(found: ChainPlan) -> list[tuple[str, str]]:
    """Return the pods that move, with their nodes."""
    return [(move.pod, move.node) for move in found.moves]


def app(name: str, cpu: str, node: str = "n") -> RawObject:
    return raw_pod(name, cpu=cpu, node=node, labels={"app": name})


N1, N2 = raw_node("n1", cpu="4"), raw_node("n2", cpu="4")
LARGE = app("large", "2")


def test_pod_moves_if_that_makes_room() -> None:
    found = chain([N1, N2], [LARGE, app("web", "1", "n1"), app("api", "2", "n1"), app("db", "3", "n2")])
    assert moved(found) == [("s/web", "n1")]
    assert found.by_pod["s/large"].for_uid == found.moves[0].for_uid
    assert found.all_fit
    assert not found.moves[0].holds_others


def test_smallest_pod_moves() -> None:
    pods = [app("a", "1500m", "n1"), app("b", "1", "n1"), app("c", "500m", "n1"), app("d", "1500m", "n2")]
    assert moved(chain([N1, N2], [LARGE, app("e", "1", "n2"), *pods])) == [("s/b", "n1")]


def test_no_pod_moves_if_all_pods_fit() -> None:
    assert chain([N1, N2], [LARGE, app("web", "1", "n1")]) == ChainPlan()


def test_no_pod_moves_without_a_place_for_it() -> None:
    assert not chain([N1, N2], [LARGE, app("web", "1", "n1"), app("api", "2", "n1"), app("db", "4", "n2")]).moves


def test_no_pod_moves_onto_the_drained_node() -> None:
    assert not chain([N1], [LARGE, app("web", "1", "n1"), app("api", "2", "n1")]).moves


def test_no_pod_takes_the_place_of_a_pod_that_fits() -> None:
    pods = [app("web", "1", "n1"), app("api", "2", "n1"), app("db", "3", "n2")]
    assert moved(chain([N1, N2, raw_node("n3", cpu="1")], [LARGE, app("small", "1"), *pods]))
    assert not chain([N1, N2], [LARGE, app("small", "1"), app("other", "1"), *pods]).moves


def test_no_pod_moves_beyond_the_limit() -> None:
    pods = [LARGE, app("web", "1", "n1"), app("api", "2", "n1"), app("db", "3", "n2")]
    assert not chain([N1, N2], pods, limit=0).moves


def test_no_pod_moves_for_a_pod_that_other_pods_keep_off() -> None:
    apart = affinity("podAntiAffinity")
    pods = [raw_pod("p1", **apart), raw_pod("there", node="n1", cpu="500m", **apart), app("web", "500m", "n2")]
    full = raw_node("n2", cpu="1")
    leaving, forecasts, inputs, movable = cluster([N1, full], [*pods, app("rest", "500m", "n2")])
    assert forecasts[0].fit is DOES_NOT
    assert not find_chain_moves(leaving, [forecasts[0]], inputs, {"n": movable[:1]}, {"n": 1}).moves


def test_others_wait_if_they_would_take_the_room() -> None:
    # After `web` has left n1, 2 CPU are free there: room for `large`, or for the small pods of the drained node.
    nodes = [N1, N2, raw_node("n3", cpu="2")]
    pods = [app("web", "1", "n1"), app("api", "2", "n1"), app("db", "3", "n2"), app("log", "1", "n3")]
    small = [app(f"small{n}", "500m") for n in range(2)]
    found = chain(nodes, [LARGE, *small, *pods])
    assert moved(found)
    assert found.moves[0].holds_others


def test_others_wait_if_the_move_needs_their_place_until_it_has_left() -> None:
    only = app("only", "1")
    only["spec"]["nodeSelector"] = {HOST: "n1"}
    pods = [only, app("small", "1"), app("web", "2", "n1"), app("api", "2", "n1")]
    found = chain([N1, raw_node("n2", cpu="2")], pods)
    assert moved(found)
    assert found.moves[0].holds_others
    assert found.all_fit


def test_no_pod_moves_if_a_pending_pod_may_take_its_place() -> None:
    pending = app("pending", "1", "")
    pending["spec"]["nodeSelector"] = {HOST: "n2"}
    pods = [LARGE, app("web", "1", "n1"), app("api", "2", "n1"), app("db", "3", "n2")]
    assert moved(chain([N1, N2], pods))
    assert not chain([N1, N2], [*pods, pending]).moves


def test_two_pods_without_room_get_two_moves() -> None:
    nodes = [N1, raw_node("n2", cpu="3500m"), raw_node("n3", cpu="1"), raw_node("n4", cpu="1500m")]
    pods = [app("a", "1", "n1"), app("b", "2", "n1"), app("c", "1500m", "n2"), app("d", "1500m", "n2")]
    pods[0]["spec"]["nodeSelector"], pods[2]["spec"]["nodeSelector"] = {HOST: "n3"}, {HOST: "n4"}
    leaving = [app("large1", "2"), app("large2", "2")]
    found = chain(nodes, [*leaving, *pods], limit=2)
    assert moved(found) == [("s/a", "n1"), ("s/c", "n2")]
    assert found.all_fit
    assert len(chain(nodes, [*leaving, *pods], limit=1).moves) == 1


def test_nodes_are_asked_that_lack_least() -> None:
    pods = [LARGE, app("web", "3", "n1"), app("api", "3500m", "n2")]
    leaving, forecasts, inputs, _ = cluster([N1, N2], pods)
    assert nodes_to_ask(leaving, forecasts, inputs, {"n": ["n2", "gone"]}) == {"n2"}
    assert nodes_to_ask(leaving, forecasts, inputs, {}) == frozenset()


SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(SIZES, min_size=2, max_size=5), SIZES, st.lists(st.integers(0, 3), min_size=5, max_size=5), st.randoms()
)
def test_scheduler_places_what_a_plan_with_chain_moves_promises(
    used: list[list[int]], leaving: list[int], free: list[int], random: Random
) -> None:
    nodes = [raw_node(f"n{n}", cpu=str(sum(sizes) + free[n])) for n, sizes in enumerate(used)]
    running = [app(f"r{n}-{k}", str(cpu), f"n{n}") for n, sizes in enumerate(used) for k, cpu in enumerate(sizes)]
    pods, forecasts, inputs, movable = cluster(
        nodes, [*(app(f"p{k}", str(c)) for k, c in enumerate(leaving)), *running]
    )
    found = find_chain_moves(pods, forecasts, inputs, {"n": movable}, {"n": 1})
    promised = {pod.key for pod, forecast in zip(pods, forecasts, strict=True) if forecast.fit is FITS}
    for move in found.moves:
        assert move.for_pod not in promised
        sizes = {f"s/p{k}": cpu for k, cpu in enumerate(leaving)}
        room = {f"n{n}": free[n] for n in range(len(used))}
        node, size = move.node, next(int(m.allocated["cpu"] / 1000) for m in movable if m.pod.uid == move.uid)
        order = [pod.key for pod, _ in sorted(zip(pods, forecasts, strict=True), key=lambda row: row[1].rank)]
        order = [key for key in order if key in promised]
        early = [] if move.holds_others else order[: random.randint(0, len(order))]
        placed = {key for key in early if place(sizes[key], room, random)}
        assert place(size, {name: left for name, left in room.items() if name != node}, random, room)
        room[node] += size
        late = [key for key in order if key not in early]
        queue = [move.for_pod, *late] if move.holds_others else [*late, move.for_pod]
        placed |= {key for key in queue if place(sizes[key], room, random)}
        assert move.for_pod in placed
        assert move.holds_others or placed >= promised


def place(cpu: int, choice: dict[str, int], random: Random, room: dict[str, int] | None = None) -> bool:
    """Take the room of the emptiest node, as a scheduler that spreads pods does; return whether there is one."""
    best = max(choice, key=lambda name: (choice[name], random.random()))
    if choice[best] < cpu:
        return False
    (choice if room is None else room)[best] -= cpu
    return True
