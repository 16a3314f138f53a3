"""Replacement first: the new pod is Ready before the old one leaves, with the real scheduler and controllers."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from e2e.conftest import Site
from harness import workloads
from harness.min_ready import lowest_ready, ready
from harness.waiting import repeated, until


@pytest.mark.parametrize("budget", [{"minAvailable": 1}, {"maxUnavailable": 0}, {"minAvailable": "100%"}, None])
@pytest.mark.every_version("replacement first")
def test_a_single_replica_moves_without_a_gap(site: Site, budget: dict[str, Any] | None) -> None:
    first, *others = site.nodes(3)
    site.policy()
    objects = [workloads.deployment("web", 1, site.name, **site.here())]
    objects += [workloads.budget("web", site.name, **budget)] if budget else []
    site.on_first(first, others, *objects)
    before = site.plane.get("deployment", "web", "-n", site.name)
    with lowest_ready(site.observer, site.name, "web") as lowest:
        site.annotate(first)
        site.phase(first, "Drained")
    assert lowest["web"] == 1
    assert not site.left(first)
    after = site.plane.get("deployment", "web", "-n", site.name)
    assert (after["spec"], after["metadata"]["generation"]) == (before["spec"], before["metadata"]["generation"])
    assert len(site.observer.pods(site.name)) == 1
    assert not site.released()


def shared(made: dict[str, Any]) -> dict[str, Any]:
    """Return the object with a label on its pods that the selectors of all neighbours match."""
    made["spec"]["template"]["metadata"]["labels"]["team"] = "shared"
    return made


def adopting(made: dict[str, Any]) -> dict[str, Any]:
    """Return a neighbour that adopts each pod with that label and without a controller."""
    made["spec"]["selector"] = {"matchLabels": {"team": "shared"}}
    return shared(made)


@contextmanager
def pruner(site: Site) -> Iterator[list[str]]:
    """Delete pods without an owner as a GitOps tool does that tracks by label; yield the deleted pods."""
    pruned = list[str]()

    def prune() -> None:
        for pod in site.observer.pods(site.name):
            if not pod["metadata"].get("ownerReferences"):
                pruned.append(pod["metadata"]["name"])
                site.plane.kubectl("delete", "pod", pod["metadata"]["name"], "-n", site.name, "--wait=false")

    with repeated(prune, every=0.05):
        yield pruned


def guard(site: Site) -> list[dict[str, Any]]:
    """Refuse each write of a pod without a controller, and each change of a pod's labels, by a policy."""
    name = f"{site.name}-guard"
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["pods"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": site.name}}
    owned = "has(object.metadata.ownerReferences) && object.metadata.ownerReferences.exists(o, o.controller)"
    kept = "oldObject == null || object.metadata.labels == oldObject.metadata.labels"
    policy = {
        "matchConstraints": {"namespaceSelector": here, "resourceRules": [rule]},
        "validations": [{"expression": owned, "reason": "Forbidden"}, {"expression": kept, "reason": "Forbidden"}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    return [
        {**kind, "kind": "ValidatingAdmissionPolicy", "spec": policy},
        {**kind, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding},
    ]


def test_beside_controllers_pruners_and_policies_that_mind_orphans_a_single_replica_has_no_gap(site: Site) -> None:
    """Under each budget of the test above, with all neighbours: none of them finds a pod without a controller."""
    first, *others = site.nodes(3)
    site.policy()
    budgets = {
        "none": None,
        "least": {"minAvailable": 1},
        "most": {"maxUnavailable": 0},
        "all": {"minAvailable": "100%"},
    }
    objects = [shared(workloads.deployment(app, 1, site.name, **site.here())) for app in budgets]
    objects += [workloads.budget(app, site.name, **spec) for app, spec in budgets.items() if spec]
    site.on_first(first, others, *objects)
    site.plane.apply(
        adopting(workloads.daemon_set("agent", site.name, **site.here())),
        adopting(workloads.replica_set("bare", 1, site.name, **site.here())),
    )
    until(lambda: site.observer.ready(site.name, "agent") == 3, "the agents to run")
    until(lambda: site.observer.ready(site.name, "bare") == 1, "the bare ReplicaSet to run")
    policies = guard(site)
    site.plane.apply(*policies)
    orphan = workloads.bare_pod("orphan", site.name)
    create = ("create", "--dry-run=server", "-f", "-")
    until(lambda: "denied" in site.plane.kubectl(*create, input=json.dumps(orphan), check=False), "the policy")
    agents = {p["metadata"]["uid"] for p in site.observer.pods(site.name) if p["metadata"]["labels"]["app"] == "agent"}
    try:
        with lowest_ready(site.observer, site.name, *budgets, "agent") as lowest, pruner(site) as pruned:
            site.annotate(first)
            site.phase(first, "Drained")
    finally:
        for policy in policies:
            site.plane.kubectl("delete", policy["kind"], policy["metadata"]["name"])
    assert lowest == dict.fromkeys(budgets, 1) | {"agent": 3}
    assert not pruned
    assert agents == {
        p["metadata"]["uid"] for p in site.observer.pods(site.name) if p["metadata"]["labels"]["app"] == "agent"
    }
    assert not site.released()


@pytest.mark.every_version("replacement first")
def test_ten_replicas_under_one_disruption_keep_their_full_count(site: Site) -> None:
    first, *others = site.nodes(3)
    site.policy()
    web = workloads.deployment("web", 10, site.name, **site.here())
    site.on_first(first, others, web, workloads.budget("web", site.name, maxUnavailable=1))
    with lowest_ready(site.observer, site.name, "web") as lowest:
        site.annotate(first)
        site.phase(first, "Drained")
    assert lowest["web"] == 10


@pytest.mark.every_version("replacement first")
def test_cancelled_in_the_middle_the_old_pods_go_back(site: Site) -> None:
    first, *others = site.nodes(2)
    site.policy()
    web = workloads.deployment("web", 4, site.name, annotations={"cluster/ready-after": "1s"}, **site.here())
    site.on_first(first, others, web)
    site.release_one(first, others)
    uids = site.uids(first)
    site.annotate(first, None)
    site.gone(first)
    until(lambda: len(site.observer.pods(site.name)) == 4, "four pods")
    assert site.uids() == uids
    for pod in site.observer.pods(site.name):
        annotations = pod["metadata"].get("annotations", {})
        assert "rescheduler.dev/move" not in annotations
        assert "controller.kubernetes.io/pod-deletion-cost" not in annotations
        assert pod["metadata"]["ownerReferences"]


def test_deleting_the_drain_in_the_foreground_deletes_no_pod(site: Site) -> None:
    first, *others = site.nodes(2)
    site.policy()
    site.on_first(first, others, workloads.deployment("web", 2, site.name, **site.here()))
    uids = site.uids()
    site.release_one(first, others)
    site.plane.kubectl("delete", "nd", first, "--cascade=foreground", "--timeout=90s")
    until(lambda: len(site.observer.pods(site.name)) == 2, "two pods")
    assert site.uids() == uids


def test_a_replacement_that_is_never_ready_holds_the_pod_for_three_attempts(site: Site) -> None:
    first, *others = site.nodes(2)
    site.policy(drain={"replacementTimeout": "4s"})
    site.plane.kubectl("cordon", *others)
    never = {"cluster/never-ready": "true"}
    site.plane.apply(workloads.deployment("web", 1, site.name, annotations=never, **site.here()))
    until(lambda: site.left(first), "the pod")
    site.serve(first)
    site.plane.kubectl("uncordon", *others)
    (uid,) = site.uids()
    site.annotate(first)
    until(lambda: site.classes(first) == {"ReplacementNotReady"}, "the blocker")
    assert uid in {p["metadata"]["uid"] for p in site.observer.pods(site.name) if ready(p)}
    site.phase(first, "Drained")
    assert not site.released()


def test_a_gated_replacement_is_named_and_its_pod_leaves_within_its_budget(site: Site) -> None:
    """The gate opens once a pod has left, as a queue with a quota does it."""
    first, *others = site.nodes(2)
    site.policy(drain={"replacementTimeout": "4s"})
    gated = {"schedulingGates": [{"name": "example.com/queue"}]}
    objects = [workloads.deployment(app, count, site.name, **gated, **site.here()) for app, count in QUEUED.items()]

    def admit() -> None:
        for app, count in QUEUED.items():
            pods = [p for p in site.observer.pods(site.name) if p["metadata"]["labels"]["app"] == app]
            for pod in [p for p in pods if p["spec"].get("schedulingGates")][: count - sum(map(is_admitted, pods))]:
                site.patch("pod", pod["metadata"]["name"], {"spec": {"schedulingGates": []}}, "-n", site.name)

    with repeated(admit, every=0.2):
        site.on_first(first, others, *objects, workloads.budget("pair", site.name, maxUnavailable=1))
        with lowest_ready(site.observer, site.name, *QUEUED) as lowest:
            site.annotate(first)
            site.phase(first, "Drained")
    assert lowest["pair"] == 1
    events = site.plane.get("events", "-n", site.name, "--field-selector=reason=NotReplacedFirst")["items"]
    kinds = {event["involvedObject"]["kind"] for event in events if "example.com/queue" in event["message"]}
    assert kinds == {"Pod", "ReplicaSet"}


QUEUED = {"pair": 2, "single": 1}
"""Replicas by app; the queue admits as many pods."""


def is_admitted(pod: dict[str, Any]) -> bool:
    """Whether no gate holds the pod; a pod that ends still counts in the quota of the queue."""
    return not pod["spec"].get("schedulingGates")


def test_a_paused_deployment_and_a_stuck_rollout_move_without_a_gap(site: Site) -> None:
    first, *others = site.nodes(2)
    site.policy(drain={"replacementTimeout": "3s"})
    objects = [workloads.deployment(app, 1, site.name, **site.here()) for app in ("paused", "stuck")]
    site.on_first(first, others, *objects)
    site.plane.kubectl("rollout", "pause", "deploy/paused", "-n", site.name)
    image = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "other"}]}}}}
    site.patch("deployment", "paused", image, "-n", site.name)
    never = {"metadata": {"annotations": {"cluster/never-ready": "true"}}}
    site.patch("deployment", "stuck", {"spec": {"template": never}}, "-n", site.name)
    until(lambda: len(site.observer.pods(site.name)) == 3, "the rollout to begin")
    with lowest_ready(site.observer, site.name, "paused", "stuck") as lowest:
        site.annotate(first)
        site.phase(first, "Drained")
    assert lowest == {"paused": 1, "stuck": 1}
    assert not site.released()


