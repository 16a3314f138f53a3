"""`make bench`: measure every claim side by side in one run; write results and plots to bench/.

Numbers of shared machines are noisy: only ratios with their spread count. `make bench ONLY=slots` runs one measure and
keeps the results of the others.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from bench import admission, drains, failures, leases, plots, pools, rasa, soak, tables
from bench.common import HERE, operated, say
from bench.large_drains import many_drains, one_drain
from bench.memory import imports
from bench.optimum import optimum
from bench.optimum_chain_moves import chain_moves
from bench.optimum_rebalance import rebalance_on_m3
from bench.plans import large, plan_scores
from bench.rebalance import rebalances
from bench.replacements import replacements
from bench.scale import scale
from bench.slots import latencies
from harness import ControlPlane
from harness.operators import install

RUNS, NODES, TRIES, MANY = 3, 1000, 200, 10
Results = dict[str, Any]


def reactions() -> Results:
    """Measure with 1,000 idle nodes."""
    with operated(NODES) as (plane, observer, operator):
        time.sleep(10)
        memory = {"idle": operator.memory(), "imports": imports()}
        return {"memory, MB": memory, "annotation to cordon, ms": drains.reaction(plane, observer, TRIES)}


def one_node() -> Results:
    """Measure 100 pods of one node."""
    with operated(1) as (plane, observer, _):
        return {"one node": drains.one_node(plane, observer, RUNS)}


def ten_nodes() -> Results:
    """Measure 10 x 100 pods."""
    with operated(1, drained=MANY, spare=MANY) as (plane, observer, operator):
        found = drains.many_nodes(plane, observer, MANY)
        say(f"resident memory of the operator afterwards: {operator.memory():.0f} MB")
        return {"ten nodes": found | {"memory, MB": operator.memory()}}


def slots() -> Results:
    """Measure budgets that allow one pod at a time."""
    with operated(1) as (plane, observer, _):
        return {"slots": latencies(plane, observer)}


def first() -> Results:
    """Measure replacement first and plain eviction."""
    with operated(1) as (plane, observer, _):
        return {"replacement first": replacements(plane, observer)}


def large_clusters() -> Results:
    """Measure large clusters; the sizes of this run replace or join those of earlier runs."""
    return {"scale": scale()}


def large_drain() -> Results:
    """Measure one drain of 250 pods under 250 budgets."""
    return {"large drain": one_drain()}


def large_drains() -> Results:
    """Measure 100 nodes of 30 pods at once."""
    return {"large drains": many_drains()}


def failed_nodes() -> Results:
    """Measure failed nodes, with Kubernetes' own times."""
    with operated(40) as (plane, observer, operator):
        plane.kubectl("delete", "rsp", "--all")
        found: Results = {"replaced after a death, s": failures.replaced(plane)}
        found["failing together"] = failures.together(plane, observer)
        return found | {"false alarms": failures.false_alarms(plane, operator)}


def lease_watch() -> Results:
    """Measure 5,000 Leases."""
    with operated(1) as (plane, _, operator):
        return {"5,000 leases": leases.cost(plane, operator)}


def first_moves() -> Results:
    """Measure with 1,000 nodes."""
    with operated(NODES - 100) as (plane, observer, _):
        plane.kubectl("delete", "rsp", "--all")
        return {"condition to first request, ms": failures.first_move(plane, observer, 100)}


def pool_moves() -> Results:
    """Measure 500 pods that a mapping moves."""
    with operated(1) as (plane, observer, _):
        return {"pool of 500 pods": pools.moved(plane, observer)}


def many_pools() -> Results:
    """Measure 200 pools and 5,000 namespaces."""
    with ControlPlane.start(open_limits=True) as plane:
        return {"many pools": pools.many(plane, install(plane))}


def admitted() -> Results:
    """Measure without an operator: these policies do not need one."""
    with ControlPlane.start(open_limits=True) as plane:
        install(plane)
        return {"admission, ms": admission.costs(plane)}


def simulated_runs() -> Results:
    """Run random failures in simulated time."""
    return {"soak in simulated time": soak.simulated()}


def sequences() -> Results:
    """Run random failures on a control plane."""
    return {"soak on a control plane": soak.on_a_control_plane()}


def plans() -> Results:
    """Measure the plan against the real scheduler on 300 random clusters, and its time for a large one."""
    return {"plans": plan_scores(), "large plans": large()}


def compared_with_optimum() -> Results:
    """Measure plans and rebalancing on a real cluster next to an optimum; `RASA_M3` names the file of the cluster."""
    try:
        cluster = rasa.load()
    except FileNotFoundError as error:
        say(str(error))
        return {}
    return {
        "optimum": optimum(cluster),
        "chain moves": chain_moves(cluster),
        "rebalancing of M3": rebalance_on_m3(),
    }


MEASURES: dict[str, Callable[[], Results]] = {
    "reactions": reactions,
    "one-node": one_node,
    "ten-nodes": ten_nodes,
    "slots": slots,
    "first": first,
    "failed-nodes": failed_nodes,
    "first-moves": first_moves,
    "leases": lease_watch,
    "pool-moves": pool_moves,
    "many-pools": many_pools,
    "rebalance": rebalances,
    "scale": large_clusters,
    "large-drain": large_drain,
    "large-drains": large_drains,
    "admission": admitted,
    "soak": simulated_runs,
    "soak-plane": sequences,
    "plans": plans,
    "optimum": compared_with_optimum,
}


def main(only: list[str]) -> int:
    """Run the measures, print and write the results."""
    if unknown := [name for name in only if name not in MEASURES]:
        say(f"unknown measure: {', '.join(unknown)}; there are {', '.join(MEASURES)}")
        return 2
    path = HERE / "results.json"
    results = json.loads(path.read_text()) if only and path.exists() else {}
    for name in only or MEASURES:
        results |= MEASURES[name]()
        path.write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "results.md").write_text(tables.markdown(results))
    _draw(results)
    sys.stdout.write(tables.markdown(results))
    return 0


def _draw(results: Results) -> None:
    for name, title in (("one node", "100 pods of one node"), ("ten nodes", "10 nodes of 100 pods at once")):
        if name in results:
            plots.departures(HERE / f"{name.replace(' ', '-')}.svg", title, results[name]["curves"])
    if "slots" in results:
        plots.latencies(HERE / "slots.svg", results["slots"])
    if "replacement first" in results:
        plots.serving(HERE / "serving.svg", results["replacement first"])
    if "scale" in results:
        plots.growth(HERE / "scale.svg", results["scale"])
    if "rebalance" in results:
        plots.spreads(HERE / "rebalance.svg", results["rebalance"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
