"""Measure plans for a real cluster that is nearly full, next to what is possible.

The cluster is M3 of RASA without the machines that are used less than a share of their CPU. Each machine is drained in
turn. Pods come to the scheduler in the order of the plan. Three results stand next to each other:

- promised: the plan says `Fits` for all pods of the machine
- emptied: a scheduler places all of them, either the real one or an emulation of it
- possible: some assignment places all of them without moving another pod; OR-tools proves it or the opposite
"""

import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

import urllib3

from bench.common import say
from bench.rasa import MAX_PODS, RasaCluster, RasaPod
from harness import ControlPlane
from harness.random_clusters import HOST, RandomCluster
from harness.scheduler_check import Score, compare_with_scheduler, score_of
from harness.scheduler_results import RealScheduler
from rescheduler.core.model import nodes as model_nodes
from rescheduler.core.placement.planner import Fit, plan
from rescheduler.core.placement.pod_requirements import PodRequirementsParser
from rescheduler.core.placement.pod_snapshot import PodSnapshot, ScheduledPod
from rescheduler.core.placement.problem import PlacementInput

SHARES = (0.90, 0.92)  # of CPU that the requests of each machine use at least
SEEDS = 3
TOGETHER, SETS = (4, 6, 8, 10), 6  # machines drained at once, and random sets of them
_SOLVER_SECONDS = 10.0
_SPACE = "one"


@dataclass(frozen=True, slots=True)
class Emptied:
    """Number of drains that a scheduler found places for all pods of, and the score of their plans."""

    drains: int = 0
    score: Score = field(default_factory=Score)

    def with_score(self, score: Score) -> "Emptied":
        """Return the numbers with one more drain."""
        return Emptied(self.drains + (score.placed == score.pods), self.score + score)


def optimum(cluster: RasaCluster, *, real: bool = True) -> dict[str, Any]:
    """Return the results for single machines, and for several at once; `real`: ask the real scheduler too."""
    found: dict[str, Any] = {}
    for share in SHARES:
        rest = cluster.fuller_than(share)
        found[f"{share:.0%}"] = _single_machines(rest) | ({"real": _real(rest)} if real else {})
        say(f"machines used at least {share:.0%}: {found[f'{share:.0%}']}")
    found["at once"] = {str(count): _at_once(cluster, count) for count in TOGETHER}
    return found


def _single_machines(cluster: RasaCluster) -> dict[str, Any]:
    return _drained(cluster, [{machine} for machine in range(len(cluster.machines))])


def _at_once(cluster: RasaCluster, count: int) -> dict[str, Any]:
    random = Random(count)
    found = _drained(cluster, [set(random.sample(range(len(cluster.machines)), count)) for _ in range(SETS)])
    say(f"{count} machines at once: {found}")
    return found


def _drained(cluster: RasaCluster, drains: Sequence[Collection[int]]) -> dict[str, Any]:
    """Return the results of these drains, each on its own."""
    promised, emulated, possible = 0, [Emptied() for _ in range(SEEDS)], Counter[bool | None]()
    by_size: dict[str, list[int]] = {"large pods first": [0] * SEEDS, "small pods first": [0] * SEEDS}
    for machines in drains:
        leaving, inputs = placement_input(cluster, machines)
        forecasts = sorted(zip(leaving, plan(leaving, inputs), strict=True), key=lambda pair: pair[1].rank)
        promised += all(forecast.fit is Fit.FITS for _, forecast in forecasts)
        pods = {f"{_SPACE}/{pod.name}": pod for pod in cluster.pods if pod.machine in machines}
        order = [pods[pod.key] for pod, _ in forecasts]
        results = [
            score_of(forecasts, set(placed_pods(cluster, machines, order, Random(seed)))) for seed in range(SEEDS)
        ]
        emulated = [before.with_score(score) for before, score in zip(emulated, results, strict=True)]
        for sign, counts in zip((-1, 1), by_size.values(), strict=True):
            order.sort(key=lambda pod, sign=sign: sign * _size(cluster, pod))  # type: ignore[misc]
            for seed in range(SEEDS):
                counts[seed] += len(placed_pods(cluster, machines, order, Random(seed))) == len(order)
        is_possible = any(score.placed == score.pods for score in results) or _is_possible(cluster, machines)
        possible[is_possible] += 1
    return {
        "drains": len(drains),
        "promised": promised,
        "possible": possible[True],
        "not known to be possible": possible[None],
        "emulated": [asdict(each) for each in emulated],
        "emulated in other orders": by_size,
    }


