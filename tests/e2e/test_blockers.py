"""Pods that cannot leave: each has a blocker with a hint, which disappears when the pod moves."""

import json
from functools import partial
from typing import Any

from e2e.conftest import Site
from harness import webhooks, workloads
from harness.waiting import until


def _has_event(site: Site, kind: str, name: str, reason: str) -> bool:
    return reason in site.hints(kind, name)


def blocker(site: Site, node: str) -> dict[str, Any]:
    """Return the only blocker of a drain."""
    (found,) = (site.observer.drain(node) or {})["status"]["blockers"]
    return dict(found)


def test_a_pod_under_two_budgets_is_named_and_not_followed_elsewhere(site: Site) -> None:
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
    assert "narrow the selector of one budget" in found["hint"]
    for kind, name in (("Pod", "db-0"), ("StatefulSet", "db")):
        until(partial(_has_event, site, kind, name, "SeveralBudgets"), f"the Event on {kind} {name}")
    site.plane.kubectl("delete", "pod", "db-0", "-n", site.name)
    until(lambda: site.left(other) == ["db-0"], "it to come up elsewhere")
    site.phase(node, "Drained")
    assert not (site.observer.drain(node) or {})["status"].get("blockers")
    site.plane.kubectl("delete", "pdb", "db-too", "-n", site.name)
    assert len(site.evictions()) <= 1  # for webhooks, if it takes longer; never for the new pod


def test_a_pod_that_a_finalizer_keeps_is_named_with_it_and_holds_no_other_node(site: Site) -> None:
    """Drained means that the pod is gone, not only Terminating."""
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
    # The replacement may have started on the other node before its cordon.
    assert site.evictions().count(name) == 1


def test_where_no_second_pod_can_be_had_all_but_the_last_go_plainly(site: Site) -> None:
    """Anti-affinity and spread do not count as missing room: a rule to keep running pods would hold them forever.

    With both nodes cordoned no node is left for the last pods, whatever other pods do.
    """
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
    until(lambda: site.classes(second) == {"NoRoomInPool"}, "the last ones to be held")
    assert site.uids(second) == uids


def test_a_webhook_hears_of_each_pod_within_seconds_whatever_its_budgets_allow(site: Site) -> None:
    """The webhook moves the workload after a real eviction request; only then would the budget refuse."""
    node, other = site.nodes(2)
    site.policy()
    second = {"metadata": {"name": "broker-too", "namespace": site.name}}
    broker = workloads.budget("broker", site.name, maxUnavailable=1)
    site.on_first(
        node,
        [other],
        workloads.stateful_set("vm", 1, site.name, **site.here()),
        workloads.budget("vm", site.name, maxUnavailable=0),
        workloads.stateful_set("broker", 1, site.name, **site.here()),
        broker,
    )
    site.plane.apply(broker | second)
    with webhooks.evictions(site.plane, site.name, lambda pod: (429, f"{pod} is moved")) as asked:
        site.annotate(node)
        until(lambda: site.classes(node) == {"Delegated"}, "the webhook to be quoted")
        messages = {b["message"] for b in (site.observer.drain(node) or {})["status"]["blockers"]}
        assert len(messages) == 2
        assert all("is moved" in message for message in messages)
        site.plane.kubectl("delete", "pod", "vm-0", "broker-0", "-n", site.name)  # its owner deletes it later
        site.phase(node, "Drained")
        assert max(map(asked.count, ("vm-0", "broker-0"))) <= 2


def test_a_pod_that_has_ended_takes_nothing_of_its_budget_and_holds_nobody_up(site: Site) -> None:
    """The API server does not count the pod, and the budget stays: with the pod, it would allow no eviction."""
    node, other = site.nodes(2)
    site.policy()
    site.on_first(
        node,
        [other],
        workloads.stateful_set("web", 2, site.name, **site.here()),
        workloads.budget("web", site.name, maxUnavailable=1),
    )
    leftover = workloads.bare_pod("ended", site.name, nodeName=node, annotations={"cluster/never-ready": "true"})
    leftover["metadata"]["labels"] = {"app": "web"}
    site.plane.apply(leftover)
    until(lambda: "ended" in site.left(node), "the pod to be there")
    failed = json.dumps({"status": {"phase": "Failed", "reason": "Evicted"}})
    site.plane.kubectl("patch", "pod", "ended", "-n", site.name, "--subresource=status", "--type=merge", "-p", failed)
    site.annotate(node)
    site.phase(node, "Drained")
    assert "ended" in site.evictions()[:2]  # with the first pod of web: both are in flight at once
    assert site.left(other) == ["web-0", "web-1"]


def test_a_job_that_ignores_disruptions_outlives_the_delete_of_its_pod(site: Site) -> None:
    """A kubelet ends a deleted pod as Failed; without the condition DisruptionTarget the Job would fail for good."""
    node, other = site.nodes(2)
    site.policy(drain={"timeout": "4s", "onTimeout": "Delete"})
    marks = {"rescheduler.dev/do-not-disrupt": "true", "cluster/never-ends": "true"}
    job = workloads.job("train", site.name, after="1h", annotations=marks, **site.here())
    ignored = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    job["spec"] |= {"backoffLimit": 0, "podFailurePolicy": {"rules": [ignored]}}
    site.plane.kubectl("cordon", other)
    site.plane.apply(job)
    until(lambda: [p["status"]["phase"] for p in site.observer.pods(site.name, node=node)] == ["Running"], "its pod")
    site.plane.kubectl("uncordon", other)
    (first,) = (p["metadata"]["name"] for p in site.observer.pods(site.name))
    site.annotate(node)
    until(lambda: "deletionTimestamp" in site.plane.get("pod", first, "-n", site.name)["metadata"], "the delete")
    ended = json.dumps({"status": {"phase": "Failed"}})
    site.plane.kubectl("patch", "pod", first, "-n", site.name, "--subresource=status", "--type=merge", "-p", ended)
    until(lambda: [n for n in site.left(other) if n != first], "another pod of the Job")
    status = site.plane.get("job", "train", "-n", site.name)["status"]
    assert not [c for c in status.get("conditions") or () if c["type"] in ("Failed", "FailureTarget")]
    gone = {"metadata": {"annotations": {"cluster/never-ends": None}}}
    site.plane.kubectl("patch", "pod", first, "-n", site.name, "-p", json.dumps(gone), check=False)
