"""Pools write only their own label and taint, and change nothing of other parties."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api import names
from rescheduler.core.model import namespaces, nodes
from rescheduler.core.model.nodes import Node, Taint
from rescheduler.core.pools import labels_and_taints
from rescheduler.core.pools.labels_and_taints import PoolAssignment, desired_assignment, desired_namespace_pool
from unit.builders import node


def tainted_node(pool: str | None = None, *taints: Taint) -> Node:
    """Return a node of this pool with these taints."""
    return node(uid="u", resource_version="7", pool=pool or "", taints=taints)


def test_namespace_patch_has_the_preconditions_of_the_read() -> None:
    raw = {"metadata": {"name": "x", "uid": "u", "resourceVersion": "7", "labels": {"team": "a"}}}
    patch = labels_and_taints.namespace_patch(namespaces.parse_namespace(raw), "shop")
    assert patch == {"metadata": {"labels": {names.POOL: "shop"}, "resourceVersion": "7", "uid": "u"}}


def test_namespace_patch_is_none_for_a_right_label() -> None:
    raw = {"metadata": {"name": "x", "uid": "u", "labels": {names.POOL: "shop"}}}
    assert labels_and_taints.namespace_patch(namespaces.parse_namespace(raw), "shop") is None
    assert labels_and_taints.namespace_patch(namespaces.parse_namespace(raw), None) is not None


def test_node_patch_keeps_the_taints_of_others() -> None:
    other = Taint("gpu", "", "NoSchedule", time_added="2026-01-01T00:00:00Z")
    patch = labels_and_taints.node_patch(tainted_node(None, other), PoolAssignment("shop", tainted=True))
    assert patch is not None
    assert patch["metadata"]["labels"] == {names.NODE_POOL: "shop"}
    assert patch["spec"]["taints"] == [other.as_json(), labels_and_taints.pool_taint("shop").as_json()]


def test_node_patch_replaces_label_and_taint_of_another_pool() -> None:
    patch = labels_and_taints.node_patch(
        tainted_node("old", labels_and_taints.pool_taint("old")), PoolAssignment("new", tainted=True)
    )
    assert patch is not None
    assert patch["spec"]["taints"] == [labels_and_taints.pool_taint("new").as_json()]
    assert patch["metadata"]["labels"] == {names.NODE_POOL: "new"}


def test_node_patch_removes_label_and_taint_without_a_pool() -> None:
    patch = labels_and_taints.node_patch(tainted_node("shop", labels_and_taints.pool_taint("shop")), PoolAssignment())
    assert patch == {
        "metadata": {"labels": {names.NODE_POOL: None}, "resourceVersion": "7", "uid": "u"},
        "spec": {"taints": None},
    }


def test_node_patch_ignores_a_pool_taint_with_another_effect() -> None:
    theirs = Taint(names.POOL, "shop", "NoExecute")
    assert labels_and_taints.node_patch(tainted_node(None, theirs), PoolAssignment()) is None


_TAINTS = st.builds(
    Taint,
    st.sampled_from([names.POOL, "gpu"]),
    st.sampled_from(["a", "b", ""]),
    st.sampled_from(["NoSchedule", "NoExecute"]),
)
_MARKS = st.builds(
    lambda pool, tainted: PoolAssignment(pool, tainted=tainted and pool is not None),
    st.sampled_from([None, "a", "b"]),
    st.booleans(),
)


@given(st.sampled_from([None, "a", "b"]), st.lists(_TAINTS, unique=True, max_size=4), _MARKS)
def test_node_patch_reaches_the_assignment_and_changes_nothing_else(
    pool: str | None, taints: list[Taint], mark: PoolAssignment
) -> None:
    before = tainted_node(pool, *taints)
    patch = labels_and_taints.node_patch(before, mark) or {"metadata": {}}
    labels = {**before.labels, **patch["metadata"].get("labels", {})}
    raw = {"metadata": {"name": "n", "uid": "u", "labels": {k: v for k, v in labels.items() if v is not None}}}
    written = patch.get("spec", {"taints": [t.as_json() for t in before.taints]})["taints"]
    after = nodes.parse_node({**raw, "spec": {"taints": written}})
    assert labels_and_taints.current_assignment(after) == mark
    assert labels_and_taints.node_patch(after, mark) is None
    theirs = [t for t in before.taints if (t.key, t.effect) != (names.POOL, labels_and_taints.TAINT_EFFECT)]
    assert [t for t in after.taints if (t.key, t.effect) != (names.POOL, labels_and_taints.TAINT_EFFECT)] == theirs


def desired(current: str | None, owner: str | None, **facts: Any) -> PoolAssignment:
    """Return the assignment for an exclusive pool with enforced admission and a safe taint, except for these facts."""
    usual = {"exclusive": True, "enforced": True, "has_taint": False, "is_taint_safe": True}
    unreadable = {"new-version"}.__contains__
    return desired_assignment(PoolAssignment(current), owner, is_unreadable=unreadable, **(usual | facts))


@pytest.mark.parametrize(
    ("facts", "tainted"),
    [
        ({}, True),
        ({"exclusive": False}, False),
        ({"is_taint_safe": False}, False),
        ({"is_taint_safe": False, "has_taint": True}, True),
        ({"enforced": False, "has_taint": True}, False),
        ({"enforced": None}, False),
        ({"enforced": None, "has_taint": True}, True),
    ],
)
def test_a_node_is_tainted_only_if_the_taint_is_safe_and_enforced(facts: dict[str, Any], tainted: bool) -> None:
    assert desired(None, "shop", **facts) == PoolAssignment("shop", tainted=tainted)


def test_node_without_a_pool_keeps_the_label_of_an_unreadable_pool() -> None:
    assert desired("old", None) == PoolAssignment()
    assert desired("new-version", None) == PoolAssignment("new-version")


def test_namespace_without_a_pool_keeps_an_unreadable_pools_label() -> None:
    unreadable = {"new-version"}.__contains__
    assert desired_namespace_pool("old", None, is_unreadable=unreadable) is None
    assert desired_namespace_pool("new-version", None, is_unreadable=unreadable) == "new-version"
    assert desired_namespace_pool("new-version", "shop", is_unreadable=unreadable) == "shop"
