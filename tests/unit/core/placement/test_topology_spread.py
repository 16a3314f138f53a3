"""Hard topology spread constraints."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.core.placement.topology_spread import SpreadConstraint, hard_spread_constraints, placeable_pods


def constraint(**raw: Any) -> SpreadConstraint:
    body = {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", **raw}
    body.setdefault("labelSelector", {"matchLabels": {"app": "web"}})
    (found,) = hard_spread_constraints({"topologySpreadConstraints": [body]}, {"app": "web", "rev": "2"})
    return found


def test_only_hard_constraints_count() -> None:
    soft = {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}
    assert hard_spread_constraints({"topologySpreadConstraints": [soft]}, {}) == ()


def test_match_label_keys_add_the_values_of_the_pod() -> None:
    found = constraint(matchLabelKeys=["rev", "absent"])
    assert found.counts_pod({"app": "web", "rev": "2"})
    assert not found.counts_pod({"app": "web", "rev": "1"})


def test_defaults_are_those_of_the_scheduler() -> None:
    assert (constraint().honors_node_affinity, constraint().honors_node_taints, constraint().min_domains) == (
        True,
        False,
        1,
    )
    found = constraint(nodeAffinityPolicy="Ignore", nodeTaintsPolicy="Honor", minDomains=3)
    assert (found.honors_node_affinity, found.honors_node_taints, found.min_domains) == (False, True, 3)


def test_a_selector_of_everything_counts_only_the_pod_itself() -> None:
    found = constraint(labelSelector={})
    assert not found.counts_pod({"app": "web"})
    assert found.matches_own_pod({"app": "web"})


def test_no_selector_counts_nothing() -> None:
    assert not constraint(labelSelector=None).matches_own_pod({"app": "web"})


@pytest.mark.parametrize(
    ("filled", "slots", "skew", "least", "count"),
    [
        ({"a": 0, "b": 0}, {"a": 5, "b": 5}, 1, 1, 10),
        ({"a": 0, "b": 0}, {"a": 5, "b": 0}, 1, 1, 1),  # b is full for good
        ({"a": 2, "b": 0}, {"a": 5, "b": 5}, 1, 1, 9),
        ({"a": 0, "b": 0, "c": 0}, {"a": 5, "b": 5}, 2, 1, 4),  # c is a domain without a node that takes any
        ({"a": 0}, {"a": 5}, 1, 3, 1),  # too few domains: the emptiest counts as empty
        ({}, {}, 1, 1, 0),
    ],
)
def test_placeable_pods_of_a_constraint(
    filled: dict[str, int], slots: dict[str, int], skew: int, least: int, count: int
) -> None:
    assert placeable_pods(filled, slots, skew, least) == count


@given(
    st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_placeable_pods_do_not_depend_on_the_order(
    domains: dict[str, tuple[int, int]], skew: int, random: Random
) -> None:
    filled = {name: count for name, (count, _) in domains.items()}
    slots = {name: count for name, (_, count) in domains.items()}
    now, left, placed = dict(filled), dict(slots), 0
    while open_ := [n for n in now if left[n] and now[n] + 1 - min(now.values()) <= skew]:
        chosen = random.choice(open_)
        now[chosen], left[chosen], placed = now[chosen] + 1, left[chosen] - 1, placed + 1
    assert placeable_pods(filled, slots, skew) == placed
