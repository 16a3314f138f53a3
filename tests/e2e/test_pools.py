"""Pools on the control plane: the labels, taints, counts and moves of the operator."""

import json

import pytest

from e2e.conftest import OPERATOR, Pooled
from harness import workloads
from harness.identities import Identity
from harness.operators import NAMESPACE
from harness.waiting import until


def test_a_pool_marks_what_it_has_says_so_and_leaves_nothing_behind(pooled: Pooled) -> None:
    first, second = pooled.nodes(2)
    name = pooled.pool(exclusive=True)
    for node in (first, second):
        pooled.marked(node, name, name)
    until(lambda: pooled.label() == name, "the namespace to be labelled")
    pooled.says("Ready", "True", "Mapped")
    pooled.says("TaintHeldBack", "False", "Tainted")
    pooled.says("Enforced", "True", "Enforced")
    pooled.says("SurvivesNodeLoss", "Unknown", "NoPods")
    pooled.site.deploy(workloads.deployment("app", 2, pooled.site.name))
    pooled.says("SurvivesNodeLoss", "True", "Fits")
    until(lambda: pooled.status()["pods"] == 2, "the pods to be counted")
    assert pooled.status()["countedAt"]
    assert set(pooled.site.left(first) + pooled.site.left(second)) == {
        pod["metadata"]["name"] for pod in pooled.site.observer.pods(pooled.site.name)
    }
    status = pooled.status()
    assert (status["nodes"], status["readyNodes"], status["namespaces"]) == (2, 2, 1)
    printed = pooled.site.plane.kubectl("get", "nsp", name)
    assert printed.splitlines()[0].split() == [
        "NAME",
        "NODES",
        "READY",
        "NAMESPACES",
        "PODS",
        "UNSCHEDULABLE",
        "OUTSIDE",
        "AGE",
    ]

    pooled.site.patch("nsp", name, {"spec": {"exclusive": False}})
    pooled.marked(first, name)
    pooled.site.plane.kubectl("label", "node", second, "role-")
    pooled.marked(second, None)
    pooled.site.plane.kubectl("delete", "deployment", "app", "-n", pooled.site.name)
    until(lambda: not pooled.site.uids(), "the pods to be gone")
    pooled.site.plane.kubectl("delete", "nsp", name)
    pooled.marked(first, None)
    assert pooled.label() is None


def test_of_two_pools_the_older_keeps_what_both_claim(pooled: Pooled) -> None:
    (node,) = pooled.nodes(1)
    older = pooled.pool()
    pooled.marked(node, older)
    newer = pooled.pool(f"{older}-2")
    said = pooled.says("Conflict", "True", "ClaimedTwice", newer)
    assert f"namespace {pooled.site.name} is kept by pool {older}" in said
    assert f"node {node} is kept by pool {older}" in said
    pooled.says("Conflict", "True", "ClaimedTwice", older)
    assert pooled.mark(node) == (older, [])
    pooled.site.plane.kubectl("delete", "nsp", older)
    pooled.marked(node, newer)
    until(lambda: pooled.label() == newer, "the namespace to be the other pool's")
    pooled.says("Conflict", "False", "NoConflict", newer)


def test_the_taint_waits_while_a_daemon_set_would_lose_pods(pooled: Pooled) -> None:
    (node,) = pooled.nodes(1)
    agent = workloads.daemon_set("agent", pooled.site.name, **pooled.site.here())
    pooled.site.plane.apply(agent)
    until(lambda: pooled.site.left(node), "its pod to run")
    name = pooled.pool(exclusive=True)
    assert f"DaemonSet {pooled.site.name}/agent" in pooled.says("TaintHeldBack", "True", "LastPlace")
    assert pooled.mark(node) == (name, [])
    pooled.site.plane.kubectl("delete", "daemonset", "agent", "-n", pooled.site.name)
    until(lambda: not pooled.site.uids(), "its pod to be gone")
    # It retries in half a minute, and at once for a new node.
    labels = {"site": pooled.site.name, "role": "pool"}
    pooled.site.made += pooled.site.plane.add_nodes(1, prefix=f"{pooled.site.name}-more", labels=labels)
    pooled.marked(node, name, name)


def test_an_audit_pool_changes_nothing_and_counts_what_it_would(pooled: Pooled) -> None:
    (node,) = pooled.nodes(1)
    pooled.nodes(1, role="other")
    elsewhere = {"nodeSelector": {"site": pooled.site.name, "role": "other"}}
    pooled.site.deploy(workloads.deployment("app", 2, pooled.site.name, **elsewhere))
    pooled.pool(mode="Audit", exclusive=True)
    until(lambda: pooled.status().get("podsOutside") == 2, "what is outside to be counted")
    pooled.says("Ready", "False", "Audit")
    assert (pooled.status()["nodes"], pooled.status()["namespaces"], pooled.status()["pods"]) == (1, 1, 2)
    assert pooled.mark(node) == (None, [])
    assert pooled.label() is None


