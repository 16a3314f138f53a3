"""Memberships updated change by change are the same as memberships computed from scratch."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api import names
from rescheduler.api.pools import NamespacePool
from rescheduler.core.model.namespaces import Namespace
from rescheduler.core.model.nodes import Node
from rescheduler.core.pools.membership import PoolConflict, PoolMemberships
from unit.builders import memberships_of, namespace, node, pool


def test_pool_has_listed_and_selected_namespaces() -> None:
    memberships = memberships_of(
        pool("a", namespaces=["x"], namespaceSelector={"matchLabels": {"t": "1"}}),
        namespace("x"),
        namespace("y", t="1"),
    )
    assert memberships.namespaces("a") == ["x", "y"]


def test_no_pool_has_kube_system_or_the_operators_namespace() -> None:
    spec: dict[str, Any] = {
        "namespaces": ["kube-system"],
        "namespaceSelector": {"matchExpressions": [{"key": "z", "operator": "DoesNotExist"}]},
    }
    memberships = memberships_of(pool("a", **spec), namespace("kube-system"), namespace("rescheduler-system"))
    assert memberships.namespaces("a") == []


def test_older_pool_keeps_a_member_and_both_report_the_conflict() -> None:
    memberships = memberships_of(pool("a", age=1, namespaces=["x"]), pool("b", age=2, namespaces=["x"]), namespace("x"))
    assert memberships.pool_of_namespace("x") == "b"
    assert memberships.namespace_conflicts("a") == [PoolConflict("x", "b", is_kept=False)]
    assert memberships.namespace_conflicts("b") == [PoolConflict("x", "a", is_kept=True)]


def test_first_pool_by_name_keeps_a_member_of_equal_age() -> None:
    memberships = memberships_of(pool("b"), pool("a"), node("n", labels={"disk": "ssd"}))
    assert memberships.pool_of_node("n") == "a"


def test_audit_pool_claims_nothing_but_lists_its_members() -> None:
    memberships = memberships_of(
        pool("audit", age=1, mode="Audit", namespaces=["x", "y"]),
        pool("old", age=2, namespaces=["y"]),
        namespace("x"),
        namespace("y"),
    )
    assert memberships.pool_of_namespace("x") is None
    assert memberships.namespaces("audit") == ["x"]
    assert memberships.namespace_conflicts("audit") == [PoolConflict("y", "old", is_kept=False)]
    assert memberships.namespace_conflicts("old") == []


def test_deleted_pool_leaves_its_members_to_the_next_pool() -> None:
    memberships = memberships_of(pool("a", age=2), pool("b", age=1), node("n", labels={"disk": "ssd"}))
    touched = memberships.drop_pool("a")
    assert (touched.nodes, touched.pools) == (frozenset({"n"}), frozenset({"a", "b"}))
    assert memberships.pool_of_node("n") == "b"


def test_selectors_ignore_the_operators_own_labels() -> None:
    """Otherwise a pool could undo itself again and again."""
    absent = {"matchExpressions": [{"key": names.NODE_POOL, "operator": "DoesNotExist"}]}
    memberships = memberships_of(
        pool("a", namespaces=["x"], nodeSelector=absent), Node("n", "n", labels={names.NODE_POOL: "a"})
    )
    assert memberships.pool_of_node("n") == "a"


def test_unchanged_labels_still_name_the_pools_to_reconcile() -> None:
    memberships = memberships_of(pool("a"), node("n", labels={"disk": "ssd"}))
    assert memberships.put_node(node("n", labels={"disk": "ssd"})).pools == {"a"}


_NAMES = st.sampled_from(["a", "b", "c"])
_LABELS = st.dictionaries(st.sampled_from(["t", "disk"]), st.sampled_from(["1", "2"]))
_SELECTORS = st.sampled_from(
    [{"matchLabels": {"t": "1"}}, {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]
)
_POOLS = st.builds(
    lambda name, age, mode, spaces, selector, nodes: pool(
        name,
        age=age,
        mode=mode,
        namespaces=spaces,
        nodeSelector=nodes,
        **({"namespaceSelector": selector} if selector else {}),
    ),
    _NAMES,
    st.integers(0, 2),
    st.sampled_from(["Enforce", "Audit"]),
    st.lists(st.sampled_from(["x", "y", "kube-system"]), max_size=2, unique=True),
    st.none() | _SELECTORS,
    _SELECTORS,
)
_SPACES = st.builds(
    lambda name, labels: namespace(name, **labels), st.sampled_from(["x", "y", "z", "kube-system"]), _LABELS
)
_NODES = st.builds(lambda name, labels: node(name, labels=labels), st.sampled_from(["n", "m"]), _LABELS)


@given(st.lists(_POOLS | _SPACES | _NODES | st.sampled_from(["-a", "-x", "-n"]), max_size=25))
def test_any_order_of_changes_gives_the_same_memberships(events: list[Any]) -> None:
    updated, last = PoolMemberships(["rescheduler-system"]), dict[tuple[type, str], Any]()
    for event in events:
        match event:
            case NamespacePool():
                updated.put_pool(event)
            case Namespace():
                updated.put_namespace(event)
            case Node():
                updated.put_node(event)
            case "-a":
                updated.drop_pool("a")
                last.pop((NamespacePool, "a"), None)
                continue
            case "-x":
                updated.drop_namespace("x")
                last.pop((Namespace, "x"), None)
                continue
            case _:
                updated.drop_node("n")
                last.pop((Node, "n"), None)
                continue
        last[type(event), event.name] = event
    fresh = memberships_of(*last.values())
    for name in "abc":
        assert updated.namespaces(name) == fresh.namespaces(name)
        assert updated.nodes(name) == fresh.nodes(name)
        assert updated.node_conflicts(name) == fresh.node_conflicts(name)
    assert [updated.pool_of_namespace(n) for n in "xyz"] == [fresh.pool_of_namespace(n) for n in "xyz"]
    assert [updated.pool_of_node(n) for n in "nm"] == [fresh.pool_of_node(n) for n in "nm"]
