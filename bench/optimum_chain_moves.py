"""Measure drains of a nearly full cluster in which a few pods of other machines may move first.

Everything is emulated but the plan and its chain moves: the scheduler, and the drain. The drain makes a plan. If the
plan offers a chain move, the scheduler places that pod on another machine, and a new plan follows. Otherwise the pods
ask in the order of the plan, and a new plan follows for those that are left.
"""

from dataclasses import replace
from random import Random
from typing import Any

from bench import optimum
from bench.common import say
from bench.rasa import RasaCluster
from rescheduler.core.model.resource_requests import allocated_with_pod
from rescheduler.core.placement.chain_moves import ChainMove, find_chain_moves, lacks_room
from rescheduler.core.placement.planner import plan
from rescheduler.core.placement.problem import MovablePod

SHARE = 0.92  # of CPU that the requests of each machine use at least
LIMITS = (0, 1)  # of chain moves of one drain


def chain_moves(cluster: RasaCluster) -> dict[str, Any]:
    """Return how many machines can be emptied, each in turn, by the limit of chain moves."""
    rest, found = cluster.fuller_than(SHARE), dict[str, Any]()
    for limit in LIMITS:
        emptied, moves = [0] * optimum.SEEDS, [0] * optimum.SEEDS
        for seed in range(optimum.SEEDS):
            for machine in range(len(rest.machines)):
                is_empty, made = _drain(rest, machine, limit, Random(seed))
                emptied[seed] += is_empty
                moves[seed] += made
            say(
                f"{limit} chain moves, seed {seed}: {emptied[seed]} of {len(rest.machines)} emptied, {moves[seed]} moves"
            )
        found[str(limit)] = {"drains": len(rest.machines), "emptied": emptied, "moves": moves}
    return found


def _drain(cluster: RasaCluster, machine: int, limit: int, random: Random) -> tuple[bool, int]:
    """Return whether the machine can be emptied, and the number of chain moves."""
    moves, waiting = 0, {pod.name for pod in cluster.pods if pod.machine == machine}
    while waiting:
        order, move = _plan(cluster, machine, limit - moves)
        pods = {pod.name: pod for pod in cluster.pods}
        if move:
            left = int(move.node.removeprefix("m"))
            placed = optimum.placed_pods(cluster, {machine, left}, [pods[move.uid]], random)
            moves += 1
        else:
            placed = optimum.placed_pods(cluster, {machine}, [pods[name] for name in order], random)
            waiting -= placed.keys()
        if not placed:
            break
        moved = (replace(pod, machine=placed.get(pod.name, pod.machine)) for pod in cluster.pods)
        cluster = replace(cluster, pods=tuple(moved))
    return not waiting, moves


def _plan(cluster: RasaCluster, machine: int, limit: int) -> tuple[list[str], ChainMove | None]:
    """Return the pods of the machine in the order of the plan, and the chain move that it offers."""
    leaving, inputs = optimum.placement_input(cluster, {machine})
    forecasts = plan(leaving, inputs)
    order = [pod.uid for pod, _ in sorted(zip(leaving, forecasts, strict=True), key=lambda pair: pair[1].rank)]
    if limit < 1 or not any(map(lacks_room, forecasts)):
        return order, None
    movable = []
    for pod in cluster.pods:
        if pod.machine != machine:
            raw = optimum.pod_body(pod.name, pod.service, pod.cpu, pod.memory, pod.machine)
            raw["metadata"]["uid"] = pod.name
            movable.append(MovablePod(inputs.pod_snapshot.scheduled_pod(raw), allocated_with_pod(raw)))
    node = optimum.node_name(machine)
    found = find_chain_moves(leaving, forecasts, inputs, {node: movable}, {node: limit})
    return order, next(iter(found.moves), None)