def test_what_is_outside_is_counted_and_so_is_a_stranger(pooled: Pooled) -> None:
    pooled.nodes(1)
    pooled.nodes(1, role="other")
    elsewhere = {"nodeSelector": {"site": pooled.site.name, "role": "other"}}
    pooled.site.deploy(workloads.deployment("app", 3, pooled.site.name, **elsewhere))
    stranger = workloads.namespace(f"{pooled.site.name}-other")
    here = {"nodeSelector": {"site": pooled.site.name, "role": "pool"}}
    pooled.site.plane.apply(stranger, workloads.deployment("guest", 2, f"{pooled.site.name}-other", **here))
    guests = f"{pooled.site.name}-other"
    until(lambda: pooled.site.observer.ready(guests, "guest") == 2, "the guests to run")
    pooled.pool(exclusive=True)
    until(
        lambda: (pooled.status().get("podsOutside"), pooled.status().get("podsForeign")) == (3, 2),
        lambda: f"3 outside and 2 foreign ({pooled.status()})",
    )
    # They have no other place: the taint would end them.
    assert f"pod {guests}/guest" in pooled.says("TaintHeldBack", "True", "LastPlace")
    pooled.site.plane.kubectl("scale", "deployment", "app", "--replicas=1", "-n", pooled.site.name)
    pooled.site.plane.kubectl("delete", "namespace", guests, "--wait=false")
    until(
        lambda: (pooled.status().get("podsOutside"), pooled.status().get("podsForeign")) == (1, 0),
        lambda: f"1 outside and none foreign ({pooled.status()})",
    )


def test_the_label_of_a_pool_that_is_gone_stays_while_pods_select_it(pooled: Pooled) -> None:
    """A kubelet that restarts fails a pod whose node lost a label that the pod selects."""
    (node,) = pooled.nodes(1)
    name = pooled.pool(exclusive=True)
    pooled.marked(node, name, name)
    until(lambda: pooled.label() == name, "the namespace to be labelled")
    pooled.site.deploy(workloads.deployment("app", 1, pooled.site.name))
    pooled.site.plane.kubectl("delete", "nsp", name)
    pooled.marked(node, name)
    until(lambda: pooled.label() is None, "the namespace to lose its label")

    def said() -> bool:
        return any(event["reason"] == "PoolLabelKept" for event in pooled.site.observer.events("Node", node))

    until(said, "the pods to be named that keep it")
    assert pooled.mark(node) == (name, [])


@pytest.mark.every_version("pools", since="1.36")
def test_running_pods_move_into_their_pool_with_their_replacements_first(pooled: Pooled) -> None:
    """Moves wait under a budget that allows nothing, and each pod is moved once."""
    site, space = pooled.site, pooled.site.name
    site.policy()
    home, away = pooled.nodes(2), pooled.nodes(2, role="other")
    web = workloads.deployment("web", 4, space, **site.here())
    site.on_first(away[0], [*home, away[1]], web, workloads.budget("web", space, maxUnavailable=0))
    before = site.uids()
    pooled.pool(existingPods="Move")
    until(lambda: pooled.status().get("podsOutside") == 4, f"4 to be counted outside ({pooled.status()})")
    seen, least = set(before), 4
    causes: set[str] = set()

    def home_again() -> bool:
        nonlocal least
        pods = site.observer.pods(space)
        seen.update(pod["metadata"]["uid"] for pod in pods)
        causes.update(pod["metadata"].get("annotations", {}).get("rescheduler.dev/move", "") for pod in pods)
        least = min(least, site.observer.ready(space, "web"))
        return {pod["spec"].get("nodeName") for pod in pods} <= set(home) and len(pods) == 4

    until(home_again, f"all to be in the pool ({pooled.status()})", seconds=90)
    assert least == 4
    assert len(seen - before) == 4
    assert any(f"NamespacePool/{pooled.name}" in cause for cause in causes)
    until(lambda: pooled.status()["podsOutside"] == 0, "none to be counted outside")
    until(lambda: not pooled.shunned(away[0]), "the source to be as it was")


