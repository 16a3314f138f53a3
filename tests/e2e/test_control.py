"""Gates and owners that hold a drain, their time limits, and the result after the limit."""

import json
from datetime import UTC, datetime, timedelta

from e2e.conftest import Site
from harness import workloads
from harness.waiting import until

STUCK = {"minAvailable": "100%"}


def test_a_gate_holds_until_somebody_else_opens_it(site: Site) -> None:
    node, _ = site.nodes(2)
    site.policy(drain={"gates": ["example.com/ceph-noout"]})
    site.annotate(node)
    until(lambda: site.observer.progressing(node) == "Gated", "the gate")
    before = site.observer.node(node)
    assert not before["spec"].get("unschedulable")
    assert "taints" not in before["spec"]
    condition = {
        "type": "example.com/ceph-noout",
        "status": "True",
        "reason": "Set",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    patch = [{"op": "add", "path": "/status/conditions/-", "value": condition}]
    site.plane.kubectl("patch", "nd", node, "--subresource=status", "--type=json", "-p", json.dumps(patch))
    site.phase(node, "Drained")
    drain = site.observer.drain(node)
    assert drain is not None
    assert condition["type"] in {c["type"] for c in drain["status"]["conditions"]}


def test_at_the_timeout_pods_are_deleted_within_their_grace(site: Site) -> None:
    node, other = site.nodes(2)
    site.policy(drain={"replacement": "Never"})
    web = workloads.deployment("web", 2, site.name, grace=4, **site.here())
    site.on_first(node, [other], web, workloads.budget("web", site.name, **STUCK))
    site.annotate(node)
    until(lambda: site.classes(node) == {"BudgetMisconfigured"}, "the blocker")
    site.patch("rsp", site.name, {"spec": {"drain": {"timeout": "12s", "onTimeout": "Delete"}}})
    site.phase(node, "Drained")
    deletes = [call for call in site.calls() if call["verb"] == "delete"]
    assert len(deletes) == 2


def test_at_the_timeout_the_drain_is_cancelled_and_does_not_start_again(site: Site) -> None:
    node, other = site.nodes(2)
    site.plane.kubectl("cordon", other)
    site.policy(drain={"replacement": "Never", "timeout": "6s", "onTimeout": "Cancel"})
    site.deploy(workloads.deployment("web", 1, site.name, **site.here()), workloads.budget("web", site.name, **STUCK))
    site.annotate(node)
    cancelled = "rescheduler.dev/cancelled"
    until(lambda: cancelled in site.observer.node(node)["metadata"].get("annotations", {}), "the drain to be cancelled")
    site.gone(node)
    found = site.observer.node(node)
    assert not found["spec"].get("unschedulable")
    assert json.loads(found["metadata"]["annotations"][cancelled]) == {"Maintenance": "test"}
    site.says(node, "Cordoned", "TimedOut")
    assert len(site.left(node)) == 1


def test_a_drain_waits_for_its_window_and_a_hand_made_one_does_not(site: Site) -> None:
    node, other = site.nodes(2)
    far = (datetime.now(UTC) + timedelta(days=2)).strftime("%M %H %d %m *")
    backwards = {"schedule": "0 22-6 * * *", "duration": "1h"}
    site.policy(maintenance={"windows": [{"schedule": far, "duration": "1h"}, backwards]})

    def messages() -> dict[str, str]:
        return {e["reason"]: e["message"] for e in site.observer.events("ReschedulePolicy", site.name)}

    until(lambda: "22-23,0-6" in messages().get("WindowIgnored", ""), "the Event on the policy")
    site.annotate(node)
    until(lambda: site.observer.progressing(node) == "Window", "the window")
    assert not site.observer.node(node)["spec"].get("unschedulable")
    body = {"apiVersion": "rescheduler.dev/v1alpha1", "kind": "NodeDrain", "metadata": {"name": other}}
    site.plane.apply(body | {"spec": {"nodeName": other, "requests": [{"reason": "Manual"}]}})
    site.phase(other, "Drained")
    site.plane.kubectl("delete", "nd", other, "--wait=false")
    near = {"maintenance": {"windows": [{"schedule": "* * * * *", "duration": "2m"}]}}
    site.patch("rsp", site.name, {"spec": near})
    site.phase(node, "Drained")


def test_do_not_disrupt_is_named_until_it_is_over(site: Site) -> None:
    node, _other = site.nodes(2)
    site.plane.kubectl("cordon", _other)
    site.policy()
    annotations = {"rescheduler.dev/do-not-disrupt": "true"}
    site.deploy(workloads.deployment("web", 1, site.name, annotations=annotations, **site.here()))
    site.plane.kubectl("uncordon", _other)
    site.annotate(node)
    until(lambda: site.classes(node) == {"DoNotDisrupt"}, "the blocker")
    (pod,) = site.left(node)
    site.plane.kubectl("annotate", "pod", pod, "-n", site.name, "rescheduler.dev/do-not-disrupt-")
    site.phase(node, "Drained")


def test_a_lower_order_is_gone_before_the_next_starts(site: Site) -> None:
    node, _ = site.nodes(2)
    rules = [
        {"podSelector": {"matchLabels": {"app": "first"}}, "order": -5},
        {"podSelector": {"matchLabels": {"app": "kept"}}, "action": "Skip"},
        {"podSelector": {"matchLabels": {"app": "ends"}}, "action": "WaitCompleted", "order": 9},
    ]
    site.policy(drain={"replacement": "Never", "rules": rules})
    objects = [workloads.deployment(app, 1, site.name, **site.here()) for app in ("first", "second", "kept")]
    site.plane.kubectl("cordon", _)
    site.deploy(*objects, workloads.budget("first", site.name, **STUCK))
    site.plane.apply(workloads.job("ends", site.name, after="12s", **site.here()))
    until(lambda: len(site.left(node)) == 4, "all to run")
    site.plane.kubectl("uncordon", _)
    site.annotate(node)
    until(lambda: "BudgetMisconfigured" in site.classes(node), "the first to block")
    assert len(site.left(node)) == 4
    site.plane.kubectl("delete", "pdb", "first", "-n", site.name)
    site.phase(node, "Drained")
    assert [pod.split("-")[0] for pod in site.left(node)] == ["kept"]


def test_a_node_condition_asks_for_maintenance(site: Site) -> None:
    node, _ = site.nodes(2)
    site.policy(maintenance={"conditions": [{"type": "FanBroken", "status": ["True"], "for": "1s"}]})

    def fan(status: str) -> None:
        condition = {"type": "FanBroken", "status": status, "reason": "Detector", "message": ""}
        body = json.dumps({"status": {"conditions": [condition]}})
        site.plane.kubectl("patch", "node", node, "--subresource=status", "-p", body)

    fan("True")
    site.phase(node, "Drained")
    drain = site.observer.drain(node)
    assert drain is not None
    assert drain["spec"]["requests"][0]["message"].startswith("FanBroken is True")
    fan("False")
    site.gone(node)
    assert not site.observer.node(node)["spec"].get("unschedulable")
