"""Simulated pools under several schedulers: every pool settles."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from statistics import mean
from typing import Any

import pytest

from rescheduler.api.policies import DrainSettings
from rescheduler.core.eviction.pod_actions import EvictionContext
from rescheduler.core.model import disruption_budgets
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.listed_pods import parse_listed_pod
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.resource_requests import PodSize
from rescheduler.core.rebalance import candidates as rebalance_candidates
from rescheduler.core.rebalance import progress, selection
from rescheduler.core.rebalance.place_guard import count_places
from rescheduler.core.rebalance.progress import RebalanceProgress
from rescheduler.core.rebalance.selection import PlannedMove, Thresholds
from rescheduler.core.rebalance.utilization import CpuMemory, NodeLoad, node_load, standard_deviation
from rescheduler.core.replacement.move_history import MoveHistory

GI = 2**30
BOUNDS = Thresholds(high=0.8, low=0.5)
LONG_AGO, NOW = "2025-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)
STAY = ("DaemonSet", "Job", "bare", "protected", "critical", "claim", "no budget")
"""Kinds of apps of which no pod may be moved."""


@dataclass
class App:
    """Equal pods. `kind`: Deployment, StatefulSet, or one of STAY; `room`: disruptions that its budget allows."""

    name: str
    kind: str
    cpu: int
    memory: int
    replicas: int
    room: int | None = None


@dataclass
class World:
    """Pool with the current and the former node of each pod, by name."""

    random: Random
    scheduler: str
    nodes: dict[str, Node] = field(default_factory=dict)
    apps: dict[str, App] = field(default_factory=dict)
    of: dict[str, App] = field(default_factory=dict)
    at: dict[str, str] = field(default_factory=dict)
    paths: dict[str, list[str]] = field(default_factory=dict)
    born: dict[str, datetime] = field(default_factory=dict)
    now: datetime = NOW
    moved: Counter[str] = field(default_factory=Counter)
    spreads: list[float] = field(default_factory=list)

    def add(self, app: App, number: int, node: str) -> None:
        self.apps[app.name] = app
        name = f"{app.name}-{number}"
        self.of[name] = app
        self.at[name], self.paths[name] = node, [node]

    def app(self, name: str) -> App:
        return self.of[name]

    def raw(self, name: str) -> dict[str, Any]:
        app = self.app(name)
        kind = {"Deployment": "ReplicaSet", "protected": "ReplicaSet", "critical": "ReplicaSet"}.get(app.kind, app.kind)
        kind = "StatefulSet" if app.kind in ("claim", "no budget") else kind
        owner = {"kind": kind, "name": app.name, "uid": app.name, "controller": True}
        volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": name}}] if app.kind == "claim" else []
        requests = {"cpu": f"{app.cpu}m", "memory": str(app.memory)}
        return {
            "metadata": {
                "namespace": "s",
                "name": name,
                "uid": name,
                "creationTimestamp": self.born[name].isoformat() if name in self.born else LONG_AGO,
                "labels": {"app": app.name, "pod-template-hash": "a"},
                "annotations": {"rescheduler.dev/do-not-disrupt": "true"} if app.kind == "protected" else {},
                "ownerReferences": [] if app.kind == "bare" else [owner],
            },
            "spec": {
                "nodeName": self.at[name],
                "containers": [{"name": "app", "resources": {"requests": requests}}],
                "priority": 2_000_000_000 if app.kind == "critical" else 0,
                "volumes": volumes,
            },
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }

    def loads(self) -> list[NodeLoad]:
        asked: dict[str, Counter[str]] = defaultdict(Counter)
        sizes: dict[str, Counter[PodSize]] = defaultdict(Counter)
        for name, node in self.at.items():
            app = self.app(name)
            asked[node].update({"cpu": app.cpu, "memory": app.memory, "pods": 1})
            sizes[node][app.cpu, app.memory] += app.kind != "DaemonSet"
        return [node_load(node, asked[name], pod_sizes=sizes[name]) for name, node in self.nodes.items()]

    def budgets(self) -> list[DisruptionBudget]:
        return [
            disruption_budgets.parse_budget(
                {
                    "metadata": {"namespace": "s", "name": app.name, "uid": app.name},
                    "spec": {"selector": {"matchLabels": {"app": app.name}}},
                    "status": {"disruptionsAllowed": app.room, "currentHealthy": app.replicas},
                }
            )
            for app in self.apps.values()
            if app.room is not None
        ]

    def place(self, app: App, avoid: Iterable[str], node_of: str = "") -> str | None:
        """Return the node that a scheduler chooses; weights 3 for taints, 2 for spread, 1 for room and balance."""
        scores = []
        alike = Counter(node for name, node in self.at.items() if self.app(name) is app)
        asked = {"cpu": app.cpu, "memory": app.memory}
        for each in self.loads():
            if each.has_room_for(asked) and each.name != node_of:
                then = (each.requested + CpuMemory.from_amounts(asked)) / each.allocatable
                full = 50 * then.sum
                score = 0 if each.name in avoid else 300
                score += int(full if self.scheduler == "packs" else 100 - full)
                score += int(100 - 50 * abs(then.cpu - then.memory))
                if self.scheduler == "spreads" and alike:
                    score += int(200 - 200 * alike[each.name] / max(alike.values()))
                scores.append((score, self.random.random(), each.name))
        return max(scores)[2] if scores else None

    def move(self, shifts: Iterable[PlannedMove]) -> list[PlannedMove]:
        """Move pods, replacement first or within the budget; return the pods that left their node."""
        shifts = tuple(shifts)
        avoid = {shift.candidate.pod.node for shift in shifts}
        missing: Counter[str] = Counter()
        done: list[PlannedMove] = []
        for shift in shifts:
            name, app = shift.candidate.pod.name, self.app(shift.candidate.pod.name)
            assert app.kind not in STAY
            if not shift.candidate.can_be_replaced_first:
                missing[app.name] += 1
                assert missing[app.name] <= (app.room or 0), f"the budget of {app.name} is broken"
            node = self.place(app, avoid)
            if node is None or node == self.at[name]:
                continue  # given back, or back where it was
            self.at[name], self.born[name] = node, self.now
            self.paths[name].append(node)
            self.moved[name] += 1
            done.append(shift)
            self.spreads.append(self.deviation)
        return done

    @property
    def deviation(self) -> float:
        """Return the standard deviation of the requested share, as in the benchmark."""
        found = standard_deviation(self.loads())
        return found.sum / 2


def pool(seed: int, scheduler: str = "evens out", *, sets: int = 2, filled: float | None = None) -> World:
    """Return ten nodes of different sizes, filled unevenly with pods of very different sizes."""
    random = Random(seed)
    world = World(random, scheduler)
    for number in range(10):
        size = random.choice([1, 1, 2])
        what = {"cpu": 8000 * size, "memory": 32 * GI * size, "pods": 110}
        world.nodes[f"n{number}"] = Node(f"n{number}", f"n{number}", allocatable=what)
    for number, name in enumerate(world.nodes):
        world.add(App("agent", "DaemonSet", 100, GI // 4, len(world.nodes)), number, name)
    likes = {name: random.choice([1, 1, 6, 20, 0.2]) for name in world.nodes}
    whole, asked = sum(node.allocatable["cpu"] for node in world.nodes.values()), 0
    goal = (filled or random.choice([0.5, 0.55, 0.6])) * whole
    while asked < goal:
        cpu = random.choice([50, 100, 250, 500, 1000, 2000])
        memory = int(random.choice([0.25, 0.5, 1, 1.5]) * cpu * 4 * GI / 1000)
        kind = random.choice(["Deployment"] * 8 + ["StatefulSet"] * sets + [k for k in STAY if k != "DaemonSet"])
        room = random.choice([0, 1, None]) if kind == "Deployment" else 1 if kind == "StatefulSet" else None
        app = App(f"app{len(world.apps)}", kind, cpu, memory, random.choice([1, 1, 2, 3, 5, 8]), room)
        for number in range(app.replicas):
            free = [each.name for each in world.loads() if each.has_room_for({"cpu": cpu, "memory": memory})]
            if free:
                world.add(app, number, random.choices(free, [likes[name] for name in free])[0])
            asked += cpu
    return world


def even_out(
    world: World, *, returned: frozenset[str] = frozenset(), forget: Callable[[], bool] = lambda: False
) -> int:
    """Run rounds until no pod has moved for a day; return their number. `forget`: restart after each round."""
    course: RebalanceProgress | None = None
    resting: dict[str, datetime] = {}
    lineages = MoveHistory()
    idle, rounds = 0, 0
    while idle < 3:
        assert rounds < 500, "it does not settle"
        loads = world.loads()
        course = progress.evaluate_round(None if forget() else course, loads, 1)
        found = selection.classify_nodes(loads, BOUNDS, course.roles, returned_nodes=returned)
        givers, seen = {each.name for each in found.source_nodes}, EvictionContext(world.now)
        rows = [parse_listed_pod(world.raw(name)) for name, node in world.at.items() if node in givers]
        may = [c for pod in rows if (c := rebalance_candidates.candidate_from_pod(pod, DrainSettings(), seen))]
        over = world.budgets()
        candidates = [
            c
            for c in may
            if rebalance_candidates.is_allowed_by_budgets(c, over)
            and c.owner_uid not in course.skipped_owners
            and not lineages.is_replacement(c.pod, world.now)
        ]
        left_alone = {owner for owner, until in resting.items() if until > world.now}
        most = 0 if course.is_stopped else course.batch_size
        shifts = selection.choose_moves(found, candidates, owners_cooling_down=left_alone, max_moves=most)
        if not shifts:
            course = course if left_alone else course.clear_roles()
            idle += not left_alone
            world.now += timedelta(hours=8) if not left_alone else rebalance_candidates.COOLDOWN_AFTER_MOVE
            continue
        idle, rounds = 0, rounds + 1
        done = world.move(shifts)
        for shift in done:
            lineages.record_move(shift.candidate.pod, world.now)
        course = course.begin_round(found).end_round(done)
        resting |= {shift.candidate.owner_uid: world.now + rebalance_candidates.COOLDOWN_AFTER_MOVE for shift in shifts}
        world.now += timedelta(seconds=20)
    return rounds


@cache
def evened(seed: int, scheduler: str, sets: int = 2) -> tuple[float, World]:
    """Rebalance a pool; return its deviation before, and the pool."""
    world = pool(seed, scheduler, sets=sets)
    before = world.deviation
    even_out(world)
    return before, world


@pytest.mark.parametrize("scheduler", ["evens out", "spreads", "packs"])
@pytest.mark.parametrize("seed", range(50))
def test_every_pool_settles_and_none_oscillates(seed: int, scheduler: str) -> None:
    _, world = evened(seed, scheduler)
    for path in world.paths.values():
        assert len(path) == len(set(path)), f"a pod came back to a node that it had left: {path}"
    if scheduler == "evens out":
        assert even_out(world) == 0, "an operator that starts anew moves pods again"


@pytest.mark.parametrize("scheduler", ["evens out", "spreads"])
@pytest.mark.parametrize("seed", range(50))
def test_pools_become_more_even_and_never_less(seed: int, scheduler: str) -> None:
    before, world = evened(seed, scheduler)
    assert world.deviation <= before
    assert max(world.moved.values(), default=0) <= 2


@pytest.mark.parametrize("seed", range(25))
def test_places_for_the_largest_pods_remain(seed: int) -> None:
    world = pool(seed, filled=0.75)
    before = world.loads()
    size = max(size for load in before for size, count in load.pod_sizes.items() if count)
    needed = max(load.pod_sizes.get(size, 0) for load in before)
    places = sum(count_places(load, size) for load in before)
    even_out(world)
    assert sum(count_places(load, size) for load in world.loads()) >= min(places, needed)


def test_a_packing_scheduler_stops_rebalancing_after_a_few_moves() -> None:
    moves = [sum(evened(seed, "packs")[1].moved.values()) for seed in range(20)]
    assert mean(moves) < 3
    assert max(moves) < 10


def as_they_come(world: World) -> list[float]:
    """Evict like LowNodeUtilization of the descheduler: pod after pod off nodes above high, until they are below.

    Return the deviation after each eviction.
    """
    found = [world.deviation]
    for _ in range(20):
        loads = world.loads()
        low = [each for each in loads if each.sustained_utilization.max_share < BOUNDS.low]
        high = sorted(
            (each for each in loads if each.sustained_utilization.max_share > BOUNDS.high),
            key=lambda each: -each.requested.memory,
        )
        left = CpuMemory()
        for each in low:
            left = left + CpuMemory(BOUNDS.high, BOUNDS.high) * each.allocatable - each.requested
        gone: list[str] = []
        for each in high:
            names = [n for n, node in world.at.items() if node == each.name and world.app(n).kind not in STAY]
            world.random.shuffle(names)
            asked = each.requested
            for name in names:
                if (asked / each.allocatable).max_share <= BOUNDS.high or min(left.cpu, left.memory) <= 0:
                    break
                size = CpuMemory(world.app(name).cpu, world.app(name).memory)
                asked, left = asked - size, left - size
                gone.append(name)
        if not gone:
            break
        for name in gone:
            world.at.pop(name)
        for name in gone:
            world.at[name] = world.place(world.app(name), ()) or "n0"
            found.append(world.deviation)
    return found


@pytest.mark.parametrize("scheduler", ["evens out", "spreads"])
def test_half_of_the_moves_of_the_descheduler_suffice(scheduler: str) -> None:
    """Compare the moves to the deviation that both reach, with pods that can be replaced first."""
    ours, theirs = 0, 0
    for seed in range(25):
        before, world = evened(seed, scheduler, sets=0)
        other = as_they_come(pool(seed, scheduler, sets=0))
        mine = [before, *world.spreads]
        both = max(min(mine), min(other)) + 1e-9
        ours += next(n for n, deviation in enumerate(mine) if deviation <= both)
        theirs += next(n for n, deviation in enumerate(other) if deviation <= both)
    assert ours <= theirs / 2


@pytest.mark.parametrize("seed", range(5))
def test_an_operator_that_restarts_after_each_round_settles(seed: int) -> None:
    world = pool(seed)
    even_out(world, forget=lambda: True)
    assert all(len(path) == len(set(path)) for path in world.paths.values())


@pytest.mark.parametrize("seed", range(10))
def test_a_node_back_from_maintenance_is_filled_again(seed: int) -> None:
    world = pool(seed)
    even_out(world)
    back = world.random.choice(list(world.nodes))
    for name in [name for name, node in world.at.items() if node == back and world.app(name).kind != "DaemonSet"]:
        world.at[name] = world.place(world.app(name), (), node_of=back) or back
    if any(node == back and world.app(name).kind != "DaemonSet" for name, node in world.at.items()):
        pytest.skip("no room to drain it")
    even_out(world, returned=frozenset({back}))
    shares = {each.name: each.sustained_utilization for each in world.loads()}
    together = mean([share.sum / 2 for share in shares.values()])
    assert shares[back].sum / 2 > together / 2
