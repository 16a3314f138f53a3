"""The placement plan, applied to a drain."""

from dataclasses import replace

from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import DrainSettings, NoRoom
from rescheduler.core.drain import capacity
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision
from rescheduler.core.model.pods import Owner, Pod
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.replacement.decisions import ReplacementDecision, ReplacementStep

FITS, UNKNOWN = Forecast(Fit.FITS, 3), Forecast(Fit.UNKNOWN, 4, "who knows")
FULL, APART = Forecast(Fit.DOES_NOT_FIT, 5, "full"), Forecast(Fit.DOES_NOT_FIT, 6, "apart", blocked_by_pods=True)
POD = Pod("s", "p", "u", owner=Owner("StatefulSet", "db", "o"))
EVICT = [(POD, PodDecision(PodAction.EVICT))]


def test_only_want_of_room_is_want_of_room() -> None:
    assert [capacity.no_room_reason(each) for each in (FITS, UNKNOWN, FULL, APART, None)] == [
        None,
        None,
        "full",
        None,
        None,
    ]
    assert [capacity.blocked_by_pods_reason(each) for each in (FITS, UNKNOWN, FULL, APART, None)] == [
        None,
        None,
        None,
        "apart",
        None,
    ]


def test_colocated_pods_that_pods_that_stay_keep_off_are_tried_first() -> None:
    together = replace(FITS, colocated_uids=frozenset({"u"}))
    assert capacity.is_colocated(together)
    assert not capacity.is_colocated(replace(together, fit=Fit.DOES_NOT_FIT, blocked_by_pods=True))
    assert not any(map(capacity.is_colocated, (FITS, FULL, None)))


def test_pods_are_sorted_in_the_order_of_the_plan() -> None:
    earlier = Forecast(Fit.FITS, 1)
    assert sorted([UNKNOWN, FITS, earlier], key=capacity.plan_sort_key) == [earlier, FITS, UNKNOWN]
    may_fit = replace(UNKNOWN, rank=2)
    assert sorted([FITS, may_fit, earlier], key=capacity.plan_sort_key) == [earlier, may_fit, FITS]


def test_pods_that_fit_nowhere_and_pods_without_a_forecast_come_last() -> None:
    assert sorted([None, UNKNOWN], key=capacity.plan_sort_key) == [UNKNOWN, None]
    assert min([replace(FULL, rank=0), FITS], key=capacity.plan_sort_key) == FITS


def test_who_waits_without_room_is_named() -> None:
    found = capacity.with_no_room_message(ReplacementDecision(ReplacementStep.RELEASE), FULL)
    assert (found.step, found.blocker_class) == (ReplacementStep.RELEASE, BlockerClass.NO_ROOM_IN_POOL)
    assert found.message == "the plan finds no room for this pod on another node: full"


def test_the_schedulers_own_words_are_better() -> None:
    found = capacity.with_no_room_message(
        ReplacementDecision(ReplacementStep.WAIT, message="0/3 nodes are available"), FULL
    )
    assert found.message == "the replacement is Pending: 0/3 nodes are available"


def test_who_has_room_or_is_on_its_way_is_not_named() -> None:
    for choice, forecast in (
        (ReplacementDecision(ReplacementStep.WAIT), FITS),
        (ReplacementDecision(ReplacementStep.EVICT), FULL),
        (ReplacementDecision(ReplacementStep.PLAIN_EVICTION), FULL),
    ):
        assert capacity.with_no_room_message(choice, forecast) is choice


def test_what_is_held_for_something_else_keeps_its_own_words() -> None:
    held = ReplacementDecision(
        ReplacementStep.HOLD, blocker_class=BlockerClass.REPLACEMENT_NOT_READY, message="crashes"
    )
    assert capacity.with_no_room_message(held, FULL) is held


def test_a_pod_that_cannot_be_replaced_first_is_held_at_once() -> None:
    found = capacity.hold_without_room(EVICT, {}, {"u": FULL}, DrainSettings())
    assert found["u"].step is ReplacementStep.HOLD
    assert found["u"].message.endswith("full")


def test_pod_is_not_held_if_it_may_fit_or_policy_or_replacement_allows_it() -> None:
    assert capacity.hold_without_room(EVICT, {}, {"u": UNKNOWN}, DrainSettings()) == {}
    assert capacity.hold_without_room(EVICT, {}, {"u": APART}, DrainSettings()) == {}
    assert capacity.hold_without_room(EVICT, {}, {"u": FULL}, DrainSettings(no_room=NoRoom.EVICT)) == {}
    assert (
        capacity.hold_without_room(
            EVICT, {"u": ReplacementDecision(ReplacementStep.WAIT)}, {"u": FULL}, DrainSettings()
        )
        == {}
    )
    assert (
        capacity.hold_without_room(
            [(POD, PodDecision(PodAction.DELETE, forced=True))], {}, {"u": FULL}, DrainSettings()
        )
        == {}
    )


def test_where_it_may_stay_no_pod_goes_that_others_keep_off_everywhere() -> None:
    """A pod that leaves without a replacement needs room; a pod that is replaced first does not."""
    for choices in ({}, {"u": ReplacementDecision(ReplacementStep.PLAIN_EVICTION, "NoSurge")}):
        for forecast in (FULL, APART):
            assert (
                capacity.hold_without_room(EVICT, choices, {"u": forecast}, DrainSettings(), may_stay=True)["u"].step
                is ReplacementStep.HOLD
            )
        assert capacity.hold_without_room(EVICT, choices, {"u": UNKNOWN}, DrainSettings(), may_stay=True) == {}
    for way in (ReplacementStep.RELEASE, ReplacementStep.WAIT, ReplacementStep.EVICT):
        assert (
            capacity.hold_without_room(
                EVICT, {"u": ReplacementDecision(way)}, {"u": APART}, DrainSettings(), may_stay=True
            )
            == {}
        )


def test_only_pods_with_data_on_their_node_and_without_room_wait_for_it() -> None:
    data, plain = replace(POD, host_paths=("/d",), has_host_data=True), replace(POD, host_paths=("/run/s",))
    assert capacity.host_data_without_room({"u": FULL}, [data]) == {"u"}
    assert capacity.host_data_without_room({"u": FULL}, [plain]) == frozenset()
    for forecast in (FITS, UNKNOWN, APART):
        assert capacity.host_data_without_room({"u": forecast}, [data]) == frozenset()
