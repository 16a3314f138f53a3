"""Nodes that come and go, that others own, or that a policy only audits."""

import json
from datetime import UTC, datetime
from functools import partial
from typing import Any

from e2e.conftest import Site
from harness import workloads
from harness.waiting import until


def _is_owned_elsewhere(site: Site, node: str) -> bool:
    return site.observer.progressing(node) == "OwnedElsewhere"


def not_ready(site: Site, node: str, ill: bool) -> None:
    site.plane.kubectl("annotate", "node", node, "cluster/not-ready" + ("=true" if ill else "-"))
    until(lambda: (site.observer.ready_status(node) != "True") is ill, f"{node} to say so")


def test_a_node_that_flaps_is_only_cordoned_until_it_is_quiet(site: Site) -> None:
    node, _ = site.nodes(2)
    conditions = [{"type": "Ready", "status": ["False"], "for": "1h"}]
    site.policy(failure={"conditions": conditions, "flapping": {"changes": 3, "within": "10m"}})
    site.deploy(workloads.deployment("web", 4, site.name, **site.here()))
    before = site.uids()
    for _ in range(2):
        not_ready(site, node, ill=True)
        not_ready(site, node, ill=False)
    assert site.observer.drain(node) is None
    not_ready(site, node, ill=True)
    not_ready(site, node, ill=False)
    until(lambda: site.observer.progressing(node) == "Flapping", "the flapping to be said")
    until(lambda: site.observer.node(node)["spec"].get("unschedulable"), "the cordon")
    site.says(node, "Flapping")
    site.patch("rsp", site.name, {"spec": {"failure": {"flapping": {"within": "10s"}}}})
    site.gone(node)
    assert "unschedulable" not in site.observer.node(node)["spec"]
    assert site.uids() == before


def test_a_node_that_comes_back_has_no_more_of_its_pods_moved(site: Site) -> None:
    first, *others = site.nodes(2)
    broken = [{"type": "Broken", "status": ["True"]}]
    site.policy(failure={"recoverAfter": "3s", "conditions": broken})
    site.on_first(first, others, workloads.deployment("web", 3, site.name, **site.here()))
    before = site.uids()
    site.plane.kubectl("cordon", *others)
    detector(site, first, "True")
    until(site.released, "a pod to be let go")
    detector(site, first, "False")
    until(lambda: site.observer.progressing(first) in ("Cancelled", None), "the drain to rest")
    site.gone(first)
    until(lambda: site.uids() == before, "the old pods alone")
    assert "unschedulable" not in site.observer.node(first)["spec"]