def test_scaled_to_nothing_in_the_middle_the_released_pod_goes_too(site: Site) -> None:
    first, *others = site.nodes(2)
    site.policy()
    web = workloads.deployment("web", 2, site.name, **site.here())
    site.on_first(first, others, web, workloads.budget("web", site.name, maxUnavailable=1))
    site.release_one(first, others)
    site.plane.kubectl("scale", "deploy", "web", "-n", site.name, "--replicas=0")
    site.phase(first, "Drained")
    until(lambda: not site.observer.pods(site.name), "no pod to be left")


def test_a_deployment_deleted_in_the_middle_leaves_nothing(site: Site) -> None:
    first, *others = site.nodes(2)
    site.policy()
    web = workloads.deployment("web", 2, site.name, **site.here())
    site.on_first(first, others, web, workloads.budget("web", site.name, maxUnavailable=1))
    site.release_one(first, others)
    site.plane.kubectl("delete", "deploy", "web", "-n", site.name)
    site.phase(first, "Drained")
    until(lambda: not site.observer.pods(site.name), "no pod to be left")


def images(site: Site) -> list[str]:
    return [pod["spec"]["containers"][0]["image"] for pod in site.observer.pods(site.name)]


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_rollout_in_the_middle_ends_well(site: Site, cancelled: bool) -> None:
    """If the drain is cancelled and the old ReplicaSet is gone, pods are not returned to be deleted at once."""
    first, *others = site.nodes(3)
    site.policy()
    web = workloads.deployment("web", 4, site.name, **site.here())
    web["spec"]["revisionHistoryLimit"] = 0
    site.on_first(first, others, web)
    site.plane.kubectl("cordon", *others)
    with lowest_ready(site.observer, site.name, "web") as lowest:
        site.annotate(first)
        until(site.released, "a pod to be released")
        image = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "other"}]
        site.plane.kubectl("patch", "deploy", "web", "-n", site.name, "--type=json", "-p", json.dumps(image))
        if cancelled:
            until(lambda: len(site.plane.get("rs", "-n", site.name)["items"]) == 2, "the rollout to begin")
            site.annotate(first, None)
        site.plane.kubectl("uncordon", *others)
        if cancelled:
            site.gone(first)
        else:
            site.phase(first, "Drained")
    assert lowest["web"] >= 3  # the rollout itself may take one away
    until(lambda: images(site) == ["other"] * 4, "four pods, all of them new")
    assert not site.released()


