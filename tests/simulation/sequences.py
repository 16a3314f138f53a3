"""Short random sequences: a small cluster, up to three faults within half a minute, and the way back.

`runs` plays long runs in large clusters. A sequence costs a small part of that, so thousands of them try which faults
may meet.
"""

import random
from collections.abc import Sequence
from typing import Any

from harness import workloads
from rescheduler.core.model.raw import RawObject
from simulation import hostile
from simulation.clusters import NAMESPACE, SPACE, Cluster
from simulation.faults import Fault, draw, draw_watch_fault
from simulation.neighbours import of_the_team
from simulation.runs import RunResult, play

SETTLES = 20 * 60.0
"""Seconds after the faults until all must be restored; the longest pauses after setbacks have 10 minutes."""
_SHORT, _LONG = (2, 6, 15), (25, 40, 65)
_BUDGETS: tuple[RawObject, ...] = (
    {},
    {"minAvailable": 1},
    {"maxUnavailable": 1},
    {"maxUnavailable": 0},
    {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow"},
)


def run_sequence(seed: int, faults: Sequence[Fault] | None = None, *, settles: float = SETTLES) -> RunResult:
    """Run the sequence of a seed, or its cluster with other faults."""

    def begin(chance: random.Random, cluster: Cluster) -> tuple[RawObject, Sequence[Fault]]:
        policy = _build(chance, cluster)
        return policy, _draw(chance, cluster) if faults is None else faults

    return play(seed, begin, settles=settles, briefly=True)


def _draw(chance: random.Random, cluster: Cluster) -> list[Fault]:
    """Return one or two faults, in most sequences a drain in their midst, and in some a fault of the watches."""
    drawn = draw(chance, cluster, ["web", "single"], minutes=0.5, number=(1, 2), short=_SHORT, long=_LONG)
    if chance.random() < 0.8:
        node = chance.choice(sorted(cluster.machines))
        drawn.append(Fault(chance.randint(0, 20), "maintain", chance.choice(_SHORT[1:] + _LONG), {"nodes": [node]}))
    if chance.random() < 0.3:
        drawn.append(draw_watch_fault(chance))
    return drawn


def _policy(chance: random.Random) -> RawObject:
    pick = chance.choice
    unknown = {"type": "Ready", "status": ["Unknown"], "for": pick(("0s", "5s"))}
    failure: dict[str, Any] = {
        "conditions": [unknown, {"type": "Ready", "status": ["False"], "for": pick(("2s", "15s"))}]
    }
    failure |= {"recoverAfter": pick(("2s", "10s")), "maxUnhealthy": pick(("20%", 1, "50%", "100%"))}
    failure |= {"flapping": {"changes": 3, "within": "45s"}, **pick(({}, {"leaseTimeout": "15s"}))}
    maintenance = {"maxConcurrent": pick((1, 2)), "maxUnavailable": pick((1, "50%", 2))}
    drain: dict[str, Any] = {"replacement": pick(("Preferred", "Preferred", "Required", "WhenBlocked", "Never"))}
    drain |= {"replacementTimeout": pick(("10s", "60s")), "noRoom": pick(("Hold", "Evict"))}
    drain |= {"unmanaged": pick(("Block", "Evict")), "maxEvictionsPerSecond": pick((1, 20))}
    drain |= pick(({}, {}, {"timeout": "40s", "onTimeout": pick(("Hold", "Delete", "Cancel"))}))
    return {"failure": failure, "maintenance": maintenance, "drain": drain}


def _objects(chance: random.Random) -> list[RawObject]:
    grace = chance.choice((1, 5))
    sizes = {"web": chance.randint(2, 3), "single": 1}
    made = [of_the_team(workloads.deployment(app, size, SPACE, grace=grace)) for app, size in sizes.items()]
    others = [
        workloads.stateful_set("db", chance.randint(1, 2), SPACE, grace=grace),
        workloads.daemon_set("log", SPACE),
        workloads.bare_pod("alone", SPACE),
    ]
    picked = [(app, chance.choice(_BUDGETS)) for app in (*sizes, "db")]
    budgets = [workloads.budget(app, SPACE, **spec) for app, spec in picked if spec]
    return [*made, *(each for each in others if chance.random() < 0.4), *budgets]


def _build(chance: random.Random, cluster: Cluster) -> RawObject:
    """Fill the cluster with one or two operators, and sometimes with hostile workloads; all pods find a place."""
    spec, odd = _policy(chance), hostile.objects(chance) if chance.random() < 0.2 else []
    objects, nodes = [*_objects(chance), *odd], chance.randint(2, 4)
    pods = sum(body["spec"].get("replicas", 1) for body in objects if body["kind"] != "PodDisruptionBudget")
    room = max(chance.choice((3, 5, 30)), 2 + pods // nodes)
    for index in range(nodes):
        cluster.add_node(f"n{index + 1}", {}, pods=room)
    del cluster.operators[chance.choice((1, 2)) :]
    cluster.deploy(workloads.policy("default", **spec), *objects)
    lease = {"metadata": {"name": "rescheduler", "namespace": NAMESPACE}, "spec": {"holderIdentity": ""}}
    cluster.server.make("leases", lease)
    return spec
