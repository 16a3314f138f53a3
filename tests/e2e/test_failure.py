"""Failed nodes: replacements elsewhere, no forced deletion, and a restored node after its return."""

import pytest

from e2e.conftest import Site
from harness import workloads
from harness.waiting import until


@pytest.mark.every_version("failed nodes")
def test_a_dead_node_is_left_and_restored_when_it_is_back(site: Site) -> None:
    """Pods that may run twice are replaced at once; a StatefulSet's pod waits for proof and is not touched."""
    nodes = site.nodes(3, own_kwok=True)
    site.policy()
    site.deploy(
        workloads.deployment("web", 6, site.name, **site.here()),
        workloads.stateful_set("db", 3, site.name, **site.here()),
        workloads.budget("web", site.name, maxUnavailable=1),
    )
    dead = next(p["spec"]["nodeName"] for p in site.observer.pods(site.name) if p["metadata"]["name"].startswith("db"))
    site.plane.fail_node(dead)
    until(lambda: site.classes(dead) == {"WaitingForProof"}, "the others to be named")
    until(lambda: site.observer.ready(site.name, "web") == 6, "all replacements")
    drain = site.observer.drain(dead)
    assert drain is not None
    assert [r["reason"] for r in drain["spec"]["requests"]] == ["Failure"]
    assert "Ready is Unknown" in drain["spec"]["requests"][0]["message"]
    assert site.observer.node(dead)["spec"]["unschedulable"]
    assert site.classes(dead) == {"WaitingForProof"}
    waiting = [p for p in site.observer.pods(site.name, node=dead) if p["metadata"]["name"].startswith("db")]
    assert waiting
    assert all("deletionTimestamp" not in pod["metadata"] for pod in waiting)
    site.plane.recover_node(dead)
    site.gone(dead)
    node = site.observer.node(dead)
    assert "unschedulable" not in node["spec"]
    assert node["metadata"].get("finalizers") is None
    assert nodes


def test_a_living_node_that_says_it_is_ill_is_drained_within_its_budgets(site: Site) -> None:
    nodes = site.nodes(3)
    site.policy(drain={"replacement": "Never"})
    site.deploy(workloads.deployment("web", 6, site.name, **site.here()))
    site.plane.kubectl("annotate", "node", nodes[0], "cluster/not-ready=true")
    until(lambda: site.observer.drain(nodes[0]), "the NodeDrain")
    until(lambda: site.observer.ready(site.name, "web") == 6, "all replacements")
    site.phase(nodes[0], "Drained")
    site.plane.kubectl("annotate", "node", nodes[0], "cluster/not-ready-")
    site.gone(nodes[0])
    assert "unschedulable" not in site.observer.node(nodes[0])["spec"]


@pytest.mark.every_version("failed nodes")
def test_many_unhealthy_nodes_are_a_storm_and_nothing_starts(site: Site) -> None:
    nodes = site.nodes(4)
    site.policy(failure={"maxUnhealthy": 1})
    site.plane.kubectl("annotate", "node", *nodes[:3], "cluster/not-ready=true")
    until(lambda: all(site.observer.progressing(n) == "Storm" for n in nodes[1:3]), "the brake")
    for node in nodes[1:3]:
        assert "unschedulable" not in site.observer.node(node)["spec"]
    site.plane.kubectl("annotate", "node", *nodes[:3], "cluster/not-ready-")
    for node in nodes[:3]:
        site.gone(node)


def test_failure_does_not_queue_behind_maintenance(site: Site) -> None:
    nodes = site.nodes(3)
    site.policy(drain={"replacement": "Never"})
    site.deploy(*site.stuck(3))
    site.annotate(nodes[0])
    site.phase(nodes[0], "Draining")
    site.plane.kubectl("annotate", "node", nodes[1], "cluster/not-ready=true")
    site.phase(nodes[1], "Draining", "Drained")
    until(lambda: site.observer.node(nodes[1])["spec"].get("unschedulable"), "the cordon")
    site.plane.kubectl("annotate", "node", nodes[1], "cluster/not-ready-")
    site.gone(nodes[1])