@pytest.mark.parametrize(("spare", "least"), [(0, 1), (1, 2)])
def test_a_quota_costs_a_ready_pod_only_if_it_has_no_room_for_one_more(site: Site, spare: int, least: int) -> None:
    first, *others = site.nodes(2)
    site.policy()
    site.on_first(first, others, workloads.deployment("web", 2, site.name, grace=3, **site.here()))
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": site.name}}
    site.plane.apply(quota | {"spec": {"hard": {"pods": str(2 + spare)}}})
    until(lambda: site.plane.get("quota", "q", "-n", site.name).get("status", {}).get("used"), "the quota to count")
    with lowest_ready(site.observer, site.name, "web") as lowest:
        site.annotate(first)
        site.phase(first, "Drained")
    assert lowest["web"] >= least


def test_no_room_holds_until_an_autoscaler_adds_a_node(site: Site) -> None:
    first, second = site.nodes(2, cpu="4")
    site.policy(drain={"replacementTimeout": "3s"})

    def asks(cpu: str) -> dict[str, Any]:
        requests = {"name": "app", "image": "simulated", "resources": {"requests": {"cpu": cpu}}}
        return {"containers": [requests], **site.here()}

    def said(app: str) -> str:
        found = (site.observer.drain(first) or {}).get("status", {}).get("blockers", [])
        return next((b["message"] for b in found if b["pod"].startswith(app) and b["class"] == "NoRoomInPool"), "")

    web = workloads.deployment("web", 1, site.name, **asks("2"))
    db = workloads.stateful_set("db", 1, site.name, **asks("1500m"))
    site.on_first(first, [second], web, db)
    site.on_first(second, [first], workloads.deployment("other", 1, site.name, **asks("3")))
    before = site.uids(first)
    with lowest_ready(site.observer, site.name, "web") as lowest:
        site.annotate(first)
        # A pod that cannot be replaced first is held at once; the others are tried, so that an autoscaler sees them.
        until(lambda: "with too little cpu" in said("db"), "the plan's word")
        until(lambda: "Insufficient cpu" in said("web"), "the scheduler's word")
        assert site.uids(first) == before
        site.plane.add_nodes(1, prefix=f"{site.name}-extra", labels={"site": site.name})
        site.made.append(f"{site.name}-extra1")
        site.phase(first, "Drained", seconds=120)
    assert lowest["web"] == 1


