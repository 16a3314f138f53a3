"""Colocated pods leave together, or not at all."""

from collections.abc import Mapping, Sequence

from rescheduler.api.drains import BlockerClass
from rescheduler.core.drain.capacity import Forecasts
from rescheduler.core.drain.colocated_pods import hold_for_colocated_pods, with_common_order
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Pod
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.replacement.decisions import ReplacementDecision, ReplacementStep
from unit.builders import pod

EVICT, BLOCKED = PodDecision(PodAction.EVICT), PodDecision(PodAction.BLOCK, 0, BlockerClass.EMPTY_DIR, "why", "how")
GOING = PodDecision(PodAction.WAIT_TERMINATING)


def together(*names: str) -> Forecasts:
    return {name: Forecast(Fit.FITS, colocated_uids=frozenset(names)) for name in names}


def held(
    rows: Sequence[tuple[Pod, PodDecision]],
    forecasts: Forecasts,
    *,
    budgets: Mapping[str, Sequence[DisruptionBudget]] | None = None,
    evicting: Sequence[str] = (),
    steps: Mapping[str, ReplacementStep] | None = None,
) -> dict[str, ReplacementDecision]:
    decisions = {uid: ReplacementDecision(step) for uid, step in (steps or {}).items()}
    return hold_for_colocated_pods(
        rows, decisions, forecasts, lambda found: (budgets or {}).get(found.uid, ()), evicting
    )


def limit(name: str, allowed: int) -> DisruptionBudget:
    return DisruptionBudget("s", name, name, allowed=allowed, healthy=3, needed=1, expected=3)


def test_pods_that_may_all_leave_are_not_held() -> None:
    assert held([(pod("a"), EVICT), (pod("b"), EVICT)], together("a", "b")) == {}


def test_a_pod_stays_while_a_colocated_pod_must_not_leave() -> None:
    found = held([(pod("a"), EVICT), (pod("b"), BLOCKED), (pod("c"), EVICT)], together("a", "b"))
    assert found.keys() == {"a"}
    assert (found["a"].step, found["a"].blocker_class, found["a"].hint) == (
        ReplacementStep.HOLD,
        BlockerClass.EMPTY_DIR,
        "how",
    )
    assert found["a"].message == "this pod must share a node with s/b, which cannot leave: why"


def test_a_pod_stays_while_the_budget_of_a_colocated_pod_allows_no_eviction() -> None:
    budgets = {"a": (limit("mine", 1),), "b": (limit("other", 0),)}
    found = held([(pod("a"), EVICT), (pod("b"), EVICT)], together("a", "b"), budgets=budgets)
    assert found.keys() == {"a"}
    assert "PodDisruptionBudget other" in found["a"].message


def test_pods_under_one_budget_stay_until_it_allows_all_of_them() -> None:
    rows, names = [(pod(name), EVICT) for name in "abc"], ("a", "b", "c")
    found = held(rows, together(*names), budgets=dict.fromkeys(names, (limit("web", 2),)))
    assert found.keys() == set(names)
    assert found["a"].message == (
        "3 pods must leave together because they must share a node, and PodDisruptionBudget web allows 2"
    )
    assert held(rows, together(*names), budgets=dict.fromkeys(names, (limit("web", 3),))) == {}


def test_pods_that_have_left_use_no_budget() -> None:
    names = ("a", "b", "c")
    rows = [(pod("a"), EVICT), (pod("b"), GOING), (pod("c"), EVICT)]
    budgets = dict.fromkeys(names, (limit("web", 1),))
    assert held(rows, together(*names), budgets=budgets, evicting=["a"]) == {}


def test_pods_of_a_mover_are_evicted_because_the_mover_acts_on_refusals() -> None:
    machines = [pod(name, labels={"kubevirt.io": "virt-launcher"}) for name in "ab"]
    budgets = {"a": (limit("a", 1),), "b": (limit("b", 0),)}
    assert held([(machine, EVICT) for machine in machines], together("a", "b"), budgets=budgets) == {}


def test_a_released_pod_keeps_its_step() -> None:
    rows = [(pod("a"), EVICT), (pod("b"), BLOCKED)]
    assert held(rows, together("a", "b"), steps={"a": ReplacementStep.EVICT}) == {}
    assert held(rows, together("a", "b"), steps={"a": ReplacementStep.PLAIN_EVICTION}).keys() == {"a"}


def test_colocated_pods_have_the_highest_order_of_any_of_them() -> None:
    rows = [(pod("a"), EVICT), (pod("b"), PodDecision(PodAction.EVICT, 10)), (pod("c"), EVICT)]
    assert [decision.order for _, decision in with_common_order(rows, together("a", "b"))] == [10, 10, 0]


def test_colocated_pods_stay_with_one_that_is_held_for_lack_of_room() -> None:
    rows = [(pod("a"), EVICT), (pod("b"), EVICT)]
    found = held(rows, together("a", "b"), steps={"a": ReplacementStep.PLAIN_EVICTION, "b": ReplacementStep.HOLD})
    assert set(found) == {"a"}
    assert "s/b" in found["a"].message