@pytest.mark.every_version("pools", since="1.36")
def test_strangers_leave_an_exclusive_pools_nodes(pooled: Pooled) -> None:
    site, guests = pooled.site, f"{pooled.site.name}-other"
    site.policy()
    (home,), (away,) = pooled.nodes(1), pooled.nodes(1, role="other")
    site.plane.kubectl("cordon", away)
    site.plane.apply(
        workloads.namespace(guests),
        workloads.deployment("guest", 2, guests, **site.here()),
        workloads.budget("guest", guests, minAvailable=2),
    )
    until(lambda: site.observer.ready(guests, "guest") == 2, "the guests to run")
    site.plane.kubectl("uncordon", away)
    name = pooled.pool(exclusive=True, existingPods="Move")
    until(lambda: pooled.status().get("podsForeign") == 2, f"2 strangers to be counted ({pooled.status()})")
    pooled.marked(home, name, name)

    def left() -> bool:
        assert site.observer.ready(guests, "guest") >= 2
        return len(site.observer.pods(guests, node=away)) == 2 and not site.observer.pods(guests, node=home)

    until(left, f"the guests to have left ({pooled.status()})", seconds=90)
    until(lambda: pooled.status()["podsForeign"] == 0, "no stranger to be counted")
    site.plane.kubectl("delete", "namespace", guests, "--wait=false")


def test_a_pod_with_nowhere_to_go_stays_and_is_named(pooled: Pooled) -> None:
    site, space = pooled.site, pooled.site.name
    pooled.nodes(1)
    (away,) = pooled.nodes(1, role="other")
    elsewhere = {"nodeSelector": {"site": space, "role": "other"}}
    site.deploy(workloads.deployment("pinned", 2, space, **elsewhere))
    before = site.uids(away)

    def classes() -> list[str]:
        return [blocker["class"] for blocker in pooled.status().get("blockers", [])]

    pooled.pool(existingPods="Move")
    until(lambda: set(classes()) == {"NoPolicy"}, f"it to be said that no policy decides ({pooled.status()})")
    site.policy()
    until(lambda: classes() == ["NoRoomInPool"] * 2, f"it to be said that nothing would take them ({pooled.status()})")
    assert site.uids(away) == before
    assert not site.released()


def test_three_exclusive_pools_speak_for_all_at_admission(pooled: Pooled) -> None:
    names = [pooled.pool(f"{pooled.name}-{number}", exclusive=True) for number in range(5)]

    def looked_at() -> set[str]:
        found = pooled.site.plane.get("nsp")["items"]
        return {
            p["metadata"]["name"]
            for p in found
            if "rescheduler.dev/admission-skip" not in p["metadata"].get("labels", {})
        }

    speaking = until(lambda: found if len(found := looked_at()) == 3 else None, "three to speak", seconds=60)
    assert speaking
    pooled.site.plane.kubectl("delete", "nsp", *speaking)
    until(lambda: looked_at() == {*names} - speaking, "the others to speak", seconds=60)


def test_a_refused_write_of_a_pool_is_sent_again_from_what_is_there_now(pooled: Pooled) -> None:
    """The server answers `Invalid` to a label and to a status: the cached object may be old, so it is read again."""
    space, plane = pooled.site.name, pooled.site.plane
    plane.apply(*refusing(space, pooled.name))
    with Identity.of_account(plane, NAMESPACE, "rescheduler") as operator:
        relabel = {"metadata": {"labels": {"rescheduler.dev/pool": "probe"}}}
        until(lambda: "not now" in operator.patch(f"/api/v1/namespaces/{space}", relabel), "the policy to be in force")
    name = pooled.pool()

    def read_again() -> bool:
        calls = pooled.site.calls("namespaces", names=[space]) + pooled.site.calls("namespacepools", names=[name])
        return {call["objectRef"]["resource"] for call in calls if call["verb"] == "get"} == {
            "namespaces",
            "namespacepools",
        }

    until(read_again, "the namespace and the pool to be read")
    assert pooled.label() is None
    plane.kubectl("delete", "validatingadmissionpolicybinding", space)
    until(lambda: pooled.label() == name, "the namespace to be labelled")
    pooled.says("Ready", "False", "NoNodes")
    plane.kubectl("delete", "validatingadmissionpolicy", space)


def refusing(space: str, pool: str) -> list[dict[str, object]]:
    """Refuse the operator's writes on this namespace and on this pool's status, by another vendor's policy."""
    group, meta = "admissionregistration.k8s.io/v1", {"name": space}
    spaces = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["namespaces"], "operations": ["UPDATE"]}
    pools = {"apiGroups": ["rescheduler.dev"], "apiVersions": ["v1alpha1"], "resources": ["namespacepools/status"]}
    ours = f"request.userInfo.username == {json.dumps(OPERATOR)} && request.name in {json.dumps([space, pool])}"
    spec = {
        "matchConstraints": {"resourceRules": [spaces, {**pools, "operations": ["UPDATE"]}]},
        "matchConditions": [{"name": "ours", "expression": ours}],
        "validations": [{"expression": "false", "message": "not now", "reason": "Invalid"}],
    }
    bound = {"policyName": space, "validationActions": ["Deny"]}
    return [
        {"apiVersion": group, "kind": "ValidatingAdmissionPolicy", "metadata": meta, "spec": spec},
        {"apiVersion": group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": meta, "spec": bound},
    ]
