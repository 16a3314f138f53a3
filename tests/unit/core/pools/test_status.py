"""Build the status of a pool."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

from rescheduler.api.pools import NamespacePoolStatus
from rescheduler.api.selectors import LabelSelector
from rescheduler.core.model.nodes import Node
from rescheduler.core.pools import status as pools_status
from rescheduler.core.pools.admission_policies import AdmissionState
from rescheduler.core.pools.membership import PoolConflict
from rescheduler.core.pools.misplaced_pods import MisplacementReport, PodTotals
from rescheduler.core.pools.node_loss import NodeLoss
from rescheduler.core.pools.status import PoolStatusInput
from unit.builders import NOW, node, pool

ENFORCED = AdmissionState("True", "Enforced", "yes")


def facts(
    *nodes: Node, cpu: int = 500, fixed: int = 0, mode: str = "Enforce", exclusive: bool = True, **more: Any
) -> PoolStatusInput:
    """Return facts: pods of the pool with these CPU requests, and exempt pods on each node."""
    totals = PodTotals(
        counted_at=NOW,
        pool_uids=frozenset({"a"}),
        pods_by_pool=Counter({"a": 1}),
        requests_by_pool={"a": Counter({"cpu": cpu + fixed * len(nodes), "pods": 1})},
        exempt_requests_by_node={n.name: Counter({"cpu": fixed}) for n in nodes},
    )
    made: dict[str, Any] = {
        "nodes": nodes,
        "namespaces": ["x"],
        "unlabelled_count": 0,
        "conflicts": [],
        "admission": ENFORCED,
        "unschedulable_by_taint": (),
        "tainted_node_count": len(nodes),
        "totals": totals,
        "misplaced": MisplacementReport(),
        "now": NOW,
    }
    return PoolStatusInput(pool=pool("a", mode=mode, exclusive=exclusive, namespaces=["x"]), **(made | more))


def condition(status: NamespacePoolStatus, type_: str) -> tuple[str, str]:
    found = next(c for c in status.conditions if c.type == type_)
    return found.status, found.reason


def state_of(inputs: PoolStatusInput, type_: str) -> tuple[str, str]:
    return condition(pools_status.build(inputs), type_)


def test_status_has_counts_and_sums() -> None:
    status = pools_status.build(facts(node("n1"), node("n2", ready="Unknown")))
    assert (status.nodes, status.ready_nodes, status.namespaces, status.pods) == (2, 1, 1, 1)
    assert (status.pods_outside, status.pods_foreign) == (0, 0)
    assert status.allocatable is not None
    assert status.requested is not None
    assert (status.allocatable.cpu, status.allocatable.memory, status.allocatable.pods) == ("2", "2Gi", "20")
    assert (status.requested.cpu, status.requested.pods) == ("500m", "1")


def test_labels_that_a_kubelet_may_set_are_not_trusted() -> None:
    def trusted(*keys: str) -> tuple[str, str]:
        inputs = facts(node("n1"))
        spec = inputs.pool.spec.model_copy(
            update={"node_selector": LabelSelector(match_labels=dict.fromkeys(keys, "x"))}
        )
        return state_of(replace(inputs, pool=replace(inputs.pool, spec=spec)), "NodeLabelsTrusted")

    assert trusted("disk", "kubernetes.io/os") == ("False", "SetByKubelet")
    assert trusted("disk", "shop.node-restriction.kubernetes.io/pool") == ("True", "Restricted")


def test_a_selector_that_requires_no_label_is_not_trusted() -> None:
    """Its kubelet need not set a label then."""
    inputs = facts(node("n1"))
    absent = {"matchExpressions": [{"key": "node-restriction.kubernetes.io/x", "operator": "DoesNotExist"}]}
    spec = inputs.pool.spec.model_copy(update={"node_selector": LabelSelector.model_validate(absent)})
    assert state_of(replace(inputs, pool=replace(inputs.pool, spec=spec)), "NodeLabelsTrusted") == (
        "False",
        "SetByKubelet",
    )


def test_status_has_no_pod_numbers_before_the_first_count() -> None:
    status = pools_status.build(facts(node("n1"), totals=None))
    assert (status.pods, status.pods_outside, status.requested) == (None, None, None)
    assert condition(status, "SurvivesNodeLoss") == ("Unknown", "NotCounted")


def test_a_pool_that_the_count_lacks_has_no_pod_numbers() -> None:
    """A pool of the same name was deleted, or the pool is newer than the count."""
    inputs = facts(node("n1"), node("n2"))
    assert inputs.totals is not None
    status = pools_status.build(replace(inputs, totals=replace(inputs.totals, pool_uids=frozenset({"older"}))))
    assert (status.pods, status.pods_outside, status.requested, status.counted_at) == (None, None, None, None)
    assert condition(status, "SurvivesNodeLoss") == ("Unknown", "NotCounted")


def test_node_loss_of_a_pool_without_counted_pods_is_unknown() -> None:
    inputs = facts(node("n1"), node("n2"), node_loss=NodeLoss("n1", 0))
    assert inputs.totals is not None
    none_counted = replace(inputs.totals, pods_by_pool=Counter(), requests_by_pool={})
    assert state_of(replace(inputs, totals=none_counted), "SurvivesNodeLoss") == ("Unknown", "NoPods")


def test_node_loss_of_a_node_without_pods_of_the_pool_is_that_of_the_sums() -> None:
    status = pools_status.build(facts(node("n1"), node("n2"), node_loss=NodeLoss("n1", 0)))
    found = next(c for c in status.conditions if c.type == "SurvivesNodeLoss")
    assert (found.status, "by the sums" in found.message) == ("True", True)


def test_count_time_alone_is_written_once_a_minute() -> None:
    first = facts(node("n1"), node("n2"))
    assert first.totals is not None
    written = pools_status.build(first)
    assert written.counted_at == NOW

    def after(seconds: int, **changes: Any) -> NamespacePoolStatus:
        assert first.totals is not None
        totals = replace(first.totals, counted_at=NOW + timedelta(seconds=seconds))
        return pools_status.build(replace(first, pool=replace(first.pool, status=written), totals=totals, **changes))

    assert after(59) == written
    assert after(60).counted_at == NOW + timedelta(seconds=60)
    assert after(5, nodes=(node("n1"),)).counted_at == NOW + timedelta(seconds=5)


def test_ready_reports_labels_and_open_nodes() -> None:
    assert state_of(facts(node("n1")), "Ready") == ("True", "Mapped")
    assert state_of(facts(), "Ready") == ("False", "NoNodes")
    assert state_of(facts(node("n1", ready="False")), "Ready") == ("False", "NoOpenNode")
    assert state_of(facts(node("n1", unschedulable=True)), "Ready") == ("False", "NoOpenNode")
    assert state_of(facts(node("n1"), unlabelled_count=1), "Ready") == ("False", "Marking")
    assert state_of(facts(node("n1"), mode="Audit"), "Ready") == ("False", "Audit")


def test_ready_names_the_label_that_a_node_of_unschedulable_pods_needs() -> None:
    selector = LabelSelector.model_validate(
        {"matchLabels": {"disk": "ssd"}, "matchExpressions": [{"key": "gpu", "operator": "Exists"}]}
    )
    for nodes, reason in (
        ((), "NoNodes"),
        ((node("n1", unschedulable=True),), "NoOpenNode"),
        ((node("n1"),), "Mapped"),
    ):
        inputs = facts(*nodes)
        assert inputs.totals is not None
        waiting = replace(inputs.totals, unschedulable_by_pool=Counter({"a": 3}))
        spec = inputs.pool.spec.model_copy(update={"node_selector": selector})
        status = pools_status.build(replace(inputs, pool=replace(inputs.pool, spec=spec), totals=waiting))
        found = next(c for c in status.conditions if c.type == "Ready")
        assert (found.reason, status.pods_unschedulable) == (reason, 3)
        assert ". 3 pods of its namespaces find no node. " in found.message
        assert "label rescheduler.node-restriction.kubernetes.io/pool=a" in found.message
        assert found.message.endswith("disk=ssd,gpu")


def test_ready_names_no_label_if_every_pod_has_a_node() -> None:
    status = pools_status.build(facts(node("n1")))
    assert status.pods_unschedulable == 0
    assert "node template" not in next(c for c in status.conditions if c.type == "Ready").message


def test_conflict_names_the_other_pool_and_the_owner() -> None:
    conflicts = [("namespace", PoolConflict("x", "b", is_kept=False)), ("node", PoolConflict("n1", "c", is_kept=True))]
    status = pools_status.build(facts(node("n1"), conflicts=conflicts))
    found = next(c for c in status.conditions if c.type == "Conflict")
    assert found.status == "True"
    assert "namespace x is kept by pool b" in found.message
    assert "node n1 is claimed by pool c too" in found.message


def test_held_back_taint_names_the_daemon_set() -> None:
    status = pools_status.build(
        facts(node("n1"), unschedulable_by_taint=("DaemonSet kube-system/agent",), tainted_node_count=0)
    )
    found = next(c for c in status.conditions if c.type == "TaintHeldBack")
    assert (found.status, found.reason) == ("True", "LastPlace")
    assert "kube-system/agent" in found.message


def test_taint_is_held_back_without_admission() -> None:
    absent = AdmissionState("False", "NotServed", "1.36")
    inputs = facts(node("n1"), admission=absent, tainted_node_count=0)
    assert state_of(inputs, "TaintHeldBack") == ("True", "NotEnforced")
    assert state_of(inputs, "Enforced") == ("False", "NotServed")


def test_pool_that_is_not_exclusive_holds_no_taint_back() -> None:
    assert state_of(facts(node("n1"), exclusive=False, tainted_node_count=0), "TaintHeldBack") == (
        "False",
        "NotExclusive",
    )


def test_pool_without_nodes_has_no_taint() -> None:
    assert state_of(facts(), "TaintHeldBack") == ("False", "NoNodes")


def test_node_loss_is_survived_if_the_other_nodes_have_room() -> None:
    assert state_of(facts(node("n1"), node("n2"), cpu=1000), "SurvivesNodeLoss") == ("True", "Fits")
    assert state_of(facts(node("n1"), node("n2"), cpu=1001), "SurvivesNodeLoss") == ("False", "NoRoom")


def test_node_loss_is_that_of_the_largest_node() -> None:
    assert state_of(facts(node("n1", cpu=4000), node("n2"), cpu=1500), "SurvivesNodeLoss") == ("False", "NoRoom")


def test_exempt_pods_of_the_lost_node_need_no_room() -> None:
    assert state_of(facts(node("n1"), node("n2"), cpu=900, fixed=100), "SurvivesNodeLoss") == ("True", "Fits")
    assert state_of(facts(node("n1"), node("n2"), cpu=901, fixed=100), "SurvivesNodeLoss") == ("False", "NoRoom")


def test_nodes_that_take_no_pods_have_no_room() -> None:
    nodes = node("n1"), node("n2"), node("n3", ready="Unknown")
    assert state_of(facts(*nodes, cpu=1500), "SurvivesNodeLoss") == ("False", "NoRoom")


def test_plan_decides_if_the_sums_fit() -> None:
    nodes = node("n1"), node("n2")
    assert state_of(facts(*nodes, node_loss=NodeLoss("n1", 3)), "SurvivesNodeLoss") == ("True", "Fits")
    lost = NodeLoss("n1", 3, unplaceable=("x/p (no room)",), unplaceable_total=1, uncertain_total=1)
    assert state_of(facts(*nodes, node_loss=lost), "SurvivesNodeLoss") == ("False", "DoesNotFit")
    unsure = NodeLoss("n1", 3, uncertain=("x/p (its claim)",), uncertain_total=1)
    assert state_of(facts(*nodes, node_loss=unsure), "SurvivesNodeLoss") == ("Unknown", "SchedulerOnly")
    assert state_of(facts(*nodes, node_loss=NodeLoss("gone", 3, unplaceable_total=1)), "SurvivesNodeLoss") == (
        "True",
        "Fits",
    )
    assert state_of(facts(*nodes, cpu=1001, node_loss=NodeLoss("n1", 3)), "SurvivesNodeLoss") == ("False", "NoRoom")


def test_known_conditions_stay_after_a_restart() -> None:
    first = facts(node("n1"))
    known = replace(first.pool, status=pools_status.build(first))
    again = replace(first, pool=known, totals=None, admission=AdmissionState())
    assert pools_status.build(again).conditions == known.status.conditions


def test_a_condition_keeps_the_time_of_its_change() -> None:
    first = facts(node("n1"))
    known = replace(first.pool, status=pools_status.build(first))
    later = pools_status.build(replace(first, pool=known, now=NOW + timedelta(hours=1)))
    assert {c.last_transition_time for c in later.conditions} == {NOW}
    assert pools_status.urgent_part(later) == pools_status.urgent_part(known.status)