def placement_input(cluster: RasaCluster, machines: Collection[int]) -> tuple[list[ScheduledPod], PlacementInput]:
    """Return the pods of the drained machines, and the input of a plan for them."""
    drained = sorted(node_name(machine) for machine in machines)
    snapshot = PodSnapshot(PodRequirementsParser(), drained)
    for raw in (*_staying(cluster, machines), *_leaving(cluster, machines)):
        snapshot.add({**raw, "metadata": {**raw["metadata"], "uid": raw["metadata"]["name"]}})
    nodes = [model_nodes.parse_node(_node(cluster, n, cordoned=n in machines)) for n in range(len(cluster.machines))]
    leaving = [pod for name in drained for pod in snapshot.pods_by_node[name]]
    return leaving, PlacementInput({node.name: node for node in nodes}, snapshot)


# -- objects ----------------------------------------------------------------------------------------------------------


def node_name(machine: int) -> str:
    return f"m{machine}"


def _node(cluster: RasaCluster, machine: int, *, cordoned: bool) -> dict[str, Any]:
    cpu, memory = cluster.machines[machine]
    merged = 0 if cordoned else max(0, sum(pod.machine == machine for pod in cluster.pods) - 1)
    size = {"cpu": f"{cpu}m", "memory": f"{memory}Mi", "pods": str(MAX_PODS - merged)}
    ready = {"type": "Ready", "status": "True", "reason": "Benchmark", "message": ""}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node_name(machine), "labels": {HOST: node_name(machine)}},
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {"allocatable": size, "capacity": size, "conditions": [ready]},
    }


def pod_body(name: str, service: str, cpu: int, memory: int, machine: int) -> dict[str, Any]:
    requests = {"cpu": f"{cpu}m", "memory": f"{memory}Mi"}
    container = {"name": "app", "image": "simulated", "resources": {"requests": requests}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": _SPACE, "labels": {"app": service}},
        "spec": {
            "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 0,
            "nodeName": node_name(machine),
            "containers": [container],
        },
    }


def _staying(cluster: RasaCluster, machines: Collection[int]) -> Iterable[dict[str, Any]]:
    """Yield one pod for each machine that stays, with the requests of all its pods: 3,000 pods would take minutes."""
    for machine, (cpu, memory, count) in enumerate(_used(cluster)):
        if machine not in machines and count:
            yield pod_body(f"stays-{machine}", f"stays-{machine}", cpu, memory, machine)


def _leaving(cluster: RasaCluster, machines: Collection[int]) -> list[dict[str, Any]]:
    return [
        pod_body(pod.name, pod.service, pod.cpu, pod.memory, pod.machine)
        for pod in cluster.pods
        if pod.machine in machines
    ]


def _used(cluster: RasaCluster) -> list[tuple[int, int, int]]:
    """Return millicores, MiB and pods in use on each machine."""
    used = [(0, 0, 0)] * len(cluster.machines)
    for pod in cluster.pods:
        cpu, memory, count = used[pod.machine]
        used[pod.machine] = cpu + pod.cpu, memory + pod.memory, count + 1
    return used


# -- what schedulers and the solver do with them ------------------------------------------------------------------------


def free_resources(cluster: RasaCluster, machines: Collection[int]) -> list[list[int]]:
    """Return free millicores, MiB and pods of each machine; a drained machine has nothing."""
    return [
        [0, 0, 0] if machine in machines else [cpu - used[0], memory - used[1], MAX_PODS - used[2]]
        for machine, ((cpu, memory), used) in enumerate(zip(cluster.machines, _used(cluster), strict=True))
    ]


