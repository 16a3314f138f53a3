"""Maintenance, end to end: annotated, drained, restored; and objects that it must not touch."""

import json
import time
from datetime import UTC, datetime

import pytest

import hostile
from e2e.conftest import Site
from e2e.test_plans import reschedule
from harness import workloads
from harness.operators import NAMESPACE, Operator
from harness.waiting import until
from rescheduler.api.names import HISTORY
from rescheduler.core.drain.history import parse_records


def conditions(site: Site, node: str) -> dict[str, str]:
    return {c["type"]: c["status"] for c in site.observer.node(node)["status"]["conditions"]}


@pytest.mark.every_version("maintenance")
def test_an_annotated_node_is_cordoned_drained_and_restored(site: Site) -> None:
    """Only the operator's additions are removed: the node is byte for byte as before, except times of conditions."""
    nodes = site.nodes(3)
    site.policy(drain={"replacement": "Never"})
    site.deploy(
        workloads.deployment("web", 9, site.name, **site.here()), workloads.daemon_set("log", site.name, **site.here())
    )
    before = site.observer.node(nodes[0])
    site.annotate(nodes[0], "swap disk")
    site.phase(nodes[0], "Drained")
    said = {"Drained": "True", "DrainInProgress": "False", "MaintenanceInProgress": "True"}
    until(lambda: said.items() <= conditions(site, nodes[0]).items(), "the node's conditions")
    node, drain = site.observer.node(nodes[0]), site.observer.drain(nodes[0])
    assert drain is not None
    assert node["spec"]["unschedulable"]
    assert drain["spec"]["requests"] == [{"reason": "Maintenance", "message": "swap disk"}]
    assert drain["status"]["progress"] == f"{drain['status']['pods']['total']}/{drain['status']['pods']['total']}"
    assert drain["status"]["pods"]["skipped"] == 1
    assert [pod.split("-")[0] for pod in site.left(nodes[0])] == ["log"]
    assert node["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/scale-down-disabled"] == "true"
    site.says(nodes[0], "Cordoned", "Draining", "Drained")
    assert "Node cordoned for a drain" in site.plane.kubectl("describe", "node", nodes[0])
    head, row = (line.split() for line in site.plane.kubectl("get", "nd", nodes[0]).splitlines())
    assert head[1:] == [
        "NODE",
        "REASON",
        "PHASE",
        "WAITING",
        "MOVED",
        "BLOCKED",
        "ETA",
        "AGE",
    ]  # kubectl itself adds NAME
    assert row[1:6] == [nodes[0], "Maintenance", "Drained", "Drained", drain["status"]["progress"]]
    daemon = site.uids(nodes[0])
    site.plane.kubectl("delete", "pod", *site.left(nodes[0]), "-n", site.name)
    until(lambda: len(site.uids(nodes[0]) - daemon) == 1, "its DaemonSet's pod to be made again, cordon or not")
    site.phase(nodes[0], "Drained")
    site.annotate(nodes[0], None)
    site.gone(nodes[0])
    site.untainted(nodes[0])
    after = site.observer.node(nodes[0])
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert "finalizers" not in after["metadata"]
    assert {c["type"] for c in after["status"]["conditions"]} == {c["type"] for c in before["status"]["conditions"]}


