"""Previews of a drain: room, blockers, and interruptions."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rescheduler.api import names
from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import DrainRule, DrainSettings, ReplacementMode
from rescheduler.core.drain.preview import Drainable, DrainPreview, PreviewInput, preview_node
from rescheduler.core.model.disruption_budgets import DisruptionBudget, parse_budget
from rescheduler.core.model.raw import RawObject
from rescheduler.core.placement.planner import Fit
from unit.builders import raw_budget, raw_node
from unit.core.drain.preview_inputs import WEB, limit, pod_of_kind, world
from unit.core.placement.forecasting import affinity


def look(seen: PreviewInput, **drain: Any) -> DrainPreview:
    return preview_node(seen.placement_input.nodes["old"], DrainSettings(**drain), seen)


def causes(found: DrainPreview) -> dict[str, BlockerClass]:
    return {obstacle.pod: obstacle.blocker_class for obstacle in found.blockers}


def test_an_empty_node_can_be_drained() -> None:
    found = look(world([]))
    assert (found.drainable, found.placed, found.min_duration) == (Drainable.YES, 0, timedelta())


def test_a_pod_without_room_is_named_with_what_is_lacking() -> None:
    found = look(world([pod_of_kind("p1"), pod_of_kind("p2", cpu="9")]))
    assert found.drainable is Drainable.NO
    assert found.placed == 1
    assert [(key, f.fit, f.reason) for key, f in found.unplaced] == [
        (
            "s/p2",
            Fit.DOES_NOT_FIT,
            "0 of 1 other nodes can take the pod: 1 with too little cpu (9 requested, at most 4 free)",
        )
    ]


def test_a_pod_of_which_only_the_scheduler_can_say_makes_the_answer_unsure() -> None:
    assert look(world([pod_of_kind("p1", schedulerName="other")])).drainable is Drainable.UNSURE


@pytest.mark.parametrize(
    ("spec", "nodes", "reason"),
    [
        ({"nodeSelector": {"no": "such"}}, [raw_node("n1")], "1 ruled out by its nodeSelector or node affinity"),
        ({}, [raw_node("n1", unschedulable=True)], "1 cordoned or being drained"),
    ],
)
def test_why_a_pod_finds_no_place(spec: RawObject, nodes: list[RawObject], reason: str) -> None:
    raw = pod_of_kind("p1", **spec)
    seen = world([raw], nodes=nodes)
    assert [f.reason for _, f in look(seen).unplaced] == [f"0 of 1 other nodes can take the pod: {reason}"]


def test_what_stays_needs_no_place_and_holds_nothing_up() -> None:
    found = look(
        world([pod_of_kind("p1", kind="DaemonSet"), pod_of_kind("p2", notes={names.MIRROR_POD: "x"}, cpu="99")])
    )
    assert (found.drainable, found.staying) == (Drainable.YES, 2)


def test_pod_that_nothing_recreates_blocks_and_needs_no_room() -> None:
    seen = world([pod_of_kind("p1", kind="", cpu="99")])
    assert causes(look(seen)) == {"s/p1": BlockerClass.UNMANAGED}
    assert look(seen, unmanaged="Evict").drainable is Drainable.YES


def test_who_must_not_be_disrupted_holds_the_drain_up() -> None:
    found = look(world([pod_of_kind("p1", notes={names.DO_NOT_DISRUPT: "true"})]))
    assert causes(found) == {"s/p1": BlockerClass.DO_NOT_DISRUPT}
    assert found.drainable is Drainable.NO


def test_pod_that_leaves_despite_its_opt_out_is_named_and_honoured_it_blocks() -> None:
    seen = world([pod_of_kind("p1", notes={names.SAFE_TO_EVICT: "false"}), pod_of_kind("p2")])
    found = look(seen)
    assert (found.drainable, [row.pod for row in found.opted_out]) == (Drainable.YES, ["p1"])
    honoured = look(seen, honour=("cluster-autoscaler",))
    assert (causes(honoured), honoured.opted_out) == ({"s/p1": BlockerClass.DO_NOT_DISRUPT}, ())


def test_a_budget_that_lets_none_go_holds_up_what_cannot_be_replaced_first() -> None:
    seen = world([pod_of_kind("p1", kind="StatefulSet")], limit("b"))
    assert causes(look(seen)) == {"s/p1": BlockerClass.BUDGET_MISCONFIGURED}
    assert causes(look(world([pod_of_kind("p1", kind="StatefulSet")], limit("b", allowed=1)))) == {}
    assert causes(look(world([pod_of_kind("p1", kind="StatefulSet")], limit("b", healthy=0)))) == {
        "s/p1": BlockerClass.BUDGET_EXHAUSTED
    }


def test_a_budget_that_cannot_be_computed_is_quoted_as_in_a_drain() -> None:
    message = "things.example.com does not implement the scale subresource"
    condition = {"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": message}
    budget = raw_budget("b", disruptionsAllowed=0)
    failed = parse_budget({**budget, "status": {**budget["status"], "conditions": [condition]}})
    (blocker,) = look(world([pod_of_kind("p1", kind="StatefulSet")], failed)).blockers
    assert blocker.blocker_class is BlockerClass.BUDGET_MISCONFIGURED
    assert message in blocker.message
    assert "use an integer minAvailable" in blocker.hint
    assert "no scale subresource" in blocker.hint


def test_a_single_replica_goes_once_its_replacement_is_ready() -> None:
    found = look(world([pod_of_kind("p1")], limit("b")))
    assert (found.drainable, found.replaced_first, found.single_replica_pods) == (Drainable.YES, ("s/p1",), ("s/p1",))


def test_replacement_first_is_of_no_help_where_the_policy_forbids_it() -> None:
    found = look(world([pod_of_kind("p1")], limit("b")), replacement=ReplacementMode.NEVER)
    assert causes(found) == {"s/p1": BlockerClass.BUDGET_MISCONFIGURED}


def test_a_pod_under_two_budgets_is_never_evicted() -> None:
    found = look(world([pod_of_kind("p1")], limit("a", allowed=1), limit("b", allowed=1)))
    assert causes(found) == {"s/p1": BlockerClass.SEVERAL_BUDGETS}


def test_a_pod_whose_daemon_set_is_gone_is_recreated_by_nobody() -> None:
    old = pod_of_kind("p1", kind="DaemonSet")
    old["metadata"]["creationTimestamp"] = "2025-12-01T00:00:00Z"
    seen = world([old])
    assert causes(look(replace(seen, daemon_sets={"s": frozenset()}))) == {"s/p1": BlockerClass.UNMANAGED}
    assert look(replace(seen, daemon_sets={"s": frozenset({"x"})})).staying == 1


def test_settings_of_another_drain_decide_which_of_its_pods_need_room() -> None:
    nodes = [raw_node("n1", cpu="1"), raw_node("n2", cpu="8")]
    seen = world([pod_of_kind("p1"), pod_of_kind("other", "n2")], nodes=nodes)
    skip = DrainSettings.model_validate({"rules": [{"action": "Skip"}]})
    assert look(replace(seen, draining={"n2": skip})).drainable is Drainable.YES
    assert look(replace(seen, draining={"n2": DrainSettings()})).drainable is Drainable.UNSURE


def test_drained_node_takes_no_pod_and_its_pods_need_room_too() -> None:
    nodes = [raw_node("n1", cpu="1"), raw_node("n2", cpu="8")]
    seen = replace(
        world([pod_of_kind("p1"), pod_of_kind("other", "n2")], nodes=nodes), draining={"n2": DrainSettings()}
    )
    assert [f.fit for _, f in look(seen).unplaced] == [Fit.UNKNOWN]


def test_it_takes_at_least_the_waves_of_its_budgets() -> None:
    raws = [pod_of_kind(f"p{n}", cpu="1", terminationGracePeriodSeconds=20) for n in range(3)]
    assert look(world(raws)).min_duration == timedelta(seconds=20)
    assert look(world(raws, limit("b", allowed=1))).min_duration == timedelta(seconds=60)


ANYTHING = [{"operator": "Exists"}]


def test_a_pod_that_tolerates_the_cordon_needs_room_on_another_node() -> None:
    assert look(world([pod_of_kind("p1", tolerations=ANYTHING)])).placed == 1
    found = look(world([pod_of_kind("p1", tolerations=ANYTHING, cpu="9")]))
    assert (found.drainable, [f.fit for _, f in found.unplaced]) == (Drainable.NO, [Fit.DOES_NOT_FIT])


def test_a_plan_knows_which_pods_came_back_in_the_drain_of_the_node() -> None:
    seen = world([pod_of_kind("p1", tolerations=ANYTHING), pod_of_kind("p2", kind="StatefulSet")])
    seen = replace(seen, came_back={"old": frozenset({("s", "r"), ("s", "x")})})
    found = look(seen)
    assert found.staying == 1
    ((key, reason),) = found.named_staying
    assert (key, "3 new pods of ReplicaSet web-1" in reason) == ("s/p1", True)
    assert causes(found) == {"s/p2": BlockerClass.REPLACEMENT_NOT_READY}


HOST_DATA: RawObject = {"volumes": [{"name": "d", "hostPath": {"path": "/data"}}]}
MOUNT: RawObject = {"containers": [{"name": "c", "volumeMounts": [{"name": "d"}]}]}


@pytest.mark.parametrize("kind", ["ReplicaSet", "StatefulSet"])
def test_a_pod_that_only_its_node_can_have_waits_for_it_and_needs_no_room(kind: str) -> None:
    seen = world([pod_of_kind("p1", kind=kind, nodeSelector={"kubernetes.io/hostname": "old"})])
    found = look(seen)
    assert (found.drainable, found.placed, found.unplaced, found.waits_for_node) == (Drainable.YES, 0, (), ("s/p1",))


def test_a_pod_with_data_on_its_node_needs_room_and_waits_if_there_is_none() -> None:
    found = look(world([pod_of_kind("p1", **HOST_DATA, **MOUNT)]))
    assert (found.placed, found.waits_for_node) == (1, ())
    found = look(world([pod_of_kind("p1", **HOST_DATA, **MOUNT)], nodes=[raw_node("n1", unschedulable=True)]))
    assert (found.drainable, found.placed, found.waits_for_node) == (Drainable.YES, 0, ("s/p1",))


def test_a_budget_holds_a_pod_that_only_its_node_can_have_and_says_why_it_is_not_replaced_first() -> None:
    found = look(world([pod_of_kind("p1", nodeSelector={"kubernetes.io/hostname": "old"})], limit("b")))
    assert causes(found) == {"s/p1": BlockerClass.BUDGET_MISCONFIGURED}
    assert found.blockers[0].message.endswith("this pod is not replaced first, because only this node can have it")


def test_a_read_only_file_of_the_node_does_not_keep_a_pod_from_being_replaced_first() -> None:
    volume = {"name": "d", "hostPath": {"path": "/etc/localtime", "type": "File"}}
    container = {"name": "c", "volumeMounts": [{"name": "d", "readOnly": True}]}
    found = look(world([pod_of_kind("p1", volumes=[volume], containers=[container])], limit("b")))
    assert (found.drainable, found.replaced_first) == (Drainable.YES, ("s/p1",))


def test_a_rule_decides_whether_its_pods_are_replaced_first() -> None:
    seen = world([pod_of_kind("p1")], limit("b"))
    never = DrainRule(replacement=ReplacementMode.NEVER)
    assert causes(look(seen, rules=(never,))) == {"s/p1": BlockerClass.BUDGET_MISCONFIGURED}
    preferred = DrainRule(replacement=ReplacementMode.PREFERRED)
    assert look(seen, replacement=ReplacementMode.NEVER, rules=(preferred,)).replaced_first == ("s/p1",)


SPREAD: RawObject = {
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "a"}},
        }
    ]
}
"""Counts the drained node: with a pod on each node, no node takes another one."""


def spread_over_two(
    *budgets: DisruptionBudget, kind: str = "ReplicaSet", notes: RawObject | None = None
) -> PreviewInput:
    raws = [pod_of_kind(f"p{n}", on, kind=kind, notes=notes, **SPREAD) for n, on in ((1, "old"), (2, "n1"))]
    for raw in raws:
        raw["metadata"]["labels"] = {"app": "a"}
    return world(raws, *budgets, deployment=replace(WEB, replicas=2))


@pytest.mark.parametrize("kind", ["ReplicaSet", "StatefulSet"])
def test_a_pod_that_other_pods_keep_off_every_node_leaves_and_its_new_pod_is_pending(kind: str) -> None:
    found = look(spread_over_two(kind=kind))
    assert (found.drainable, found.unplaced, found.placed) == (Drainable.YES, (), 0)
    (row,) = found.pending
    assert row.pod == "s/p1"
    assert "1 blocked by affinity, anti-affinity, spread or host ports of other pods" in row.reason
    assert "nodeTaintsPolicy: Honor" in row.hint


def test_a_pod_that_needs_a_replacement_stays_if_other_pods_keep_it_off_every_node() -> None:
    notes = {names.REPLACEMENT: "Required"}
    found = look(spread_over_two(notes=notes))
    assert (found.drainable, found.pending) == (Drainable.NO, ())
    assert look(spread_over_two(kind="StatefulSet", notes=notes)).drainable is Drainable.YES


def test_a_budget_holds_a_pod_that_other_pods_keep_off_and_the_hint_names_the_spread() -> None:
    found = look(spread_over_two(limit("b")))
    assert (causes(found), found.replaced_first) == ({"s/p1": BlockerClass.BUDGET_MISCONFIGURED}, ())
    assert (found.pending, found.unplaced) == ((), ())
    assert "this pod is not replaced first, because 0 of 1 other nodes can take the pod" in found.blockers[0].message
    assert "nodeTaintsPolicy: Honor" in found.blockers[0].hint


def test_pods_without_room_leave_if_the_policy_lets_them() -> None:
    found = look(world([pod_of_kind("p1", cpu="9")]), no_room="Evict")
    assert (found.drainable, [(row.pod, row.hint) for row in found.pending]) == (Drainable.YES, [("s/p1", "")])


def test_a_pod_that_must_leave_before_its_new_pod_finds_a_place_cannot_be_replaced_first() -> None:
    found = look(world([pod_of_kind("p1", **affinity("podAffinity"))], limit("b")))
    assert causes(found) == {"s/p1": BlockerClass.BUDGET_MISCONFIGURED}
    assert found.blockers[0].message.endswith("a new pod run elsewhere only after this pod has left")


def test_pods_that_must_leave_together_are_held_up_by_a_budget_that_lets_only_some_go() -> None:
    raws = [pod_of_kind(name, **affinity("podAffinity")) for name in ("p1", "p2")]
    found = look(world(raws, limit("b", allowed=1)))
    assert causes(found) == dict.fromkeys(("s/p1", "s/p2"), BlockerClass.BUDGET_EXHAUSTED)
    assert look(world(raws, limit("b", allowed=2))).drainable is Drainable.YES
