"""Requirements of pods, and the cases that only the scheduler can decide."""

from typing import Any

import pytest

from rescheduler.api import names
from rescheduler.core.model.node_affinity import NodeConstraints
from rescheduler.core.placement.pod_requirements import (
    PodRequirementsParser,
    host_ports,
    host_ports_conflict,
)
from unit.builders import raw_pod


def test_equal_requirements_are_one_object() -> None:
    asks = PodRequirementsParser()
    own = [{"app": "db", "statefulset.kubernetes.io/pod-name": f"db-{n}"} for n in (0, 1)]
    assert asks.parse(raw_pod("db-0", labels=own[0])) is asks.parse(raw_pod("db-1", labels=own[1]))
    assert asks.parse(raw_pod()) is not asks.parse(raw_pod(priority=5))
    assert asks.parse(raw_pod()) is not asks.parse(raw_pod(labels={"app": "api"}))


def test_a_replacement_is_put_into_its_namespaces_pool() -> None:
    where = PodRequirementsParser({"s": "fast"}).parse(raw_pod(nodeSelector={"disk": "ssd"})).node_constraints.spec
    assert where["nodeSelector"] == {"disk": "ssd", names.NODE_POOL: "fast"}
    assert where["tolerations"] == [{"key": names.POOL, "operator": "Equal", "value": "fast", "effect": "NoSchedule"}]


def test_a_replacement_does_not_select_the_former_pool() -> None:
    where = (
        PodRequirementsParser({"s": "fast"})
        .parse(raw_pod(nodeSelector={names.NODE_POOL: "slow"}))
        .node_constraints.spec
    )
    assert where["nodeSelector"] == {names.NODE_POOL: "fast"}


REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
NEAR = [{"matchExpressions": [{"key": "zone", "operator": "Near", "values": ["a"]}]}]
ZONES = {"topologyKey": "zone", "maxSkew": 1, "labelSelector": {}}


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"schedulerName": "volcano"}, "volcano"),
        ({"resourceClaims": [{"name": "gpu"}]}, "resource claims"),
        ({"schedulingGates": [{"name": "wait"}]}, "gates"),
        ({"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": NEAR}}}}, "node affinity has an operator"),
        ({"topologySpreadConstraints": [{**ZONES, "whenUnsatisfiable": "Never"}]}, "spread has a value"),
        ({"topologySpreadConstraints": [{**ZONES, "nodeTaintsPolicy": "Soften"}]}, "spread has a value"),
        ({"topologySpreadConstraints": [{**ZONES, "nodeAffinityPolicy": "Ignore"}]}, ""),
        ({"volumes": [{"name": "v", "rbd": {}}]}, "disk"),
        ({"volumes": [{"name": "v", "ephemeral": {}}]}, "provisioned"),
        ({"hostNetwork": True, "hostUsers": False}, "feature"),
        ({"schedulingGroup": {}}, ""),
        ({"schedulingGroup": {"name": "g"}}, "group"),
    ],
)
def test_a_case_for_the_scheduler_has_a_reason(spec: dict[str, Any], word: str) -> None:
    doubt = PodRequirementsParser().parse(raw_pod(**spec)).unknown_reason
    assert word in str(doubt) if word else doubt is None


def test_pod_that_kueue_admits_is_left_to_the_scheduler() -> None:
    doubt = PodRequirementsParser().parse(raw_pod(labels={"kueue.x-k8s.io/managed": "true"})).unknown_reason
    assert "Kueue" in str(doubt)


def test_a_selector_by_pod_identity_is_left_to_the_scheduler() -> None:
    selector = {"matchLabels": {"apps.kubernetes.io/pod-index": "0"}}
    term = {"topologyKey": "zone", "labelSelector": selector}
    affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    doubt = PodRequirementsParser().parse(raw_pod(affinity=affinity)).unknown_reason
    assert "differs between pods of one owner" in str(doubt)


MANY = [{"matchExpressions": [{"key": f"k{n}", "operator": "In", "values": ["v"]}]} for n in range(600)]


@pytest.mark.parametrize(
    "spec",
    [
        {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": MANY}}}},
        {"tolerations": [{"key": f"k{n}", "operator": "Exists"} for n in range(1001)]},
        {"nodeSelector": {f"k{n}": "v" for n in range(1001)}},
    ],
)
def test_too_many_constraints_are_left_to_the_scheduler(spec: dict[str, Any]) -> None:
    found = PodRequirementsParser().parse(raw_pod(**spec))
    assert "more than 1000 scheduling constraints" in str(found.unknown_reason)
    assert found.node_constraints == NodeConstraints()
    assert found.requests == {"cpu": 1000}


@pytest.mark.parametrize("kind", ["podAffinity", "podAntiAffinity"])
def test_unknown_selectors_and_too_many_terms_are_left_to_the_scheduler(kind: str) -> None:
    odd = {"topologyKey": "zone", "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}
    many = [{"topologyKey": "zone", "labelSelector": {"matchLabels": {"n": str(n)}}} for n in range(101)]
    for terms in ([odd], many):
        doubt = PodRequirementsParser().parse(raw_pod(affinity={kind: {REQUIRED: terms}})).unknown_reason
        assert "not known here" in str(doubt)


def test_host_ports_of_containers_and_sidecars_count() -> None:
    spec = {
        "containers": [{"name": "a", "ports": [{"hostPort": 80}, {"containerPort": 8080}]}],
        "initContainers": [
            {
                "name": "b",
                "ports": [{"hostPort": 81, "hostIP": "10.0.0.1", "protocol": "UDP"}],
                "restartPolicy": "Always",
            },
            {"name": "c", "ports": [{"hostPort": 82}]},
        ],
    }
    assert host_ports(spec) == (("0.0.0.0", "TCP", 80), ("10.0.0.1", "UDP", 81))


@pytest.mark.parametrize(
    ("other", "together"),
    [
        (("0.0.0.0", "TCP", 80), True),
        (("10.0.0.1", "TCP", 80), True),
        (("10.0.0.2", "TCP", 80), False),
        (("10.0.0.1", "UDP", 80), False),
        (("10.0.0.1", "TCP", 81), False),
    ],
)
def test_host_ports_conflict_on_the_same_address(other: tuple[str, str, int], together: bool) -> None:
    assert host_ports_conflict([("10.0.0.1", "TCP", 80)], [other]) is together