def detector(site: Site, node: str, status: str) -> None:
    """Set a condition as an agent does: the node stays alive."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {
        "type": "Broken",
        "status": status,
        "lastTransitionTime": now,
        "reason": "Disk",
        "message": "simulated",
    }
    body = json.dumps({"status": {"conditions": [condition]}})
    site.plane.kubectl("patch", "node", node, "--subresource=status", "--type=strategic", "-p", body)


def test_a_detector_that_flags_many_nodes_falsely_keeps_no_dead_one_waiting(site: Site) -> None:
    flagged = site.nodes(9)[:3]
    (dead,) = site.plane.add_nodes(1, prefix=f"{site.name}-dead", labels={"site": site.name}, own_kwok=True)
    site.made.append(dead)
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    constraint = spread | {"labelSelector": {"matchLabels": {"app": "web"}}}
    site.deploy(workloads.deployment("web", 10, site.name, topologySpreadConstraints=[constraint], **site.here()))
    before = site.uids(dead)
    assert before
    for node in flagged:
        detector(site, node, "True")
    unknown = {"type": "Ready", "status": ["Unknown"], "for": "2s"}
    site.policy(failure={"maxUnhealthy": "20%", "conditions": [unknown, {"type": "Broken", "status": ["True"]}]})
    until(lambda: {site.observer.progressing(n) for n in flagged} == {"Storm"}, "the brake")
    site.plane.fail_node(dead)
    until(lambda: site.observer.ready(site.name, "web") == 10 and not before & running(site), "the evacuation")
    assert "Ready is Unknown" in (site.observer.drain(dead) or {})["spec"]["requests"][0]["message"]
    for node in flagged:
        conditions = (site.observer.drain(node) or {})["status"]["conditions"]
        words = next(c["message"] for c in conditions if c["type"] == "Progressing")
        assert f"3 of 10 nodes of ReschedulePolicy {site.name} have the condition Broken" in words
        assert "unschedulable" not in site.observer.node(node)["spec"]


def running(site: Site) -> set[str]:
    """Return UIDs of the pods that are not Terminating."""
    pods = site.observer.pods(site.name)
    return {p["metadata"]["uid"] for p in pods if "deletionTimestamp" not in p["metadata"]}


def test_a_node_stays_cordoned_though_its_policy_goes_or_is_switched_off(site: Site) -> None:
    first, *others = site.nodes(2)
    failure = {"conditions": [{"type": "Broken", "status": ["True"]}]}
    site.policy(failure=failure)
    site.on_first(first, others, workloads.deployment("web", 2, site.name, **site.here()))
    before = site.uids()
    site.plane.kubectl("cordon", *others)
    detector(site, first, "True")
    until(site.released, "a pod to be let go")
    drain = (site.observer.drain(first) or {})["metadata"]["uid"]
    site.plane.kubectl("delete", "rsp", site.name)
    until(lambda: site.observer.progressing(first) == "NoPolicy", "the drain to say so")
    until(lambda: site.uids() == before and not site.released(), "the pods to be given back")
    site.policy(failure=failure | {"enabled": False})
    until(lambda: site.observer.progressing(first) == "Disabled", "the drain to say so")
    assert site.observer.node(first)["spec"]["unschedulable"]
    site.policy(failure=failure)
    site.plane.kubectl("uncordon", *others)
    site.phase(first, "Drained")
    assert (site.observer.drain(first) or {})["metadata"]["uid"] == drain
    detector(site, first, "False")
    site.gone(first)
    assert "unschedulable" not in site.observer.node(first)["spec"]


def test_nodes_that_others_hold_are_left_to_them(site: Site) -> None:
    taken, leased, made, upgraded = site.nodes(4)
    site.policy(maintenance={"maxConcurrent": 4})
    site.plane.kubectl("taint", "node", taken, "karpenter.sh/disrupted:NoSchedule")
    site.plane.apply(
        workloads.namespace("medik8s-leases"), lease(leased, 3600), crd(MACHINES, "v1beta1"), crd(PLANS, "v1")
    )
    site.plane.kubectl("wait", "--for=condition=Established", "crd", MACHINES, PLANS, "--timeout=60s")
    site.plane.apply(machine(made, site.name), upgrade_plan(site.name, upgraded))
    origin = (f"cluster.x-k8s.io/machine={made}", f"cluster.x-k8s.io/cluster-namespace={site.name}")
    site.plane.kubectl("annotate", "node", made, *origin)
    nodes = taken, leased, made, upgraded
    for node in nodes:
        site.annotate(node)
    for node in nodes:
        until(partial(_is_owned_elsewhere, site, node), f"{node} to be left")
        assert "unschedulable" not in site.observer.node(node)["spec"]
    site.plane.apply(lease(leased, 1))
    site.plane.kubectl("taint", "node", taken, "karpenter.sh/disrupted-")
    site.plane.kubectl("delete", "crd", MACHINES, PLANS)
    for node in nodes:
        site.phase(node, "Drained")


MACHINES, PLANS = "machines.cluster.x-k8s.io", "plans.upgrade.cattle.io"


def crd(name: str, served: str) -> dict[str, Any]:
    """Return the CRD of this plural and group in one version, without a schema."""
    plural, _, group = name.partition(".")
    version: dict[str, Any] = {"name": served, "served": True, "storage": True}
    version["schema"] = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    spec = {
        "group": group,
        "scope": "Namespaced",
        "names": {"plural": plural, "kind": plural.removesuffix("s").capitalize()},
        "versions": [version],
    }
    kind = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**kind, "metadata": {"name": name}, "spec": spec}


def machine(name: str, namespace: str) -> dict[str, Any]:
    """Return a Machine that is about to be deleted."""
    meta = {"name": name, "namespace": namespace, "annotations": {"cluster.x-k8s.io/delete-machine": ""}}
    return {"apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Machine", "metadata": meta}


def upgrade_plan(namespace: str, node: str) -> dict[str, Any]:
    """Return a Plan of the system-upgrade-controller that upgrades the node."""
    meta = {"name": "agent", "namespace": namespace}
    return {"apiVersion": "upgrade.cattle.io/v1", "kind": "Plan", "metadata": meta, "status": {"applying": [node]}}


def lease(node: str, seconds: int) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": f"node-{node}", "namespace": "medik8s-leases"},
        "spec": {"holderIdentity": "node-maintenance", "leaseDurationSeconds": seconds, "renewTime": now},
    }


def test_audit_tells_the_whole_story_and_writes_nothing(site: Site) -> None:
    first, *others = site.nodes(2)
    site.policy(mode="Audit")
    pods = (
        workloads.deployment("web", 2, site.name, **site.here()),
        workloads.bare_pod("alone", site.name, **site.here()),
    )
    site.on_first(first, others, *pods)
    not_ready(site, first, ill=True)
    until(lambda: site.observer.progressing(first) == "Audit", "the NodeDrain to say Audit")
    until(lambda: site.classes(first) == {"Unmanaged"}, "the pod that would block")
    drain = site.observer.drain(first) or {}
    assert drain["status"]["pods"]["total"] == 3
    assert drain["status"]["phase"] == "Waiting"
    site.says(first, "Audit")
    not_ready(site, first, ill=False)
    site.gone(first)
    assert writes(site, first) == []


def writes(site: Site, node: str) -> list[str]:
    """Return the operator's writes on this node and on the pods of the site, by the audit log."""
    assert site.plane.audit_log is not None
    found = []
    for line in site.plane.audit_log.read_text().splitlines():
        event = json.loads(line)
        reference = event.get("objectRef", {})
        mine = (reference.get("resource") == "nodes" and reference.get("name") == node) or (
            reference.get("resource") == "pods" and reference.get("namespace") == site.name
        )
        if (
            mine
            and event["user"]["username"].endswith(":rescheduler")
            and event["verb"] not in ("get", "list", "watch")
        ):
            found.append(event["requestURI"])
    return found
