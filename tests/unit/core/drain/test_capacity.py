"""What a drain makes of the plan."""

from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import Drain, NoRoom
from rescheduler.core.drain import capacity
from rescheduler.core.eviction.pod_actions import Fate, Verdict
from rescheduler.core.model.pods import Owner, Pod
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.replacement.decisions import Choice, Way

FITS, UNKNOWN = Forecast(Fit.FITS, 3), Forecast(Fit.UNKNOWN, 4, "who knows")
FULL, APART = Forecast(Fit.DOES_NOT_FIT, 5, "full"), Forecast(Fit.DOES_NOT_FIT, 6, "apart", crowded=True)
POD = Pod("s", "p", "u", owner=Owner("StatefulSet", "db", "o"))
EVICT = [(POD, Verdict(Fate.EVICT))]


def test_only_want_of_room_is_want_of_room() -> None:
    assert [capacity.short(each) for each in (FITS, UNKNOWN, FULL, APART, None)] == ["", "", "full", "", ""]
    assert [capacity.crowded(each) for each in (FITS, UNKNOWN, FULL, APART, None)] == ["", "", "", "apart", ""]


def test_those_that_fit_come_first_in_the_plans_order() -> None:
    earlier = Forecast(Fit.FITS, 1)
    assert sorted([FULL, FITS, UNKNOWN, earlier], key=capacity.turn)[:2] == [earlier, FITS]


def test_who_waits_without_room_is_named() -> None:
    found = capacity.named(Choice(Way.RELEASE), FULL)
    assert (found.way, found.cause) == (Way.RELEASE, BlockerClass.NO_ROOM_IN_POOL)
    assert found.message == "the plan finds no room for it elsewhere: full"


def test_the_schedulers_own_words_are_better() -> None:
    found = capacity.named(Choice(Way.WAIT, message="0/3 nodes are available"), FULL)
    assert found.message == "its replacement is Pending: 0/3 nodes are available"


def test_who_has_room_or_is_on_its_way_is_not_named() -> None:
    for choice, forecast in ((Choice(Way.WAIT), FITS), (Choice(Way.EVICT), FULL), (Choice(Way.PLAIN), FULL)):
        assert capacity.named(choice, forecast) is choice


def test_what_is_held_for_something_else_keeps_its_own_words() -> None:
    held = Choice(Way.HOLD, cause=BlockerClass.REPLACEMENT_NOT_READY, message="crashes")
    assert capacity.named(held, FULL) is held


def test_a_pod_that_cannot_be_replaced_first_is_held_at_once() -> None:
    found = capacity.held(EVICT, {}, {"u": FULL}, Drain())
    assert found["u"].way is Way.HOLD
    assert found["u"].message.endswith("full")


def test_it_is_not_held_where_it_may_fit_or_the_policy_says_so_or_it_goes_anyhow() -> None:
    assert capacity.held(EVICT, {}, {"u": UNKNOWN}, Drain()) == {}
    assert capacity.held(EVICT, {}, {"u": APART}, Drain()) == {}
    assert capacity.held(EVICT, {}, {"u": FULL}, Drain(no_room=NoRoom.EVICT)) == {}
    assert capacity.held(EVICT, {"u": Choice(Way.WAIT)}, {"u": FULL}, Drain()) == {}
    assert capacity.held([(POD, Verdict(Fate.DELETE, forced=True))], {}, {"u": FULL}, Drain()) == {}


def test_where_it_may_stay_no_pod_goes_that_others_keep_off_everywhere() -> None:
    """Nor one of a Deployment that would go without a replacement; those that are replaced first are not lost."""
    for choices in ({}, {"u": Choice(Way.PLAIN, "NoSurge")}):
        for forecast in (FULL, APART):
            assert capacity.held(EVICT, choices, {"u": forecast}, Drain(), may_stay=True)["u"].way is Way.HOLD
        assert capacity.held(EVICT, choices, {"u": UNKNOWN}, Drain(), may_stay=True) == {}
    for way in (Way.RELEASE, Way.WAIT, Way.EVICT):
        assert capacity.held(EVICT, {"u": Choice(way)}, {"u": APART}, Drain(), may_stay=True) == {}