def test_the_record_of_a_finished_drain_says_who_and_what(site: Site, operator: Operator) -> None:
    nodes = site.nodes(2)
    site.policy()
    site.deploy(workloads.deployment("web", 2, site.name, **site.here()))
    site.annotate(nodes[0], "swap disk")
    site.phase(nodes[0], "Drained")
    running = (site.observer.drain(nodes[0]) or {})["status"]["history"]
    site.annotate(nodes[0], None)
    site.gone(nodes[0])
    kept = json.loads(site.plane.kubectl("get", "configmap", HISTORY, "-n", NAMESPACE, "-o", "json"))["data"]
    (record,) = parse_records(kept, nodes=[nodes[0]])
    (requester,) = record.requested_by
    assert (requester.reason, requester.message) == ("Maintenance", "swap disk")
    assert requester.manager.startswith("kubectl")
    assert requester.time
    assert (record.outcome, record.policy) == ("Drained", site.name)
    assert [move.pod for move in record.moves] == [move["pod"] for move in running["moves"]]
    # On a busy machine a pod can be gone before the operator has seen which new pod replaces it.
    assert {(move.owner, move.new_node) for move in record.moves if move.way == "ReplacedFirst"} <= {
        ("Deployment/web", nodes[1]),
        ("Deployment/web", ""),
    }
    lines = [json.loads(line) for line in operator.log.read_text().splitlines() if '"rescheduler.audit"' in line]
    assert [line["event"] for line in lines if line.get("node") == nodes[0]] == [
        *("audit.move" for _ in record.moves),
        "audit.drain",
    ]


def test_a_node_that_somebody_else_cordoned_stays_cordoned(site: Site) -> None:
    (node,) = site.nodes(1)
    site.policy()
    site.plane.kubectl("cordon", node)
    site.annotate(node)
    site.phase(node, "Drained")
    site.annotate(node, None)
    site.gone(node)
    assert site.observer.node(node)["spec"]["unschedulable"]


@pytest.mark.every_version("maintenance")
def test_budgets_are_kept_one_eviction_at_a_time(site: Site) -> None:
    """With a slow start and maxUnavailable 1 at most one pod of the app is missing."""
    nodes = site.nodes(3)
    site.policy(drain={"replacement": "Never"})
    slow = {"annotations": {"cluster/ready-after": "1s"}}
    site.deploy(
        workloads.deployment("db", 6, site.name, **slow, **site.here()),
        workloads.budget("db", site.name, maxUnavailable=1),
    )
    lowest = 6
    site.annotate(nodes[0])

    def drained() -> bool:
        nonlocal lowest
        lowest = min(lowest, site.observer.ready(site.name, "db"))
        return site.observer.phase(nodes[0]) == "Drained"

    until(drained, "the node to be drained")
    assert lowest >= 5


@pytest.mark.every_version("maintenance")
def test_a_budget_that_never_allows_is_named_and_holds_no_other_pod(site: Site) -> None:
    nodes = site.nodes(2)
    site.policy(drain={"replacement": "Never"})
    site.deploy(
        workloads.deployment("stuck", 2, site.name, **site.here()),
        workloads.deployment("free", 4, site.name, **site.here()),
        workloads.budget("stuck", site.name, maxUnavailable=0),
    )
    site.annotate(nodes[0])
    until(lambda: all("stuck" in pod for pod in site.left(nodes[0])), "the others to leave")
    until(lambda: site.classes(nodes[0]) == {"BudgetMisconfigured"}, "the blocker")
    blocker = (site.observer.drain(nodes[0]) or {})["status"]["blockers"][0]
    assert "PodDisruptionBudget stuck" in blocker["hint"]
    assert (blocker["pdb"], blocker["healthy"], blocker["needed"]) == ("stuck", 2, 2)
    site.plane.kubectl("delete", "pdb", "-n", site.name, "stuck")
    site.phase(nodes[0], "Drained")