def placed_pods(
    cluster: RasaCluster, machines: Collection[int], order: Iterable[RasaPod], random: Random
) -> dict[str, int]:
    """Return the machines of the pods that an emulated scheduler places, in this order, by name of the pod.

    It scores as the scheduler does by default, in whole percents: LeastAllocated, and the change of the balance between
    CPU and memory. Ties are decided by chance. It is written independently of the plan.
    """
    free, placed = free_resources(cluster, machines), dict[str, int]()
    for pod in order:
        best, candidates = -1, list[int]()
        for machine, (cpu, memory, count) in enumerate(free):
            if cpu < pod.cpu or memory < pod.memory or count < 1:
                continue
            score = score_after((cpu, memory), (cpu - pod.cpu, memory - pod.memory), cluster.machines[machine])
            if score > best:
                best, candidates = score, []
            if score == best:
                candidates.append(machine)
        if candidates:
            placed[pod.name] = random.choice(candidates)
            row = free[placed[pod.name]]
            row[0], row[1], row[2] = row[0] - pod.cpu, row[1] - pod.memory, row[2] - 1
    return placed


def score_after(before: tuple[int, int], after: tuple[int, int], size: tuple[int, int]) -> int:
    least_allocated = sum(100 * left // whole for left, whole in zip(after, size, strict=True)) // 2
    difference = abs(before[0] / size[0] - before[1] / size[1]) - abs(after[0] / size[0] - after[1] / size[1])
    return least_allocated + int(50 + 25 * difference)


def _is_possible(cluster: RasaCluster, machines: Collection[int]) -> bool | None:
    """Whether some assignment places all pods of these machines; None if the solver has not found out in time."""
    from ortools.sat.python import cp_model  # noqa: PLC0415 - no other measure needs the solver

    free = free_resources(cluster, machines)
    kinds = Counter((pod.cpu, pod.memory) for pod in cluster.pods if pod.machine in machines)
    model = cp_model.CpModel()
    targets = [machine for machine in range(len(free)) if machine not in machines]
    counts = {
        (kind, machine): model.new_int_var(0, min(number, _max_pods(free[machine], kind)), "")
        for kind, number in kinds.items()
        for machine in targets
    }
    for kind, number in kinds.items():
        model.add(sum(counts[kind, machine] for machine in targets) == number)
    for machine in targets:
        for resource in (0, 1):
            model.add(sum(kind[resource] * counts[kind, machine] for kind in kinds) <= free[machine][resource])
        model.add(sum(counts[kind, machine] for kind in kinds) <= free[machine][2])
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds, solver.parameters.num_workers = _SOLVER_SECONDS, 1
    status = solver.solve(model)
    return None if status == cp_model.UNKNOWN else status in (cp_model.OPTIMAL, cp_model.FEASIBLE)


def _size(cluster: RasaCluster, pod: RasaPod) -> float:
    """Return the largest share of the cluster that the pod requests of any resource."""
    cpu, memory = (sum(amounts) for amounts in zip(*cluster.machines, strict=True))
    return float(max(pod.cpu / cpu, pod.memory / memory))


def _max_pods(free: Sequence[int], kind: tuple[int, int]) -> int:
    return min(free[0] // kind[0] if kind[0] else MAX_PODS, free[1] // kind[1] if kind[1] else MAX_PODS)


def _real(cluster: RasaCluster) -> dict[str, Any]:
    """Return what the real scheduler does with the pods of each machine, in the order of the plan."""
    found = Emptied()
    with ControlPlane.start(node_monitor_grace_period="1h", open_limits=True) as plane, warnings.catch_warnings():
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        scheduler = RealScheduler(plane)
        for machine in range(len(cluster.machines)):
            found = found.with_score(compare_with_scheduler(scheduler, _as_random_cluster(cluster, machine)))
    return asdict(found)


def _as_random_cluster(cluster: RasaCluster, machine: int) -> RandomCluster:
    nodes = [_node(cluster, n, cordoned=n == machine) for n in range(len(cluster.machines))]
    staying, leaving = list(_staying(cluster, {machine})), _leaving(cluster, {machine})
    return RandomCluster(machine, tight=True, nodes=nodes, drained=node_name(machine), staying=staying, leaving=leaving)
