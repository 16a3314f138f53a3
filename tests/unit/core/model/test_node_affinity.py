"""Nodes that a pod may run on, by labels, names and taints."""

from typing import Any

import pytest

from rescheduler.api import names
from rescheduler.core.model.node_affinity import NodeConstraints, has_unknown_operator, parse_node_constraints
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
    assert NodeConstraints({**spec, "tolerations": OWN}).allows_node(NODE) is may


@pytest.mark.parametrize(
    ("toleration", "may"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "own", "operator": "Exists"}, True),
        ({"key": "own", "value": "shop"}, True),
        ({"key": "own", "value": "other"}, False),
        ({"key": "own", "value": "shop", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "own", "operator": "Equal", "value": "shop"}, True),
        ({"key": "own", "operator": "Gt", "value": "shop"}, False),
    ],
)
def test_a_toleration_tolerates_a_taint(toleration: dict[str, str], may: bool) -> None:
    assert NodeConstraints({"tolerations": [toleration]}).allows_node(NODE) is may


def test_a_cordon_and_soft_taints_do_not_count() -> None:
    taints = (Taint("node.kubernetes.io/unschedulable", "", "NoSchedule"), Taint("soft", "", "PreferNoSchedule"))
    assert NodeConstraints().allows_node(Node("n1", "n1", taints=taints))


def test_node_constraints_keep_only_what_selects_nodes() -> None:
    spec = {"nodeSelector": {}, "tolerations": OWN, "containers": [], **affinity(term("zone", "In", "a"))}
    spec["affinity"]["podAffinity"] = {}
    assert parse_node_constraints(spec) == NodeConstraints({"tolerations": OWN, **affinity(term("zone", "In", "a"))})


def test_constraints_in_a_pool_replace_the_selector_of_the_former_pool() -> None:
    constraints = NodeConstraints({"nodeSelector": {names.NODE_POOL: "slow", "disk": "ssd"}}).in_pool("fast")
    assert constraints.spec["nodeSelector"] == {names.NODE_POOL: "fast", "disk": "ssd"}
    assert constraints.spec["tolerations"] == [
        {"key": names.POOL, "operator": "Equal", "value": "fast", "effect": "NoSchedule"}
    ]


def test_constraints_require_a_pool_by_selector_or_affinity() -> None:
    affine = NodeConstraints(affinity(term(names.NODE_POOL, "In", "shop")))
    assert NodeConstraints({"nodeSelector": {names.NODE_POOL: "shop"}}).requires_pool("shop")
    assert affine.requires_pool("shop")
    assert not affine.requires_pool("other")
    assert not NodeConstraints().requires_pool("shop")


@pytest.mark.parametrize(
    ("toleration", "may"),
    [
        ({"key": "sla", "operator": "Gt", "value": "900"}, True),
        ({"key": "sla", "operator": "Lt", "value": "900", "effect": "NoSchedule"}, True),
        ({"key": "", "operator": "Near", "value": "900"}, True),
        ({"key": "other", "operator": "Gt", "value": "900"}, False),
        ({"key": "sla", "operator": "Gt", "value": "900", "effect": "NoExecute"}, False),
        ({"key": "sla", "operator": "Equal", "value": "900"}, False),
        ({"key": "sla", "operator": "Exists"}, False),
    ],
)
def test_only_a_toleration_with_an_unknown_operator_may_tolerate_a_taint(toleration: dict[str, str], may: bool) -> None:
    constraints = NodeConstraints({"tolerations": [toleration]})
    assert constraints.may_tolerate([Taint("sla", "950", "NoSchedule")]) is may
    assert not constraints.may_tolerate([Taint("sla", "950", "PreferNoSchedule")])


def test_terms_of_node_affinity_may_have_an_unknown_operator() -> None:
    known = [term("zone", operator, "1") for operator in ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")]
    assert not has_unknown_operator(known)
    assert has_unknown_operator([*known, term("zone", "Near", "1")])
    assert has_unknown_operator([term("metadata.name", "Near", "1", fields=True)])
    assert not has_unknown_operator(None)
