"""Rebalancing on a real control plane: the real scheduler chooses the nodes."""

from collections import Counter
from typing import Any

import pytest

from harness import unbalanced_cluster
from harness.unbalanced_cluster import App
from harness.waiting import until

from .conftest import Site

SIZE = (4000, 8192)
REBALANCE = {"enabled": True, "high": "80%", "low": "50%"}


def shares(site: Site, apps: list[App]) -> dict[str, int]:
    """Return the requested share of CPU of each node, in hundredths."""
    asked = {app.name: app.cpu for app in apps}
    found = Counter(dict.fromkeys(site.made, 0))
    for pod in site.observer.pods(site.name):
        if node := pod["spec"].get("nodeName"):
            found[node] += asked[pod["metadata"]["labels"]["app"]]
    return {name: 100 * cpu // SIZE[0] for name, cpu in found.items()}


def start(site: Site, apps: list[App]) -> None:
    unbalanced_cluster.create(site.plane, site.observer, site.name, apps, {"site": site.name})


def left_on(node: dict[str, Any]) -> list[dict[str, str]]:
    return [taint for taint in node["spec"].get("taints", []) if taint["key"].startswith("rescheduler.dev/")]


@pytest.mark.every_version("rebalancing")
def test_pods_move_from_a_full_node_to_an_empty_one_and_none_is_missed(site: Site) -> None:
    full, half, _ = site.nodes(3, cpu="4", memory="8Gi")
    apps = [App(f"one{n}", 800, 512, (full,)) for n in range(4)] + [App("two", 200, 512, (full, full, half, half))]
    start(site, apps)
    assert shares(site, apps)[full] == 90
    before = {p["metadata"]["uid"] for p in site.observer.pods(site.name)}
    lowest = {app.name: len(app.nodes) for app in apps}
    site.policy(rebalance=REBALANCE)

    def even() -> bool:
        for app, count in lowest.items():
            lowest[app] = min(count, site.observer.ready(site.name, app))
        found = shares(site, apps)
        return sum(found.values()) == 100 and max(found.values()) <= 60

    until(even, "the nodes to be even")
    assert lowest == {app.name: len(app.nodes) for app in apps}
    assert len(before - {p["metadata"]["uid"] for p in site.observer.pods(site.name)}) <= 3
    until(lambda: any(e["reason"] == "Rebalancing" for e in site.observer.events("Node", full)), "an Event of it")
    until(lambda: not any(left_on(site.observer.node(n)) for n in site.made), "the nodes to be as they were")


def test_a_node_back_from_maintenance_is_filled_again(site: Site) -> None:
    first, *_ = site.nodes(3, cpu="4", memory="8Gi")
    apps = [App(f"app{n}", 400, 512, (site.made[n % 3],)) for n in range(15)]
    start(site, apps)
    site.policy(rebalance=REBALANCE)
    site.annotate(first)
    site.phase(first, "Drained")
    assert shares(site, apps)[first] == 0
    site.annotate(first, None)
    site.gone(first)
    until(lambda: shares(site, apps)[first] >= 40, "the node to be filled", seconds=90)
    until(lambda: not any(left_on(site.observer.node(n)) for n in site.made), "the nodes to be as they were")
    until(lambda: all(site.observer.ready(site.name, app.name) == 1 for app in apps), "one pod of each to run")