def test_what_blocks_where_the_policy_says_so_and_what_stays_whatever_it_says(site: Site) -> None:
    """Bare pods, pods with emptyDir, and pods that come back three times."""
    node, other = site.nodes(2)
    site.policy(drain={"emptyDir": "Block"})
    scratch = [{"name": "scratch", "emptyDir": {}}]
    stays = {"nodeName": node, "tolerations": [{"operator": "Exists"}]}
    site.plane.kubectl("cordon", other)
    site.plane.apply(
        workloads.bare_pod("alone", site.name, **site.here()),
        workloads.deployment("cache", 1, site.name, volumes=scratch, **site.here()),
        workloads.deployment("stays", 1, site.name, **stays),
    )
    until(lambda: len(site.left(node)) == 3, "the pods to run")
    site.plane.kubectl("uncordon", other)
    site.annotate(node)
    until(lambda: site.classes(node) == {"Unmanaged", "EmptyDir"}, "the blockers")
    until(lambda: (site.observer.drain(node) or {})["status"]["blockersTotal"] == 2, "both of them")
    until(lambda: (site.observer.drain(node) or {})["status"]["pods"]["skipped"] == 1, "the pod that stays")
    (came_back,) = (site.observer.drain(node) or {})["status"]["cameBack"]
    assert (came_back["kind"], len(came_back["pods"]), came_back["toleratesCordon"]) == ("ReplicaSet", 3, True)
    until(lambda: len(site.left(node)) == 3, "the surplus pod to go")
    plan = json.loads(reschedule(site.plane.kubeconfig, "plan", node, "-o", "json").stdout)
    (staying,) = plan["staying"]
    assert "3 new pods of ReplicaSet stays-" in staying["reason"]
    site.patch("rsp", site.name, {"spec": {"drain": {"emptyDir": "Evict", "unmanaged": "Evict"}}})
    site.phase(node, "Drained")
    (left,) = site.left(node)
    conditions = (site.observer.drain(node) or {})["status"]["conditions"]
    drained = next(c["message"] for c in conditions if c["type"] == "Drained")
    assert left.startswith("stays-")
    assert f"1 pod stays on the node: {site.name}/{left} (this pod tolerates the cordon, and 3 new pods" in drained


def test_mirror_pods_stay(site: Site) -> None:
    (node,) = site.nodes(1)
    site.policy()
    mirror = workloads.bare_pod("static", site.name, annotations={"kubernetes.io/config.mirror": "x"})
    mirror["spec"]["nodeName"] = node
    mirror["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "name": node,
            "uid": site.observer.node(node)["metadata"]["uid"],
            "controller": True,
        }
    ]
    site.plane.apply(mirror)
    site.annotate(node)
    site.phase(node, "Drained")
    assert site.left(node) == ["static"]


def test_without_a_policy_nothing_is_touched_and_that_is_said(site: Site) -> None:
    (node,) = site.nodes(1)
    site.annotate(node)
    until(lambda: site.observer.progressing(node) == "NoPolicy", "the reason")
    assert site.observer.phase(node) == "Waiting"
    assert "unschedulable" not in site.observer.node(node)["spec"]
    until(lambda: "NoPolicy" in {e["reason"] for e in site.observer.events("Node", node)}, "the Event")
    site.annotate(node, None)
    site.gone(node)


def test_audit_decides_and_writes_nothing_to_node_or_pods(site: Site, identity: object) -> None:
    (node,) = site.nodes(1)
    site.policy(mode="Audit")
    site.deploy(workloads.deployment("web", 2, site.name, **site.here()))
    before = site.observer.node(node)["metadata"]["resourceVersion"]
    site.annotate(node)
    until(lambda: site.observer.progressing(node) == "Audit", "the reason")
    assert "unschedulable" not in site.observer.node(node)["spec"]
    assert len(site.left(node)) == 2
    assert int(site.observer.node(node)["metadata"]["resourceVersion"]) > int(before)  # the annotation only
    site.annotate(node, None)
    site.gone(node)


def test_suspend_all_stops_evictions_and_keeps_the_cordon(site: Site) -> None:
    nodes = site.nodes(2)
    site.policy(drain={"replacement": "Never", "maxEvictionsPerSecond": 1})
    site.deploy(workloads.deployment("web", 16, site.name, **site.here()))
    there = len(site.left(nodes[0]))
    site.annotate(nodes[0])
    until(lambda: len(site.left(nodes[0])) < there, "the first pod to leave")
    fast = {"maxEvictionsPerSecond": 100}  # all would leave in a moment
    site.patch("rsp", site.name, {"spec": {"suspend": "All", "drain": fast}})
    until(lambda: site.observer.progressing(nodes[0]) == "Suspended", "the drain to be held")
    suspended = datetime.now(UTC)
    assert site.plane.kubectl("get", "nd", nodes[0]).splitlines()[1].split()[3:5] == ["Waiting", "Suspended"]
    time.sleep(1)
    times = [datetime.fromisoformat(call["requestReceivedTimestamp"]) for call in site.calls()]
    assert max(times) < suspended
    assert site.left(nodes[0])
    assert site.observer.node(nodes[0])["spec"]["unschedulable"]
    site.patch("rsp", site.name, {"spec": {"suspend": "None"}})
    site.phase(nodes[0], "Drained")


