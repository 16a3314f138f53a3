"""Nodes that a pod may run on, by labels, names and taints."""

from typing import Any

import pytest

from rescheduler.api import names
from rescheduler.core.model.node_affinity import (
    constraints_in_pool,
    has_anti_affinity_to,
    may_run_on,
    scheduling_constraints,
)
from rescheduler.core.model.nodes import Node, Taint

NODE = Node("n1", "n1", labels={"zone": "a", "size": "8"}, taints=(Taint("own", "shop", "NoSchedule"),))
OWN = [{"key": "own", "value": "shop", "effect": "NoSchedule"}]


def affinity(*terms: dict[str, Any]) -> dict[str, Any]:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    return {"affinity": {"nodeAffinity": required}}


def term(key: str, operator: str, *values: str, fields: bool = False) -> dict[str, Any]:
    return {"matchFields" if fields else "matchExpressions": [{"key": key, "operator": operator, "values": values}]}


@pytest.mark.parametrize(
    ("spec", "may"),
    [
        ({}, True),
        ({"nodeSelector": {"zone": "a"}}, True),
        ({"nodeSelector": {"zone": "b"}}, False),
        (affinity(term("zone", "In", "a", "b")), True),
        (affinity(term("zone", "NotIn", "a")), False),
        (affinity(term("zone", "NotIn", "a"), term("size", "Exists")), True),
        (affinity(term("gone", "DoesNotExist")), True),
        (affinity(term("size", "Gt", "4")), True),
        (affinity(term("size", "Lt", "4")), False),
        (affinity(term("zone", "Gt", "4")), False),
        (affinity(term("size", "Gt")), False),
        (affinity(term("size", "Gt", "4", "5")), False),
        (affinity(term("size", "Gt", "+4")), True),
        *(
            (affinity(term("size", "Gt", bound)), False)
            for bound in ("", "0_1", " 4", "\u0663", "4.5", "-" + "9" * 5000)
        ),
        (affinity(term("size", "Near", "8")), False),
        (affinity(term("metadata.name", "In", "n1", fields=True)), True),
        (affinity(term("metadata.name", "In", "n2", fields=True)), False),
        (affinity({}), False),
        (affinity(), False),
    ],
)
def test_node_selector_and_affinity_select_nodes(spec: dict[str, Any], may: bool) -> None:
    assert may_run_on({**spec, "tolerations": OWN}, NODE) is may


@pytest.mark.parametrize(
    ("toleration", "may"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "own", "operator": "Exists"}, True),
        ({"key": "own", "value": "shop"}, True),
        ({"key": "own", "value": "other"}, False),
        ({"key": "own", "value": "shop", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_a_toleration_tolerates_a_taint(toleration: dict[str, str], may: bool) -> None:
    assert may_run_on({"tolerations": [toleration]}, NODE) is may


def test_a_cordon_and_soft_taints_do_not_count() -> None:
    taints = (Taint("node.kubernetes.io/unschedulable", "", "NoSchedule"), Taint("soft", "", "PreferNoSchedule"))
    assert may_run_on({}, Node("n1", "n1", taints=taints))


@pytest.mark.parametrize(
    ("selector", "namespace", "key", "off"),
    [
        ({"matchLabels": {"app": "web"}}, "shop", "kubernetes.io/hostname", True),
        ({"matchLabels": {"app": "db"}}, "shop", "kubernetes.io/hostname", False),
        ({"matchLabels": {"app": "web"}}, "other", "kubernetes.io/hostname", False),
        ({"matchLabels": {"app": "web"}}, "shop", "topology.kubernetes.io/zone", False),
        ({}, "shop", "kubernetes.io/hostname", True),
        (None, "shop", "kubernetes.io/hostname", False),
    ],
)
def test_anti_affinity_by_hostname_keeps_pods_apart(
    selector: dict[str, Any] | None, namespace: str, key: str, off: bool
) -> None:
    wants = {"topologyKey": key, "labelSelector": selector}
    rule = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [wants]}}
    pod = {"metadata": {"namespace": "shop"}, "spec": {"affinity": rule}}
    assert has_anti_affinity_to(pod, {"metadata": {"namespace": namespace, "labels": {"app": "web"}}}) is off


def test_scheduling_constraints_keep_only_what_selects_nodes() -> None:
    spec = {"nodeSelector": {}, "tolerations": OWN, "containers": [], **affinity(term("zone", "In", "a"))}
    spec["affinity"]["podAffinity"] = {}
    assert scheduling_constraints(spec) == {"tolerations": OWN, **affinity(term("zone", "In", "a"))}


def test_constraints_in_a_pool_replace_the_selector_of_the_former_pool() -> None:
    constraints = constraints_in_pool({"nodeSelector": {names.NODE_POOL: "slow", "disk": "ssd"}}, "fast")
    assert constraints["nodeSelector"] == {names.NODE_POOL: "fast", "disk": "ssd"}
    assert constraints["tolerations"] == [
        {"key": names.POOL, "operator": "Equal", "value": "fast", "effect": "NoSchedule"}
    ]
