"""Changes during a drain: policies, owners, other controllers, webhooks, late pods."""

import json
from typing import Any

import pytest

from e2e.conftest import Site
from harness import webhooks, workloads
from harness.operators import Operator
from harness.waiting import until

SLOW = {"cluster/ready-after": "2s"}


def web(site: Site, replicas: int, **template: Any) -> dict[str, Any]:
    return workloads.deployment("web", replicas, site.name, **template, **site.here())


def test_only_pods_whose_budget_is_spent_are_replaced_first(site: Site, operator: Operator) -> None:
    first, *others = site.nodes(3)
    site.policy(drain={"replacement": "WhenBlocked"})
    tight = workloads.deployment("tight", 1, site.name, **site.here())
    site.on_first(first, others, web(site, 2), tight, workloads.budget("tight", site.name, minAvailable=1))
    site.annotate(first)
    site.phase(first, "Drained")
    log = [json.loads(line) for line in operator.log.read_text().splitlines() if line.startswith("{")]
    released = {e["pod"].split("/")[1] for e in log if e.get("node") == first and e["event"] == "pod.released"}
    assert {name.split("-")[0] for name in released} == {"tight"}
    assert not site.left(first)


def test_a_required_replacement_that_cannot_be_had_holds_the_pod(site: Site) -> None:
    first, *others = site.nodes(2)
    site.policy(drain={"replacement": "Required", "replacementTimeout": "2s"})
    site.on_first(first, others, web(site, 2))
    site.plane.kubectl("create", "quota", "full", "-n", site.name, "--hard=pods=2")
    until(lambda: site.plane.get("quota", "full", "-n", site.name).get("status", {}).get("used"), "the quota to count")
    uids = site.uids()
    site.annotate(first)
    until(lambda: site.classes(first) == {"ReplacementNotReady"}, "the blocker")
    until(lambda: not site.released(), "the pod to be given back")
    assert site.uids() == uids
    site.plane.kubectl("delete", "quota", "full", "-n", site.name)
    for name in site.left(first):
        site.plane.kubectl("annotate", "pod", name, "-n", site.name, "rescheduler.dev/replacement=Never")
    site.phase(first, "Drained")


@pytest.mark.parametrize(("replicas", "by_hpa"), [(1, False), (5, True)])
def test_scaled_in_the_middle_it_comes_to_what_is_wanted(site: Site, replicas: int, by_hpa: bool) -> None:
    first, *others = site.nodes(3)
    site.policy()
    site.on_first(first, others, web(site, 3), workloads.budget("web", site.name, maxUnavailable=1))
    site.release_one(first, others)
    if by_hpa:
        command = ("autoscale", "deploy", "web", "-n", site.name, f"--min={replicas}", f"--max={replicas}", "--cpu=50%")
        site.plane.kubectl(*command)
    else:
        site.plane.kubectl("scale", "deploy", "web", "-n", site.name, f"--replicas={replicas}")
    until(
        lambda: site.plane.get("deploy", "web", "-n", site.name)["spec"]["replicas"] == replicas,
        "the new count",
    )
    site.plane.kubectl("uncordon", *others)
    site.phase(first, "Drained")
    until(lambda: site.observer.ready(site.name, "web") == replicas, "the pods to be Ready")
    until(lambda: len(site.observer.pods(site.name)) == replicas, "the others to be gone")
    assert not site.released()


def test_a_policy_deleted_in_the_middle_gives_pods_back_and_keeps_the_cordon(site: Site) -> None:
    first, *others = site.nodes(2)
    site.policy()
    site.on_first(first, others, web(site, 2))
    uids = site.uids()
    site.release_one(first, others)
    site.plane.kubectl("delete", "rsp", site.name)
    until(lambda: site.observer.progressing(first) == "NoPolicy", "the drain to say so")
    until(lambda: site.uids() == uids and not site.released(), "the pods to be given back")
    assert site.observer.node(first)["spec"]["unschedulable"]
    site.plane.kubectl("uncordon", *others)
    site.policy()
    site.phase(first, "Drained")