def test_the_owners_annotation_is_the_last_word(site: Site) -> None:
    first, *others = site.nodes(2)
    site.policy()
    annotations = {"rescheduler.dev/replacement": "Never", "cluster/ready-after": "2s"}
    site.on_first(first, others, workloads.deployment("web", 1, site.name, annotations=annotations, **site.here()))
    with lowest_ready(site.observer, site.name, "web") as lowest:
        site.annotate(first)
        site.phase(first, "Drained")
    assert lowest["web"] == 0


@pytest.mark.every_version("plans")
def test_pod_moves_to_another_node_with_its_extended_resource(site: Site) -> None:
    """The plan asks for DeviceClasses, which Kubernetes before 1.34 does not serve."""
    first, second = site.nodes(2)
    site.policy()
    resource = f"example.com/{site.name}"
    size = json.dumps({"status": {"capacity": {resource: "1"}, "allocatable": {resource: "1"}}})
    for node in (first, second):
        site.plane.kubectl("patch", "node", node, "--subresource=status", "-p", size)
    container = {"name": "app", "image": "simulated", "resources": {"limits": {resource: "1"}}}
    site.on_first(first, [second], workloads.stateful_set("db", 1, site.name, containers=[container], **site.here()))
    site.annotate(first)
    site.phase(first, "Drained")
    until(lambda: site.left(second) == ["db-0"], "the pod on the other node")


