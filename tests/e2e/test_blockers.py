"""Pods that cannot leave: each named with what would unblock it, and gone from the list when it moves."""

from typing import Any

from cluster import workloads
from cluster.waiting import until
from e2e.conftest import Site


def blocker(site: Site, node: str) -> dict[str, Any]:
    """The one blocker of a drain."""
    (found,) = (site.observer.drain(node) or {})["status"]["blockers"]
    return dict(found)


def test_a_pod_under_two_budgets_is_named_never_asked_about_and_not_followed_elsewhere(site: Site) -> None:
    node, other = site.nodes(2)
    site.policy()
    second = {"metadata": {"name": "db-too", "namespace": site.name}}
    budget = workloads.budget("db", site.name, maxUnavailable=1)
    site.on_first(node, [other], workloads.stateful_set("db", 1, site.name, **site.here()), budget)
    site.plane.apply(budget | second)
    site.annotate(node)
    until(lambda: site.classes(node) == {"SeveralBudgets"}, "the blocker")
    found = blocker(site, node)
    assert "db and db-too" in found["message"]
    assert "narrow one selector" in found["hint"]
    for kind, name in (("Pod", "db-0"), ("StatefulSet", "db")):
        until(lambda kind=kind, name=name: "SeveralBudgets" in site.hints(kind, name), f"the Event on {kind} {name}")
    site.plane.kubectl("delete", "pod", "db-0", "-n", site.name)
    until(lambda: site.left(other) == ["db-0"], "it to come up elsewhere")
    site.phase(node, "Drained")
    assert not (site.observer.drain(node) or {})["status"].get("blockers")
    site.plane.kubectl("delete", "pdb", "db-too", "-n", site.name)
    assert site.evictions() == []


def test_a_pod_that_a_finalizer_keeps_is_named_with_it_and_holds_no_other_node(site: Site) -> None:
    """Drained means gone, not told to go."""
    node, other, third = site.nodes(3)
    site.policy(drain={"replacement": "Never"}, maintenance={"maxConcurrent": 2})
    site.on_first(node, [other, third], workloads.deployment("web", 1, site.name, **site.here()))
    (name,) = site.left(node)
    finalizer = {"metadata": {"finalizers": ["example.com/backup"]}}
    site.patch("pod", name, finalizer, "-n", site.name)
    for each in (node, other):
        site.annotate(each)
    site.phase(other, "Drained")
    until(lambda: site.classes(node) == {"StuckTerminating"}, "the blocker")
    found = blocker(site, node)
    assert "example.com/backup" in found["message"]
    assert "finalizers" in found["hint"]
    assert site.observer.phase(node) != "Drained"
    site.patch("pod", name, {"metadata": {"finalizers": None}}, "-n", site.name)
    site.phase(node, "Drained")
    # Its replacement may have come up on the other node before that was cordoned.
    assert site.evictions().count(name) == 1


def test_where_no_second_pod_can_be_had_all_but_the_last_go_plainly(site: Site) -> None:
    """Anti-affinity and spread are no want of room: a rule never to give up a running pod would hold for ever."""
    first, second = site.nodes(2)
    site.policy(drain={"replacementTimeout": "2s"})
    selector = {"labelSelector": {"matchLabels": {"app": "apart"}}, "topologyKey": "kubernetes.io/hostname"}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [selector]}}
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "spread"}},
        "matchLabelKeys": ["pod-template-hash"],
    }
    site.deploy(
        workloads.deployment("apart", 2, site.name, affinity=apart, **site.here()),
        workloads.deployment("spread", 2, site.name, topologySpreadConstraints=[spread], **site.here()),
        workloads.budget("apart", site.name, maxUnavailable=1),
        workloads.budget("spread", site.name, maxUnavailable=1),
    )
    assert len(site.left(first)) == len(site.left(second)) == 2
    site.annotate(first)
    site.phase(first, "Drained", seconds=90)
    assert {name.split("-")[0] for name in site.left(second)} == {"apart", "spread"}
    assert not site.released()
    uids = site.uids(second)
    site.annotate(second)
    until(lambda: site.classes(second) == {"ReplacementNotReady"}, "the last ones to be held")
    assert site.uids(second) == uids
