"""Successors: what the template of the owner makes different from the pod that runs."""

from typing import Any

import pytest

from rescheduler.core.model import object_schemas
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.resource_requests import requested_resources
from rescheduler.core.model.workloads import parse_replica_set, scheduling_template
from rescheduler.core.placement import messages
from rescheduler.core.placement.successors import (
    OwnerTemplate,
    Successor,
    replica_set_templates,
    stateful_set_template,
    stateful_set_to_read,
    successor,
)
from unit.builders import controlled_by, raw_pod, raw_replica_set

TOLERATION = {"key": "own", "operator": "Exists"}


def template(*, labels: dict[str, str] | None = None, **fields: Any) -> RawObject:
    raw = raw_pod(labels=labels or {"app": "a"}, **fields)
    return scheduling_template({"metadata": raw["metadata"], "spec": raw["spec"]})


def of(raw: RawObject, own: RawObject | None, latest: RawObject | None = None, **meta: Any) -> Successor:
    """Return the successor of a pod; `latest`: the template of the next pods, if a rollout is under way."""
    pod = object_schemas.sanitize_pod({**raw, "metadata": {**raw["metadata"], **meta}})
    return successor(pod, OwnerTemplate(own, latest if latest is not None else own))


def requests(found: Successor) -> dict[str, int]:
    return dict(requested_resources(found.raw["spec"]))


def test_pod_without_a_known_template_is_its_own_successor() -> None:
    raw = object_schemas.sanitize_pod(raw_pod())
    assert successor(raw, None) == Successor(raw)


def test_what_admission_added_at_creation_comes_back() -> None:
    found = of(raw_pod(cpu="4", labels={"app": "a", "injected": "yes"}, tolerations=[TOLERATION]), template(cpu="1"))
    assert (requests(found), found.unknown_reason, found.note) == ({"cpu": 4000}, None, None)
    assert found.raw["metadata"]["labels"] == {"app": "a", "injected": "yes"}
    assert found.raw["spec"]["tolerations"] == [TOLERATION]


def test_labels_are_those_of_the_template() -> None:
    found = of(raw_pod(labels={"app": "debug", "x": "y"}), template(labels={"app": "a"}))
    assert found.raw["metadata"]["labels"] == {"app": "a", "x": "y"}


def test_pod_resized_in_place_requests_what_its_template_says() -> None:
    found = of(raw_pod(cpu="1"), template(cpu="4"), generation=2)
    assert (requests(found), found.unknown_reason) == ({"cpu": 4000}, None)
    assert found.note == "the template of its owner requests cpu 4 (the pod runs with 1)"


def test_pod_that_was_changed_otherwise_has_no_note() -> None:
    found = of(raw_pod(cpu="1"), template(cpu="1"), generation=2)
    assert (requests(found), found.unknown_reason, found.note) == ({"cpu": 1000}, None, None)


