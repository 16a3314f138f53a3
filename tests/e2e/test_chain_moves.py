"""Chain moves on a real control plane: the real scheduler chooses the nodes."""

import json
import os
import subprocess
import sys
from typing import Any

from harness import unbalanced_cluster
from harness.unbalanced_cluster import App
from harness.waiting import until

from .conftest import Site


def planned(site: Site, node: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the JSON of the plan of a node."""
    command = [sys.executable, "-c", "from rescheduler.cli.plugin import main; main()", "plan", node, "-o", "json"]
    environment = os.environ | {"KUBECONFIG": str(site.plane.kubeconfig), "PYTHONPATH": "operator"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert not done.stderr
    return done.returncode, json.loads(done.stdout)


def nodes_of(site: Site, app: str) -> list[str]:
    pods = site.observer.pods(site.name)
    return [p["spec"].get("nodeName", "") for p in pods if p["metadata"]["labels"]["app"] == app]


def test_small_pod_moves_first_if_the_policy_allows_it(site: Site) -> None:
    first, second, third = site.nodes(3, cpu="4", memory="8Gi")
    apps = [
        App("large", 2000, 64, (first,)),
        App("small", 1000, 64, (second,)),
        App("full", 2000, 64, (second,)),
        App("other", 2500, 64, (third,)),
    ]
    unbalanced_cluster.create(site.plane, site.observer, site.name, apps, {"site": site.name})
    site.policy(drain={"replacementTimeout": "10s"})
    (small,) = (p for p in site.observer.pods(site.name) if p["metadata"]["labels"]["app"] == "small")
    code, plan = planned(site, first)
    (move,) = plan["chainMoves"]
    assert (code, plan["canBeDrained"], move["node"], move["byDrain"]) == (1, "No", second, False)
    assert move["pod"] == f"{site.name}/{small['metadata']['name']}"

    site.annotate(first)
    until(lambda: site.classes(first) == {"NoRoomInPool"}, "the pod without room to be held")
    assert nodes_of(site, "small") == [second]

    site.policy(drain={"replacementTimeout": "10s", "chainMoves": 1})
    site.phase(first, "Drained", seconds=150)
    assert (nodes_of(site, "small"), nodes_of(site, "large")) == ([third], [second])
    status = (site.observer.drain(first) or {})["status"]
    assert [(m["pod"], m["node"], m["state"]) for m in status["chainMoves"]] == [
        (small["metadata"]["name"], second, "Moved")
    ]
    until(lambda: any(e["reason"] == "ChainMove" for e in site.observer.events("Node", first)), "an Event of it")
    site.untainted(second)
