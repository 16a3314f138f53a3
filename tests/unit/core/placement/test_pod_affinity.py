"""Pods that a term of affinity selects."""

from typing import Any

import pytest

from rescheduler.core.placement.pod_affinity import PodAffinityTerm, required_terms

SPACES = {"shop": {"team": "a"}, "bank": {"team": "b"}}


def term(**raw: Any) -> PodAffinityTerm:
    body = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}, **raw}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [body]}
    (found,) = required_terms({"affinity": {"podAntiAffinity": required}}, "shop", "podAntiAffinity")
    return found


@pytest.mark.parametrize(
    ("raw", "namespaces"),
    [
        ({}, {"shop"}),
        ({"namespaces": ["bank"]}, {"bank"}),
        ({"namespaceSelector": {}}, {"shop", "bank"}),
        ({"namespaceSelector": {"matchLabels": {"team": "b"}}}, {"bank"}),
        ({"namespaces": ["shop"], "namespaceSelector": {"matchLabels": {"team": "b"}}}, {"shop", "bank"}),
    ],
)
def test_a_term_selects_namespaces_by_name_and_by_label(raw: dict[str, Any], namespaces: set[str]) -> None:
    assert {space for space in SPACES if term(**raw).selects(space, {"app": "web"}, SPACES)} == namespaces


def test_a_term_selects_pods_by_labels() -> None:
    assert not term().selects("shop", {"app": "db"}, SPACES)
    assert term(labelSelector={}).selects("shop", {"app": "db"}, SPACES)
    assert not term(labelSelector=None).selects("shop", {"app": "web"}, SPACES)


def test_preferred_terms_forbid_nothing() -> None:
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {}}]}
    assert required_terms({"affinity": {"podAffinity": preferred}}, "shop", "podAffinity") == ()


def test_too_many_terms_keep_topology_keys_and_namespaces() -> None:
    many = [{"topologyKey": f"k{n % 2}", "labelSelector": {"matchLabels": {"n": str(n)}}} for n in range(101)]
    spec = {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": many}}}
    found = required_terms(spec, "shop", "podAntiAffinity")
    assert [each.topology_key for each in found] == ["k0", "k1"]
    assert found[0].selects("shop", {}, {})
    assert not found[0].selects("other", {}, {})
