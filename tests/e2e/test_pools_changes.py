"""Pools on the control plane during changes: mappings, drained nodes, and both at once."""

from collections import Counter
from typing import Any

from e2e.conftest import Pooled
from harness import workloads
from harness.min_ready import lowest_ready
from harness.waiting import until

SLOW = {"cluster/ready-after": "4s"}
OURS = ("rescheduler.dev/move", "controller.kubernetes.io/pod-deletion-cost")


def test_each_pod_moves_once_for_each_change_of_its_namespaces_label_or_its_nodes(pooled: Pooled) -> None:
    """With and without replacement first; pods that are in place stay."""
    site, space = pooled.site, pooled.site.name
    site.policy()
    (old,), new = pooled.nodes(1, role="a"), pooled.nodes(2, role="b")
    for role in ("a", "b"):
        nodes, spaces = {"site": space, "role": role}, {"team": f"{space}-{role}"}
        pooled.pool(
            f"{pooled.name}-{role}",
            namespaceSelector={"matchLabels": spaces},
            nodeSelector={"matchLabels": nodes},
            existingPods="Move",
        )
    site.plane.kubectl("label", "namespace", space, f"team={space}-a")
    until(lambda: pooled.label() == f"{pooled.name}-a", "the namespace to be labelled")
    pooled.marked(old, f"{pooled.name}-a")
    web, db = workloads.deployment("web", 3, space), workloads.stateful_set("db", 2, space)
    budgets = workloads.budget("web", space, maxUnavailable=0), workloads.budget("db", space, maxUnavailable=1)
    site.deploy(web, db, *budgets)
    before = site.uids(old)
    assert len(before) == 5
    with lowest_ready(site.observer, space, "web", "db") as lowest:
        site.plane.kubectl("label", "namespace", space, f"team={space}-b", "--overwrite")
        assert len(pooled.settled(5, *new) - before) == 5
        assert sorted(Counter(site.evictions()).values()) == [1] * 5
        until(lambda: not pooled.shunned(old), "the source to be as it was")

        leaving, staying = sorted(new, key=lambda node: len(site.uids(node)), reverse=True)
        going, kept = site.uids(leaving), site.uids(staying)
        site.plane.kubectl("label", "node", leaving, "role-")
        assert len(pooled.settled(5, staying) - going - kept) == len(going)
        assert kept <= site.uids(staying)
    assert lowest["web"] == 3
    assert lowest["db"] >= 1


def test_a_pod_that_its_like_keep_off_the_pool_stays_and_is_named(pooled: Pooled) -> None:
    """The pod cannot be replaced first, and after an eviction it would wait forever."""
    site, space = pooled.site, pooled.site.name
    site.policy()
    (home,) = pooled.nodes(1)
    away = pooled.nodes(2, role="other")
    apart = {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "kubernetes.io/hostname"}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
    site.plane.kubectl("cordon", home)
    db = workloads.stateful_set("db", 2, space, affinity=affinity, **site.here())
    site.deploy(db, workloads.budget("db", space, maxUnavailable=1))
    site.plane.kubectl("uncordon", home)
    pooled.pool(existingPods="Move")
    until(lambda: len(site.left(home)) == 1, f"one to be in the pool ({pooled.status()})", seconds=90)
    (stays,) = [name for node in away for name in site.left(node)]

    def named() -> list[tuple[str, str]]:
        return [(b["pod"], b["class"]) for b in pooled.status().get("blockers", [])]

    until(lambda: named() == [(stays, "NoRoomInPool")], lambda: f"the other to be named ({pooled.status()})")
    assert site.evictions() == [name for name in ("db-0", "db-1") if name != stays]


def test_a_pool_that_is_deleted_in_the_middle_of_a_move_gives_its_pods_back(pooled: Pooled) -> None:
    site, space = pooled.site, pooled.site.name
    site.policy()
    (home,), (away,) = pooled.nodes(1), pooled.nodes(1, role="other")
    site.plane.kubectl("cordon", home)
    never = {"cluster/never-ready": "true"}  # otherwise its replacement may be faster than the test
    site.plane.apply(workloads.deployment("web", 2, space, annotations=never, **site.here()))
    until(lambda: len(site.left(away)) == 2, "the pods")
    site.serve(away)
    site.plane.kubectl("uncordon", home)
    before = site.uids()
    with lowest_ready(site.observer, space, "web") as lowest:
        pooled.pool(existingPods="Move")
        until(site.released, "a pod to be released")
        site.plane.kubectl("delete", "nsp", pooled.name)
        until(lambda: not site.released() and site.uids() == before, "the old pods alone")
        until(lambda: not pooled.shunned(away), "the source to be as it was")
    assert lowest["web"] == 2
    assert pooled.label() is None

    def traces() -> list[str]:
        pods = site.observer.pods(space)
        return [key for pod in pods for key in OURS if key in pod["metadata"].get("annotations", {})]

    until(lambda: not traces(), "nothing of ours to be left on them")


