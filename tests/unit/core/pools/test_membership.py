"""Which pool has what: worked out change by change, as if it had been asked anew."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api import names
from rescheduler.api.pools import NamespacePool
from rescheduler.core.model.namespaces import Namespace
from rescheduler.core.model.nodes import Node
from rescheduler.core.pools.membership import PoolConflict, PoolMemberships

START = datetime(2026, 1, 1, tzinfo=UTC)


def pool(name: str, age: int = 0, mode: str = "Enforce", **spec: Any) -> NamespacePool:
    created = (START - timedelta(days=age)).isoformat()
    spec.setdefault("nodeSelector", {"matchLabels": {"disk": "ssd"}})
    meta = {"name": name, "uid": name, "creationTimestamp": created}
    return NamespacePool.from_object({"metadata": meta, "spec": {"mode": mode, **spec}})


def space(name: str, **labels: str) -> Namespace:
    return Namespace(name, name, labels=labels)


def node(name: str, **labels: str) -> Node:
    return Node(name, name, labels=labels)


def site(*things: NamespacePool | Namespace | Node) -> PoolMemberships:
    found = PoolMemberships(exempt_namespaces=["rescheduler-system"])
    for thing in things:
        match thing:
            case NamespacePool():
                found.put_pool(thing)
            case Namespace():
                found.put_namespace(thing)
            case Node():
                found.put_node(thing)
    return found


def test_a_pool_has_the_namespaces_that_it_names_and_those_that_it_selects() -> None:
    where = site(
        pool("a", namespaces=["x"], namespaceSelector={"matchLabels": {"t": "1"}}), space("x"), space("y", t="1")
    )
    assert where.namespaces("a") == ["x", "y"]


def test_no_pool_has_kube_system_or_our_own_namespace() -> None:
    spec = {
        "namespaces": ["kube-system"],
        "namespaceSelector": {"matchExpressions": [{"key": "z", "operator": "DoesNotExist"}]},
    }
    where = site(pool("a", **spec), space("kube-system"), space("rescheduler-system"))
    assert where.namespaces("a") == []


def test_the_older_pool_keeps_what_two_claim_and_both_are_told() -> None:
    where = site(pool("a", age=1, namespaces=["x"]), pool("b", age=2, namespaces=["x"]), space("x"))
    assert where.pool_of_namespace("x") == "b"
    assert where.namespace_conflicts("a") == [PoolConflict("x", "b", is_kept=False)]
    assert where.namespace_conflicts("b") == [PoolConflict("x", "a", is_kept=True)]


def test_of_pools_of_one_age_the_first_by_name_keeps_it() -> None:
    where = site(pool("b"), pool("a"), node("n", disk="ssd"))
    assert where.pool_of_node("n") == "a"


def test_an_audit_pool_claims_nothing_and_knows_what_it_would_have() -> None:
    where = site(
        pool("audit", age=1, mode="Audit", namespaces=["x", "y"]),
        pool("old", age=2, namespaces=["y"]),
        space("x"),
        space("y"),
    )
    assert where.pool_of_namespace("x") is None
    assert where.namespaces("audit") == ["x"]
    assert where.namespace_conflicts("audit") == [PoolConflict("y", "old", is_kept=False)]
    assert where.namespace_conflicts("old") == []


def test_a_pool_that_goes_leaves_what_it_had_to_the_next() -> None:
    where = site(pool("a", age=2), pool("b", age=1), node("n", disk="ssd"))
    touched = where.drop_pool("a")
    assert (touched.nodes, touched.pools) == ({"n"}, {"a", "b"})
    assert where.pool_of_node("n") == "b"


def test_our_own_labels_are_not_seen_by_selectors() -> None:
    """Else a pool could undo itself, again and again."""
    absent = {"matchExpressions": [{"key": names.NODE_POOL, "operator": "DoesNotExist"}]}
    where = site(pool("a", namespaces=["x"], nodeSelector=absent), Node("n", "n", labels={names.NODE_POOL: "a"}))
    assert where.pool_of_node("n") == "a"


def test_a_change_that_concerns_no_selector_still_names_the_pools_to_look_at() -> None:
    where = site(pool("a"), node("n", disk="ssd"))
    assert where.put_node(node("n", disk="ssd")).pools == {"a"}


_NAMES = st.sampled_from(["a", "b", "c"])
_LABELS = st.dictionaries(st.sampled_from(["t", "disk"]), st.sampled_from(["1", "2"]))
_SELECTORS = st.sampled_from(
    [{"matchLabels": {"t": "1"}}, {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]
)
_POOLS = st.builds(
    lambda name, age, mode, spaces, selector, nodes: pool(
        name, age, mode, namespaces=spaces, nodeSelector=nodes, **({"namespaceSelector": selector} if selector else {})
    ),
    _NAMES,
    st.integers(0, 2),
    st.sampled_from(["Enforce", "Audit"]),
    st.lists(st.sampled_from(["x", "y", "kube-system"]), max_size=2, unique=True),
    st.none() | _SELECTORS,
    _SELECTORS,
)
_SPACES = st.builds(
    lambda name, labels: space(name, **labels), st.sampled_from(["x", "y", "z", "kube-system"]), _LABELS
)
_NODES = st.builds(lambda name, labels: node(name, **labels), st.sampled_from(["n", "m"]), _LABELS)


@given(st.lists(_POOLS | _SPACES | _NODES | st.sampled_from(["-a", "-x", "-n"]), max_size=25))
def test_whatever_happens_in_whatever_order_the_answers_are_those_of_the_end(events: list[Any]) -> None:
    lived, last = PoolMemberships(["rescheduler-system"]), dict[tuple[type, str], Any]()
    for event in events:
        match event:
            case NamespacePool():
                lived.put_pool(event)
            case Namespace():
                lived.put_namespace(event)
            case Node():
                lived.put_node(event)
            case "-a":
                lived.drop_pool("a")
                last.pop((NamespacePool, "a"), None)
                continue
            case "-x":
                lived.drop_namespace("x")
                last.pop((Namespace, "x"), None)
                continue
            case _:
                lived.drop_node("n")
                last.pop((Node, "n"), None)
                continue
        last[type(event), event.name] = event
    fresh = site(*last.values())
    for name in "abc":
        assert lived.namespaces(name) == fresh.namespaces(name)
        assert lived.nodes(name) == fresh.nodes(name)
        assert lived.node_conflicts(name) == fresh.node_conflicts(name)
    assert [lived.pool_of_namespace(n) for n in "xyz"] == [fresh.pool_of_namespace(n) for n in "xyz"]
    assert [lived.pool_of_node(n) for n in "nm"] == [fresh.pool_of_node(n) for n in "nm"]