def test_resource_that_a_device_class_may_serve_holds_no_pod_for_room(site: Site) -> None:
    first, second = site.nodes(2)
    site.policy()
    resource = f"example.com/{site.name}"
    size = json.dumps({"status": {"capacity": {resource: "1"}, "allocatable": {resource: "1"}}})
    site.plane.kubectl("patch", "node", first, "--subresource=status", "-p", size)
    device_class = {"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": site.name}}
    site.plane.apply(device_class | {"spec": {"extendedResourceName": resource}})
    container = {"name": "app", "image": "simulated", "resources": {"limits": {resource: "1"}}}
    site.on_first(first, [second], workloads.stateful_set("db", 1, site.name, containers=[container], **site.here()))
    site.annotate(first)
    site.phase(first, "Drained")
    site.plane.kubectl("delete", "deviceclass", site.name)


@pytest.mark.every_version("plans")
def test_pod_resized_in_place_is_held_for_the_room_that_its_template_requests(site: Site) -> None:
    first, second = site.nodes(2, cpu="4")
    site.policy()
    container = {"name": "app", "image": "simulated", "resources": {"requests": {"cpu": "3"}}}
    other = {"name": "app", "image": "simulated", "resources": {"requests": {"cpu": "2"}}}
    site.on_first(second, [first], workloads.deployment("other", 1, site.name, containers=[other], **site.here()))
    site.on_first(first, [second], workloads.stateful_set("db", 1, site.name, containers=[container], **site.here()))
    # The kubelet reports that it can resize the container.
    statuses = site.plane.get("pod", "db-0", "-n", site.name)["status"]["containerStatuses"]
    reported = [{**status, "resources": {"requests": {"cpu": "3"}}} for status in statuses]
    body = json.dumps({"status": {"containerStatuses": reported}})
    site.plane.kubectl("patch", "pod", "db-0", "-n", site.name, "--subresource=status", "--type=merge", "-p", body)
    small = json.dumps({"spec": {"containers": [{"name": "app", "resources": {"requests": {"cpu": "500m"}}}]}})
    site.plane.kubectl("patch", "pod", "db-0", "-n", site.name, "--subresource=resize", "-p", small)
    site.annotate(first)
    until(lambda: site.classes(first) == {"NoRoomInPool"}, lambda: f"the blocker ({site.drain_status(first)})")
    (blocker,) = (site.observer.drain(first) or {})["status"]["blockers"]
    assert "the template of its owner requests cpu 3 (the pod runs with 500m)" in blocker["message"]
    assert site.left(first)