def test_a_drain_that_begins_in_the_middle_of_a_move_takes_it_over(pooled: Pooled) -> None:
    """No pod moves twice, none moves early, and none leaves for a node outside its pool."""
    site, space = pooled.site, pooled.site.name
    site.policy()
    (home,), away = pooled.nodes(1), pooled.nodes(2, role="other")
    web = workloads.deployment("web", 4, space, annotations=SLOW, **site.here())
    site.on_first(away[0], [home, away[1]], web)
    before = site.uids()
    with lowest_ready(site.observer, space, "web") as lowest:
        pooled.pool(existingPods="Move")
        until(site.released, "a pod to be released")
        site.annotate(away[0])
        site.phase(away[0], "Drained")
        assert len(pooled.settled(4, home) - before) == 4
    assert lowest["web"] == 4
    assert sorted(Counter(site.evictions()).values()) == [1] * 4


def test_a_pool_spares_one_node_at_a_time_whoever_asks(pooled: Pooled) -> None:
    """Maintenance, manual drains and ill nodes together; pods that leave one node stay in the pool."""
    site, space = pooled.site, pooled.site.name
    site.policy(maintenance={"maxConcurrent": "100%"})
    first, by_hand, ill, _ = nodes = pooled.nodes(4)
    pooled.nodes(1, role="other")
    name = pooled.pool(maxUnavailable=1)
    for node in nodes:
        pooled.marked(node, name)
    until(lambda: pooled.label() == name, "the namespace to be labelled")
    site.deploy(workloads.deployment("web", 8, space, **site.here()))

    def waits(node: str) -> None:
        until(lambda: site.observer.progressing(node) == "PoolBudget", f"{node} to wait for its pool")
        assert not site.observer.node(node)["spec"].get("unschedulable")

    with lowest_ready(site.observer, space, "web") as lowest:
        site.annotate(first)
        site.phase(first, "Drained")
        drain = {"apiVersion": "rescheduler.dev/v1alpha1", "kind": "NodeDrain", "metadata": {"name": by_hand}}
        site.plane.apply({**drain, "spec": {"nodeName": by_hand, "requests": [{"reason": "Manual"}]}})
        waits(by_hand)
    assert lowest["web"] == 8
    site.plane.kubectl("annotate", "node", ill, "cluster/not-ready=true")
    waits(ill)
    site.annotate(first, None)
    site.phase(ill, "Drained")  # a failed node does not queue
    waits(by_hand)
    assert site.left(by_hand)
    site.plane.kubectl("annotate", "node", ill, "cluster/not-ready-")
    site.phase(by_hand, "Drained")
    pooled.settled(8, *nodes)


def test_no_room_in_its_pool_holds_a_drain_until_an_autoscaler_adds_a_node_to_it(pooled: Pooled) -> None:
    """Independent of room elsewhere."""
    site, space = pooled.site, pooled.site.name
    site.policy(drain={"replacementTimeout": "3s"})
    first, second = pooled.nodes(2, cpu="4")
    pooled.nodes(2, role="other", cpu="32")
    name = pooled.pool(exclusive=True)
    for node in (first, second):
        pooled.marked(node, name, name)
    until(lambda: pooled.label() == name, "the namespace to be labelled")

    def asks(cpu: str) -> dict[str, Any]:
        requests = {"name": "app", "image": "simulated", "resources": {"requests": {"cpu": cpu}}}
        return {"containers": [requests]}

    def said(app: str) -> str:
        found = (site.observer.drain(first) or {}).get("status", {}).get("blockers", [])
        return next((b["message"] for b in found if b["pod"].startswith(app) and b["class"] == "NoRoomInPool"), "")

    web, db = workloads.deployment("web", 1, space, **asks("2")), workloads.stateful_set("db", 1, space, **asks("1"))
    site.on_first(first, [second], web, db)
    site.on_first(second, [first], workloads.deployment("other", 1, space, **asks("3500m")))
    before = site.uids(first)
    with lowest_ready(site.observer, space, "web") as lowest:
        site.annotate(first)
        until(lambda: "with too little cpu" in said("db"), lambda: f"the plan's word ({said('db')})")
        until(lambda: "Insufficient cpu" in said("web"), "the scheduler's word")
        assert site.uids(first) == before
        labels = {"site": space, "role": "pool"}
        (added,) = site.plane.add_nodes(1, prefix=f"{space}-added", labels=labels)
        site.made.append(added)
        pooled.marked(added, name, name)
        site.phase(first, "Drained", seconds=120)
    assert lowest["web"] == 1
    pooled.settled(3, second, added)