def test_max_concurrent_holds_over_all_that_ask_in_one_moment(site: Site) -> None:
    """Pods of the drained node are not moved onto waiting nodes."""
    nodes = site.nodes(3)
    site.policy(drain={"replacement": "Never"})
    site.deploy(*site.stuck(6))
    site.plane.kubectl("annotate", "node", *nodes, "rescheduler.dev/maintenance=test")
    until(lambda: sum(site.observer.progressing(n) == "MaxConcurrent" for n in nodes) == 2, "two to wait")
    until(lambda: sum(_tainted(site, n) for n in nodes) == 2, "the taint of those that wait")
    until(lambda: any(site.observer.node(n)["spec"].get("unschedulable") for n in nodes), "the cordon")
    assert sum(bool(site.observer.node(n)["spec"].get("unschedulable")) for n in nodes) == 1
    site.made += site.plane.add_nodes(1, prefix=f"{site.name}-free", labels={"site": site.name})
    site.plane.kubectl("delete", "pdb", "-n", site.name, "stuck")
    for node in nodes:
        site.phase(node, "Drained")
    assert len(site.evictions()) == 6  # each pod once
    site.plane.kubectl("annotate", "node", *nodes, "rescheduler.dev/maintenance-")
    for node in nodes:
        site.gone(node)
        assert not _tainted(site, node)


def _tainted(site: Site, node: str) -> bool:
    taints = site.observer.node(node)["spec"].get("taints", [])
    return {"key": "rescheduler.dev/drain", "effect": "PreferNoSchedule"} in taints


def test_the_value_false_is_refused_by_an_event(site: Site) -> None:
    (node,) = site.nodes(1)
    site.policy()
    site.annotate(node, "false")

    def told() -> list[int]:
        return [e["count"] for e in site.observer.events("Node", node) if e["reason"] == "MaintenanceRefused"]

    until(told, "the Event")

    def told_again() -> bool:
        site.annotate(node, None)
        site.annotate(node, "false")
        return told()[0] > 1

    until(told_again, "the same Event to be counted again")
    assert len(told()) == 1
    assert site.observer.drain(node) is None


def test_what_others_write_costs_no_drain_and_no_node(site: Site) -> None:
    """A grace period of 2^63-1, times of the year 0, deep JSON and long text pass the API server and admission."""
    nodes = site.nodes(2)
    site.policy()
    wishes = {
        "rescheduler.dev/replacement": "requird",
        "rescheduler.dev/do-not-disrupt": "5 hours",
    }
    site.deploy(workloads.deployment("odd", 2, site.name, grace=2**63 - 1, annotations=wishes, **site.here()))
    odd = {"type": "Odd", "status": "True", "lastTransitionTime": "0000-01-01T00:00:00Z"}
    for node in nodes:
        site.patch("node", node, {"metadata": {"annotations": {"rescheduler.dev/fenced": hostile.DEEP}}})
        late = odd | {"lastHeartbeatTime": "9999-12-31T23:59:59Z"}
        site.plane.kubectl(
            *("patch", "node", node, "--subresource=status", "--type=strategic"),
            *("-p", json.dumps({"status": {"conditions": [late]}})),
        )
    for pod in site.observer.pods(site.name):
        site.plane.kubectl(
            *("patch", "pod", pod["metadata"]["name"], "-n", site.name, "--subresource=status", "--type=strategic"),
            *("-p", json.dumps({"status": {"conditions": [odd]}})),
        )
    site.annotate(nodes[0], "x" * 100_000)
    site.phase(nodes[0], "Drained")
    drain = site.observer.drain(nodes[0])
    assert drain is not None
    (request,) = drain["spec"]["requests"]
    assert len(request["message"]) == 1024
    ignored = site.plane.kubectl("get", "events", "-n", site.name, "--field-selector=reason=AnnotationIgnored")
    assert "'5 hours' is not a duration" in ignored
    assert "'requird', and must be one of" in ignored
    site.annotate(nodes[0], None)
    site.gone(nodes[0])


