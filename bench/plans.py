"""Measure the plan: its share of right answers about random clusters, and its time for a large one."""

import time
import warnings
from dataclasses import asdict
from random import Random
from typing import Any

import urllib3

from bench.common import say, spread
from harness import ControlPlane
from harness.random_clusters import random_cluster
from harness.scheduler_check import Score, compare_with_scheduler
from harness.scheduler_results import RealScheduler
from rescheduler.core.model import nodes as model_nodes
from rescheduler.core.placement.planner import plan
from rescheduler.core.placement.pod_requirements import PodRequirementsParser
from rescheduler.core.placement.pod_snapshot import PodSnapshot, ScheduledPod
from rescheduler.core.placement.problem import PlacementInput

CLUSTERS = 300
NODES, APPS, LEAVING, ON_EACH = 5000, 400, 250, 20


def plan_scores(first: int = 0, count: int = CLUSTERS) -> dict[str, Any]:
    """Compare the plan with the real scheduler, for the roomy and the tight half."""
    halves = {"roomy": Score(), "tight": Score()}
    with ControlPlane.start(node_monitor_grace_period="1h", open_limits=True) as plane, warnings.catch_warnings():
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        scheduler = RealScheduler(plane)
        for number in range(first, first + count):
            found = random_cluster(number)
            score = compare_with_scheduler(scheduler, found)
            halves["tight" if found.tight else "roomy"] += score
            if score.wrong_fits or score.wrong_does_not_fit:
                say(f"cluster {number}: {score}")
    return {name: asdict(score) for name, score in halves.items()} | {"clusters": count}


def large() -> dict[str, Any]:
    """Return the seconds of computing a plan for 5,000 nodes and 250 displaced pods."""
    found: dict[str, Any] = {}
    for name, specs, leave in (
        ("roomy, 25 specs", 25, (200, 6000)),
        ("roomy, 250 specs", LEAVING, (200, 6000)),
        ("tight, 25 specs", 25, (0, 60)),
        ("tight, 250 specs", LEAVING, (0, 60)),
    ):
        leaving, ground = _cluster(specs, leave)
        times = []
        for _ in range(5):
            began = time.process_time()
            forecasts = plan(leaving, ground)
            times.append(time.process_time() - began)
        found[name] = {"seconds": spread(times), "fit": sum(each.fit == "Fits" for each in forecasts)}
        say(f"5,000 nodes, 250 pods, {name}: {found[name]}")
    return found


def _cluster(specs: int, leave: tuple[int, int]) -> tuple[list[ScheduledPod], PlacementInput]:
    """Return 100,000 pods of 400 apps, a quarter with anti-affinity or spread; `leave`: free CPU of each node."""
    random, census, nodes = Random(1), PodSnapshot(PodRequirementsParser(), {"n0"}), {}
    sizes = [(random.choice([50, 100, 250, 500]), random.choice([64, 256, 512, 1024])) for _ in range(APPS)]
    for n in range(NODES):
        size = {"cpu": "16", "memory": "64Gi", "pods": "110"}
        labels = {"kubernetes.io/hostname": f"n{n}", "topology.kubernetes.io/zone": "abc"[n % 3]}
        node = model_nodes.parse_node(
            {"metadata": {"name": f"n{n}", "labels": labels}, "status": {"allocatable": size}}
        )
        nodes[node.name] = node
        for number in range(ON_EACH if n else LEAVING):
            app = random.randrange(APPS) if n else number % specs
            census.add(_pod(f"p{n}-{number}", app, sizes[app], node.name))
        if n:
            rest = 16000 - census.allocated_by_node[node.name]["cpu"] - random.randint(*leave)
            census.add(_pod(f"ballast{n}", APPS, (rest, 0), node.name))
    return census.pods_by_node["n0"], PlacementInput(nodes, census)


def _pod(name: str, app: int, size: tuple[int, int], node: str) -> dict[str, Any]:
    requests = {"cpu": f"{size[0]}m", "memory": f"{size[1]}Mi"}
    spec: dict[str, Any] = {"containers": [{"name": "app", "resources": {"requests": requests}}], "nodeName": node}
    selector = {"labelSelector": {"matchLabels": {"app": f"app{app}"}}}
    term = {"topologyKey": "kubernetes.io/hostname", **selector}
    constraint = {"topologyKey": "topology.kubernetes.io/zone", "maxSkew": 5, "whenUnsatisfiable": "DoNotSchedule"}
    if app % 8 == 0:
        spec["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    if app % 8 == 4:
        spec["topologySpreadConstraints"] = [constraint | selector]
    meta = {"name": name, "namespace": f"space{app % 20}", "uid": name, "labels": {"app": f"app{app}"}}
    return {"metadata": meta, "spec": spec, "status": {"phase": "Running"}}
