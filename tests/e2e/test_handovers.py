"""Changing owners of one node: requests that come and go, other writers, and another node of the same name."""

import json
from typing import Any

from e2e.conftest import Site
from harness import workloads
from harness.min_ready import ready
from harness.waiting import until


def asked(site: Site, node: str) -> list[str]:
    """Return reasons of the remaining requests."""
    drain = site.observer.drain(node) or {"spec": {"requests": []}}
    return [request["reason"] for request in drain["spec"]["requests"]]


def test_a_node_that_dies_while_it_is_drained_goes_on_as_a_failed_one_and_is_kept_for_its_maintenance(
    site: Site,
) -> None:
    """One NodeDrain serves all requests: a pod held by a budget is replaced, and only the last request restores the
    node.
    """
    node, other = site.nodes(2, own_kwok=True)
    site.policy(drain={"replacement": "Never"})
    site.on_first(
        node,
        [other],
        workloads.deployment("web", 2, site.name, **site.here()),
        workloads.budget("web", site.name, maxUnavailable=0),
    )
    site.annotate(node)
    until(lambda: site.classes(node) == {"BudgetMisconfigured"}, "the budget to hold it")
    begun = (site.observer.drain(node) or {})["status"]["startedAt"]
    site.plane.fail_node(node)
    until(lambda: asked(site, node) == ["Maintenance", "Failure"], "its failure to be a request too", seconds=90)
    until(lambda: sum(map(ready, site.observer.pods(site.name, node=other))) == 2, "the replacements")
    until(lambda: "Maintenance, Failure" in site.plane.kubectl("get", "nd", node), "both reasons in the table")
    assert site.observer.phase(node) != "Drained"  # a Terminating pod may still run
    site.plane.recover_node(node)
    site.phase(node, "Drained")
    until(lambda: asked(site, node) == ["Maintenance"], "the failure to be over")
    drain = site.observer.drain(node) or {}
    assert drain["status"]["startedAt"] == begun
    assert site.observer.node(node)["spec"]["unschedulable"]
    manual = [{"reason": "Maintenance", "message": "test"}, {"reason": "Manual", "message": "by hand"}]
    site.patch("nd", node, {"spec": {"requests": manual}})
    site.annotate(node, None)
    until(lambda: asked(site, node) == ["Manual"], "the hand-made request to be the last")
    assert site.observer.node(node)["spec"]["unschedulable"]
    site.plane.kubectl("delete", "nd", node)
    site.gone(node)
    assert "unschedulable" not in site.observer.node(node)["spec"]


def test_another_machine_under_the_same_name_is_another_node(site: Site) -> None:
    node, other = site.nodes(2)
    site.policy(drain={"replacement": "Never"})
    site.on_first(node, [other], *site.stuck(1))
    site.annotate(node)
    site.phase(node, "Draining")
    old = site.observer.drain(node) or {}
    site.plane.kubectl("delete", "node", node)
    site.plane.add_nodes(1, prefix=node[:-1], labels={"site": site.name})
    until(
        lambda: (site.observer.drain(node) or {"metadata": {}})["metadata"].get("uid") != old["metadata"]["uid"],
        "the old drain to end",
    )
    until(lambda: "NodeGone" in {e["reason"] for e in site.observer.events("NodeDrain", node)}, "the Event")
    site.annotate(other)
    site.phase(other, "Drained")  # time enough to start a wrong new drain
    new = site.observer.node(node)
    assert "unschedulable" not in new["spec"]
    assert "rescheduler" not in json.dumps(new["metadata"].get("annotations", {}))


def test_what_others_put_on_the_node_meanwhile_stays(site: Site) -> None:
    (node,) = site.nodes(1)
    site.policy(drain={"excludeFromLoadBalancers": True})
    before = site.observer.node(node)
    site.annotate(node)
    site.phase(node, "Drained")
    assert site.observer.node(node)["metadata"]["labels"]["node.kubernetes.io/exclude-from-external-load-balancers"]
    site.plane.kubectl("taint", "node", node, "theirs=x:NoSchedule")
    site.plane.kubectl("label", "node", node, "theirs=x")
    site.plane.kubectl("annotate", "node", node, "theirs=x")
    site.annotate(node, None)
    site.gone(node)

    def taints() -> list[str]:
        return [taint["key"] for taint in site.observer.node(node)["spec"].get("taints", [])]

    until(lambda: taints() == ["theirs"], "the taint of the cordon to go, and no other")
    after = site.observer.node(node)
    assert after["metadata"]["labels"] == {**before["metadata"]["labels"], "theirs": "x"}
    assert after["metadata"]["annotations"] == {**before["metadata"]["annotations"], "theirs": "x"}
    assert "unschedulable" not in after["spec"]


def test_a_drain_that_somebody_elses_finalizer_keeps_cordons_no_more(site: Site) -> None:
    """The name of the node is longer than a label value may be."""
    name = f"{site.name}-{'long-' * 13}node"
    site.made += site.plane.add_nodes(1, prefix=name, labels={"site": site.name, "kubernetes.io/hostname": "short"})
    node = site.made[0]
    assert len(node) > 63
    site.policy()
    kept: dict[str, Any] = {"name": node, "finalizers": ["example.com/theirs"]}
    body = {"apiVersion": "rescheduler.dev/v1alpha1", "kind": "NodeDrain", "metadata": kept}
    site.plane.apply(body | {"spec": {"nodeName": node, "requests": [{"reason": "Manual"}]}})
    site.phase(node, "Drained")
    site.plane.kubectl("delete", "nd", node, "--wait=false")
    until(lambda: not site.observer.node(node)["spec"].get("unschedulable"), "the node to be restored")
    until(
        lambda: (site.observer.drain(node) or {})["metadata"]["finalizers"] == ["example.com/theirs"], "ours to be off"
    )
    site.plane.kubectl("annotate", "nd", node, "touched=yes")
    site.annotate(node)
    site.annotate(node, None)
    assert "unschedulable" not in site.observer.node(node)["spec"]
    site.patch("nd", node, {"metadata": {"finalizers": None}})
    site.gone(node)
    assert "unschedulable" not in site.observer.node(node)["spec"]