def test_limits_of_a_template_are_the_default_of_its_requests() -> None:
    own = template()
    own["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "3"}}
    assert requests(of(raw_pod(cpu="1"), own, generation=2)) == {"cpu": 3000}


def test_container_of_admission_keeps_its_requests() -> None:
    raw = raw_pod(cpu="1")
    raw["spec"]["containers"].append({"name": "proxy", "resources": {"requests": {"cpu": "100m"}}})
    assert requests(of(raw, template(cpu="4"), generation=2)) == {"cpu": 4100}


@pytest.mark.parametrize(
    ("fields", "meta", "own", "reason"),
    [
        ({"resources": {"memory": "1Gi"}}, {}, {}, messages.CHANGED_POD),  # a LimitRange sets it
        ({}, {"annotations": {"vpaInPlaceUpdated": "true"}}, {}, messages.REQUESTS_OF_VPA),
        ({}, {"annotations": {"vpaUpdates": "x"}}, {}, messages.REQUESTS_OF_VPA),
        ({"tolerations": [TOLERATION]}, {}, {}, messages.CHANGED_POD),
        ({"tolerations": [TOLERATION]}, {}, {"tolerations": [TOLERATION]}, None),
        ({"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]}, {}, {}, None),
        ({}, {}, {"schedulingGates": [{"name": "g"}]}, messages.HAS_SCHEDULING_GATES),
    ],
)
def test_successor_of_a_changed_pod_may_be_unknown(
    fields: dict[str, Any], meta: dict[str, Any], own: dict[str, Any], reason: str | None
) -> None:
    assert of(raw_pod(**fields), template(**own), generation=2, **meta).unknown_reason == reason


def test_changed_pod_without_a_known_template_has_an_unknown_successor() -> None:
    raw = object_schemas.sanitize_pod(raw_pod())
    changed = {**raw, "metadata": {**raw["metadata"], "generation": 2}}
    assert successor(object_schemas.sanitize_pod(changed), None).unknown_reason == messages.CHANGED_POD


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"volumes": [{"name": "c", "configMap": {"name": "web-2"}}]}, None),
        ({"cpu": "2"}, messages.ROLLOUT),
        ({"nodeSelector": {"disk": "ssd"}}, messages.ROLLOUT),
        ({"labels": {"app": "a", "pod-template-hash": "new", "tier": "b"}}, messages.ROLLOUT),
    ],
)
def test_rollout_makes_a_successor_unknown_only_if_it_changes_placement(
    change: dict[str, Any], reason: str | None
) -> None:
    old, new = {"app": "a", "pod-template-hash": "old"}, {"app": "a", "pod-template-hash": "new"}
    found = of(raw_pod(labels=old), template(labels=old), template(**{"labels": new, **change}))
    assert found.unknown_reason == reason
    if reason is None:
        assert found.raw["metadata"]["labels"] == new


def test_rollout_to_an_unknown_template_makes_a_successor_unknown() -> None:
    raw = object_schemas.sanitize_pod(raw_pod())
    assert successor(raw, OwnerTemplate(template(), None)).unknown_reason == messages.ROLLOUT


def sized(name: str, revision: str, *, replicas: int = 1, deployment: str = "web") -> Any:
    raw = raw_replica_set(name, deployment=deployment, revision=revision, replicas=replicas)
    return parse_replica_set({**raw, "spec": {**raw["spec"], "template": {"spec": {"priorityClassName": name}}}})


def test_next_pods_of_a_deployment_are_those_of_its_highest_revision() -> None:
    old, new, other = sized("web-a", "9"), sized("web-b", "10"), sized("api-a", "1", deployment="api")
    found = replica_set_templates([new, old, other])
    assert found["web-a"] == OwnerTemplate(old.template, new.template)
    assert found["web-a"].is_rollout
    assert not found["web-b"].is_rollout
    assert not found["api-a"].is_rollout


def test_replica_set_without_a_deployment_or_a_revision_is_its_own_next() -> None:
    alone, odd = sized("alone", "1", deployment=""), sized("odd-a", "seven", deployment="odd")
    found = replica_set_templates([alone, odd, sized("bare", "2", deployment="")])
    assert not found["alone"].is_rollout
    assert not found["odd-a"].is_rollout


@pytest.mark.parametrize(("update", "known"), [("r1", True), ("r2", False)])
def test_template_of_a_stateful_set_is_that_of_its_pods_without_a_rollout(update: str, known: bool) -> None:
    meta = {"namespace": "s", "name": "db", "uid": "db"}
    status = {"currentRevision": "r1", "updateRevision": update}
    found = stateful_set_template({"metadata": meta, "spec": {"template": template()}, "status": status})
    assert (found.own is not None, found.next) == (known, template())


def test_only_stateful_sets_of_kubernetes_are_read_and_only_for_changed_pods() -> None:
    plain, other = controlled_by(raw_pod(), "StatefulSet", "db"), controlled_by(raw_pod(), "ReplicaSet", "web")
    assert stateful_set_to_read(plain) is None
    assert stateful_set_to_read({**plain, "metadata": {**plain["metadata"], "generation": 2}}) == "db"
    assert stateful_set_to_read({**other, "metadata": {**other["metadata"], "generation": 2}}) is None
    assert stateful_set_to_read({"metadata": {"generation": 2}}) is None
    foreign = {"apiVersion": "apps.kruise.io/v1", "kind": "StatefulSet", "name": "db", "uid": "u", "controller": True}
    assert stateful_set_to_read({"metadata": {"ownerReferences": [foreign], "generation": 2}}) is None
