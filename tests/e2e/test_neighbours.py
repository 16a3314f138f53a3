"""Other software of a cluster: a GitOps tool, a restored backup and an autoscaler, as small stand-ins."""

import json
import time
from collections import Counter
from datetime import UTC, datetime

from catalogue import neighbours
from catalogue.cluster import Cluster
from catalogue.entries import NodeShape
from e2e.conftest import Pooled, Site
from harness import workloads
from harness.identities import Identity
from harness.min_ready import lowest_ready
from harness.operators import unguarded
from harness.waiting import repeated, until
from rescheduler.api.names import MOVE, POD_DELETION_COST, POOL, SCALE_DOWN_DISABLED

AUTOSCALER_WAITS = 3.0  # seconds


def test_a_gitops_tool_that_removes_the_pools_label_starts_no_fight(pooled: Pooled) -> None:
    site, admin = pooled.site, Identity.of_admin(pooled.site.plane)
    (node,) = pooled.nodes(1)
    name, path = pooled.pool(exclusive=True), f"/api/v1/namespaces/{site.name}"
    pooled.marked(node, name, name)
    pooled.says("Ready", "True", "Mapped")
    before = len(site.calls("namespaces", names=[site.name]))

    def heal() -> None:
        if pooled.label():
            admin.patch(path, {"metadata": {"labels": {POOL: None}}}, dry=False)

    with repeated(heal, every=0.1):
        said = pooled.says("Ready", "False", "Overwritten")
        assert f"namespace {site.name}" in said
        assert "ignoreDifferences" in said
        other = f"{site.name}-other"
        site.plane.apply(workloads.namespace(other))
        pooled.pool(f"{name}-2", namespaces=[other], nodeSelector={"matchLabels": {"site": "none"}})
        until(lambda: pooled.label(other) == f"{name}-2", "the other namespace to be labelled", seconds=5)
        assert pooled.mark(node) == (name, [name])
    until(lambda: pooled.label() == name, "the label to be set again", seconds=35)
    assert len(site.calls("namespaces", names=[site.name])) - before <= 12
    assert pooled.condition("Ready")[1] == "Overwritten"
    events = [e for e in site.observer.events("NamespacePool", name) if e["reason"] == "Overwritten"]
    assert [event.get("count", 1) for event in events] == [1]
    site.plane.kubectl("delete", "namespace", other, "--wait=false")


def record(owner: str) -> str:
    """Return the record of a move of another cluster, or of an earlier life of this one."""
    fields = {"cause": "NodeDrain/n1", "ready": 2, "since": datetime.now(UTC).isoformat(), "attempt": 1}
    fields |= {"deployment": owner, "deploymentUID": "11111111-1111-1111-1111-111111111111"}
    fields |= {"replicaSet": f"{owner}-5d4", "replicaSetUID": "22222222-2222-2222-2222-222222222222"}
    return json.dumps(fields)


def test_pods_restored_from_a_backup_in_the_middle_of_a_move_are_normal_pods(site: Site) -> None:
    first, second = site.nodes(2)
    site.policy(drain={"unmanaged": "Evict"})
    web, alone = workloads.deployment("web", 2, site.name, **site.here()), workloads.bare_pod("web-5d4-1", site.name)
    alone["spec"]["nodeName"] = first
    returned = {MOVE: record("web"), POD_DELETION_COST: "2147483647"}
    with unguarded(site.plane):
        site.on_first(first, [second], web, workloads.budget("web", site.name, minAvailable=2))
        site.plane.apply({**alone, "metadata": {**alone["metadata"], "annotations": {MOVE: record("web")}}})
        for pod in site.observer.pods(site.name):
            if pod["metadata"].get("ownerReferences"):
                site.patch("pod", pod["metadata"]["name"], {"metadata": {"annotations": returned}}, "-n", site.name)
    old = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in site.observer.pods(site.name)}
    with lowest_ready(site.observer, site.name, "web") as lowest:
        site.annotate(first)
        site.phase(first, "Drained")
    assert lowest["web"] == 2
    assert sorted(site.evictions()) == sorted(old)
    assert not [call for call in site.calls() if call["verb"] == "delete"]
    assert not set(old.values()) & site.uids()
    events = site.plane.get("events", "-n", site.name)["items"]
    ignored = Counter(
        e["involvedObject"]["name"] for e in events if e["reason"] == "AnnotationIgnored" and MOVE in e["message"]
    )
    assert ignored == dict.fromkeys(old, 1)


def test_a_drain_and_an_autoscaler_that_removes_empty_nodes_end(site: Site) -> None:
    first, second = site.nodes(2, cpu="4")
    small = [{"name": "app", "image": "simulated", "resources": {"requests": {"cpu": "1500m"}}}]
    apps = [workloads.deployment(app, 2, site.name, containers=small, **site.here()) for app in ("one", "two")]
    site.on_first(first, [second], apps[0])
    site.on_first(second, [first], apps[1])
    # Rebalancing before both nodes are full would move a pod of the first to the empty second.
    site.policy(rebalance={"enabled": True, "high": "70%", "low": "50%"})
    cluster = Cluster(site.plane, site.name, [NodeShape(cpu="4")] * 2)
    with (
        neighbours.autoscaler(cluster, after=AUTOSCALER_WAITS, most=9, least=2),
        lowest_ready(site.observer, site.name, "one", "two") as lowest,
    ):
        for node in (first, second):
            site.annotate(node)
            site.phase(node, "Drained")
        until_still(cluster)
        # Both are empty for longer than the autoscaler waits, and held.
        assert {first, second} <= set(node_names(cluster))
        assert site.observer.node(first)["metadata"]["annotations"][SCALE_DOWN_DISABLED] == "true"
        for node in (first, second):
            site.annotate(node, None)
            site.gone(node)
        until_still(cluster)
    assert added(cluster) <= 3
    assert {app: lowest[app] for app in ("one", "two")} == {"one": 2, "two": 2}
    used = {pod["spec"]["nodeName"] for pod in cluster.pods()}
    assert set(node_names(cluster)) <= used or len(node_names(cluster)) == 2
    site.made[:] = cluster.nodes


def added(cluster: Cluster) -> int:
    return len(cluster.nodes) - 2


def node_names(cluster: Cluster) -> list[str]:
    return [node["metadata"]["name"] for node in cluster.nodes_now()]


def until_still(cluster: Cluster) -> None:
    """Wait until no node and no pod comes or goes for longer than the autoscaler waits."""
    last: list[object] = []
    since = [time.monotonic()]

    def still() -> bool:
        seen = sorted(node_names(cluster)), sorted(pod["metadata"]["uid"] for pod in cluster.pods())
        if last != [seen]:
            last[:], since[:] = [seen], [time.monotonic()]
        return time.monotonic() - since[0] > 2 * AUTOSCALER_WAITS

    until(still, lambda: f"nodes and pods to stay ({last})", every=0.3)