def test_a_policy_that_outranks_decides_from_then_on(site: Site) -> None:
    first, *others = site.nodes(2)
    site.policy()
    site.on_first(first, others, web(site, 2), workloads.budget("web", site.name, minAvailable="100%"))
    site.release_one(first, others)
    upper = workloads.policy(
        f"{site.name}-upper", priority=9, suspend="All", nodeSelector={"matchLabels": {"site": site.name}}
    )
    site.plane.apply(upper)
    try:
        until(lambda: site.observer.progressing(first) == "Suspended", "the drain to be suspended")
        until(lambda: not site.released(), "the pod to be given back")
        drain = site.observer.drain(first) or {}
        assert drain["status"]["policy"]["name"] == f"{site.name}-upper"
    finally:
        site.plane.kubectl("delete", "rsp", f"{site.name}-upper")
    site.plane.kubectl("uncordon", *others)
    site.phase(first, "Drained")


def test_an_edited_policy_and_the_drains_own_words_hold_from_then_on(site: Site) -> None:
    first, other = site.nodes(2)
    site.policy(drain={"rules": [{"podSelector": {"matchLabels": {"app": "web"}}, "action": "WaitCompleted"}]})
    site.on_first(first, [other], web(site, 2))
    site.annotate(first)
    until(lambda: site.classes(first) == {"WaitCompleted"}, "the rule to hold the pods")
    site.patch("rsp", site.name, {"spec": {"drain": {"rules": [], "unmanaged": "Block"}}})
    site.phase(first, "Drained")
    site.annotate(first, None)
    site.gone(first)
    site.plane.apply(workloads.bare_pod("alone", site.name, nodeName=first))
    until(lambda: site.left(first), "the pod")
    drain = {"apiVersion": "rescheduler.dev/v1alpha1", "kind": "NodeDrain", "metadata": {"name": first}}
    spec = {"nodeName": first, "requests": [{"reason": "Manual"}], "drain": {"unmanaged": "Evict"}}
    site.plane.apply(drain | {"spec": spec})
    site.phase(first, "Drained")
    site.plane.kubectl("delete", "nd", first, "--wait=false")
    site.gone(first)


def test_a_gate_that_another_controller_keeps_is_its_own(site: Site) -> None:
    node, _ = site.nodes(2)
    site.policy(drain={"gates": ["example.com/approved"]})
    site.annotate(node)
    until(lambda: site.observer.progressing(node) == "Gated", "the gate")
    kind = {"apiVersion": "rescheduler.dev/v1alpha1", "kind": "NodeDrain", "metadata": {"name": node}}

    def says(status: str, message: str) -> None:
        condition = {"type": "example.com/approved", "status": status, "reason": "Asked", "message": message}
        condition["lastTransitionTime"] = "2026-01-01T00:00:00Z"
        path = site.plane.workdir / f"{node}.json"
        path.write_text(json.dumps(kind | {"status": {"conditions": [condition]}}))
        command = ("apply", "--server-side", "--field-manager=approver", "--subresource=status", "-f", str(path))
        site.plane.kubectl(*command)

    says("False", "not yet")
    site.plane.kubectl("annotate", "nd", node, "seen=yes")
    assert site.observer.progressing(node) == "Gated"
    says("True", "go")
    site.phase(node, "Drained")
    says("False", "too late")  # applied without a conflict: nobody else owns the entry
    found = next(
        c for c in (site.observer.drain(node) or {})["status"]["conditions"] if c["type"].startswith("example")
    )
    assert (found["status"], found["message"]) == ("False", "too late")
    assert site.observer.phase(node) == "Drained"


@pytest.mark.parametrize(
    ("code", "taken"),
    [
        (429, 'Eviction triggered evacuation of VMI "shop/vm"'),  # KubeVirt's answer
        (500, "The pod will be rolled by the Strimzi Cluster Operator"),
    ],
)
def test_an_eviction_that_a_webhook_takes_over_is_waited_for(site: Site, code: int, taken: str) -> None:
    node, other = site.nodes(2)
    site.policy()
    site.on_first(node, [other], workloads.stateful_set("vm", 1, site.name, **site.here()))
    with webhooks.evictions(site.plane, site.name, lambda _: (code, taken)) as asked:
        site.annotate(node)
        until(lambda: site.classes(node) == {"Delegated"}, "the blocker")
        blocker = (site.observer.drain(node) or {})["status"]["blockers"][0]
        assert taken in blocker["message"]
        site.plane.kubectl("delete", "pod", "vm-0", "-n", site.name)  # the webhook's owner deletes it later
        site.phase(node, "Drained")
        assert len(asked) <= 2