def test_a_deleted_node_ends_its_drain_with_that_said(site: Site) -> None:
    nodes = site.nodes(2)
    site.policy(drain={"replacement": "Never"})
    site.deploy(*site.stuck(2))
    site.annotate(nodes[0])
    site.phase(nodes[0], "Draining")
    site.plane.kubectl("delete", "node", nodes[0])
    site.gone(nodes[0])
    until(lambda: "NodeGone" in {e["reason"] for e in site.observer.events("NodeDrain", nodes[0])}, "the Event")


def test_a_cancelled_drain_does_not_start_again_while_its_annotation_stands(site: Site) -> None:
    (node,) = site.nodes(1)
    site.policy()
    site.annotate(node, "first")
    site.phase(node, "Drained")
    site.plane.kubectl("delete", "nodedrain", node)
    site.gone(node)
    seen = site.observer.node(node)
    assert json.loads(seen["metadata"]["annotations"]["rescheduler.dev/cancelled"]) == {"Maintenance": "first"}
    assert "unschedulable" not in seen["spec"]
    site.annotate(node, "second")
    site.phase(node, "Drained")
    until(
        lambda: "rescheduler.dev/cancelled" not in site.observer.node(node)["metadata"]["annotations"],
        "the old cancellation to go",
    )


def test_a_hand_made_node_drain_drains_and_deleting_it_restores(site: Site) -> None:
    (node,) = site.nodes(1)
    site.policy()
    site.plane.apply(
        {
            "apiVersion": "rescheduler.dev/v1alpha1",
            "kind": "NodeDrain",
            "metadata": {"name": node},
            "spec": {"nodeName": node, "requests": [{"reason": "Manual", "message": "by hand"}]},
        }
    )
    site.phase(node, "Drained")
    site.plane.kubectl("delete", "nodedrain", node)
    site.gone(node)
    assert "unschedulable" not in site.observer.node(node)["spec"]


def test_no_pod_costs_more_than_its_eviction(site: Site) -> None:
    """By the audit log: one POST of an eviction for each pod, and otherwise only list and watch on pods."""
    nodes = site.nodes(2)
    site.policy(drain={"replacement": "Never", "maxEvictionsPerSecond": 100})
    site.deploy(workloads.deployment("web", 20, site.name, **site.here()))
    there = len(site.left(nodes[0]))
    site.annotate(nodes[0])
    site.phase(nodes[0], "Drained")
    calls = site.calls()
    assert {c["objectRef"].get("subresource", "") for c in calls if c["verb"] == "create"} == {"eviction"}
    assert sum(c["verb"] == "create" for c in calls) == there
    assert {c["verb"] for c in calls} == {"create"}


def test_an_uncordoned_node_is_cordoned_again_once_and_then_left(site: Site) -> None:
    nodes = site.nodes(2)
    site.policy(drain={"replacement": "Never"})
    site.deploy(*site.stuck(2))
    site.annotate(nodes[0])
    until(lambda: conditions(site, nodes[0]).get("DrainInProgress") == "True", "the cordon to be through")
    site.plane.kubectl("uncordon", nodes[0])
    until(lambda: (site.observer.drain(nodes[0]) or {})["status"].get("recordonedAt"), "the second cordon")
    site.says(nodes[0], "CordonedAgain")
    assert site.observer.node(nodes[0])["spec"]["unschedulable"]
    site.plane.kubectl("uncordon", nodes[0])
    until(lambda: site.observer.progressing(nodes[0]) == "Uncordoned", "the drain to stop")
    assert "unschedulable" not in site.observer.node(nodes[0])["spec"]