def test_an_eviction_that_a_webhook_denies_is_named_and_blocks_nobody_else(site: Site) -> None:
    node, other = site.nodes(2)
    site.policy()
    site.on_first(node, [other], web(site, 2), workloads.stateful_set("db", 1, site.name, **site.here()))

    def decide(pod: str) -> tuple[int, str] | None:
        return (403, "ask the database team") if pod == "db-0" else None

    with webhooks.evictions(site.plane, site.name, decide) as asked:
        site.annotate(node)
        until(lambda: site.classes(node) == {"AdmissionDenied"}, "the blocker")
        until(lambda: site.left(node) == ["db-0"], "the others to go")
        blocker = (site.observer.drain(node) or {})["status"]["blockers"][0]
        assert "ask the database team" in blocker["message"]
        assert asked.count("db-0") <= 2


def test_a_pod_that_lands_after_the_first_list_leaves_too(site: Site) -> None:
    node, _ = site.nodes(2)
    site.policy(drain={"unmanaged": "Evict"})
    site.annotate(node)
    until(lambda: site.observer.node(node)["spec"].get("unschedulable"), "the cordon")
    site.plane.apply(workloads.bare_pod("late", site.name, nodeName=node))
    until(lambda: not site.left(node), "it to leave")
    site.phase(node, "Drained")
    site.plane.apply(workloads.bare_pod("later", site.name, nodeName=node))
    until(lambda: not site.left(node), "that one to leave too")
    site.phase(node, "Drained")


def freeze(site: Site) -> None:
    """Refuse changes by the policy of another vendor: a node's label `frozen` names what must not change."""
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": site.name}}
    spec = (
        "object.metadata.labels.frozen != 'spec' || has(object.spec.unschedulable) == has(oldObject.spec.unschedulable)"
    )
    notes = "object.metadata.labels.frozen != 'annotations' || object.metadata.annotations == oldObject.metadata.annotations"
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["nodes"]}]
    policy = {
        "matchConstraints": {"resourceRules": rules, "objectSelector": {"matchLabels": {"site": site.name}}},
        "matchConditions": [{"name": "frozen", "expression": "'frozen' in object.metadata.labels"}],
        "validations": [{"expression": rule, "message": "this node is frozen"} for rule in (spec, notes)],
    }
    binding = {"policyName": site.name, "validationActions": ["Deny"]}
    site.plane.apply(
        {**kind, "kind": "ValidatingAdmissionPolicy", "spec": policy},
        {**kind, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding},
    )


def why(site: Site, node: str) -> str:
    """Return the message of a drain's progress."""
    found = (site.observer.drain(node) or {}).get("status", {}).get("conditions", [])
    return next((c["message"] for c in found if c["type"] == "Progressing"), "")


def test_a_write_on_a_node_that_a_policy_refuses_is_named_and_the_rest_is_done(site: Site) -> None:
    cordons, restores = site.nodes(2)
    site.policy()
    site.on_first(cordons, [restores], web(site, 1))
    site.annotate(restores)
    site.phase(restores, "Drained")
    freeze(site)
    try:
        site.plane.kubectl("label", "node", cordons, "frozen=spec")
        site.plane.kubectl("label", "node", restores, "frozen=annotations")
        dry = ("cordon", cordons, "--dry-run=server")
        until(lambda: "frozen" in site.plane.kubectl(*dry, check=False), "the policy to be in force")
        site.annotate(cordons)
        site.plane.kubectl("delete", "nodedrain", restores, "--wait=false")
        until(lambda: "cannot be cordoned" in why(site, cordons), lambda: why(site, cordons))
        assert "this node is frozen" in why(site, cordons)
        until(lambda: "unschedulable" not in site.observer.node(restores)["spec"], "the node to be uncordoned")
        until(lambda: "annotated with the cancelled request" in why(site, restores), lambda: why(site, restores))
        assert site.observer.phase(restores) == "Restoring"
        site.annotate(cordons, None)
        site.gone(cordons)
        assert len(site.left(cordons)) == 1
        assert not site.evictions()
        site.plane.kubectl("label", "node", restores, "frozen-")
        site.gone(restores)
        assert "rescheduler.dev/cancelled" in site.observer.node(restores)["metadata"]["annotations"]
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            site.plane.kubectl("delete", kind, site.name, "--ignore-not-found")
