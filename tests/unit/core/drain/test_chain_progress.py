"""Chain moves of a drain: their records, their end, and the pods that wait for them."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api.drains import BlockerClass, ChainMoveState, ChainMoveStatus
from rescheduler.api.policies import DrainSettings
from rescheduler.core.drain import chain_progress
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision
from rescheduler.core.model.pods import Pod
from rescheduler.core.placement.chain_moves import ChainMove
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.replacement.decisions import ReplacementDecision, ReplacementStep
from unit.builders import NOW, release_record

OFFER = ChainMove("shop/api", "api", "n7", for_pod="shop/large", for_uid="large", for_node="n1", holds_others=True)
ONE = DrainSettings(chain_moves=1)
SECOND = timedelta(seconds=1)
(MOVING,) = chain_progress.begin_move((), OFFER, ONE, NOW)
MOVED = MOVING.model_copy(update={"state": ChainMoveState.MOVED})
FAILED = MOVING.model_copy(update={"state": ChainMoveState.FAILED})
FULL, FITS = Forecast(Fit.DOES_NOT_FIT, reason="full"), Forecast(Fit.FITS)
LARGE, WEB = Pod("shop", "large", "large", node="n1"), Pod("shop", "web", "web", node="n1")
RELEASE = ReplacementDecision(ReplacementStep.RELEASE)


def test_offered_move_begins_with_a_record() -> None:
    assert (MOVING.namespace, MOVING.pod, MOVING.uid, MOVING.node) == ("shop", "api", "api", "n7")
    assert (MOVING.for_pod, MOVING.for_uid, MOVING.holds_others) == ("shop/large", "large", True)
    assert (MOVING.state, MOVING.since) == (ChainMoveState.MOVING, NOW)


@pytest.mark.parametrize("before", [MOVING, MOVED, FAILED])
def test_attempts_of_a_drain_are_limited(before: ChainMoveStatus) -> None:
    other = replace(OFFER, uid="other")
    assert chain_progress.begin_move((before,), other, ONE, NOW + timedelta(days=1)) == (before,)
    assert chain_progress.begin_move((), OFFER, DrainSettings(), NOW) == ()
    assert chain_progress.begin_move((), None, ONE, NOW) == ()


def test_no_pod_moves_twice_and_moves_follow_one_another() -> None:
    settings, later = DrainSettings(chain_moves=5), NOW + timedelta(minutes=31)
    assert chain_progress.begin_move((MOVED,), OFFER, settings, NOW) == (MOVED,)
    other = replace(OFFER, uid="other")
    assert len(chain_progress.begin_move((MOVED,), other, settings, NOW)) == 2
    assert chain_progress.begin_move((MOVING,), other, settings, NOW) == (MOVING,)
    assert chain_progress.begin_move((FAILED,), other, settings, later - 2 * timedelta(minutes=1)) == (FAILED,)
    assert len(chain_progress.begin_move((FAILED,), other, settings, later)) == 2


def test_offer_is_needed_while_its_pod_waits_without_room() -> None:
    assert chain_progress.is_needed(OFFER, [WEB, LARGE], {"large": FULL})
    assert not chain_progress.is_needed(OFFER, [WEB], {"large": FULL})
    assert not chain_progress.is_needed(OFFER, [LARGE], {"large": FITS})
    assert not chain_progress.is_needed(OFFER, [LARGE], {})
    assert not chain_progress.is_needed(OFFER, [replace(LARGE, release_record=release_record())], {"large": FULL})
    assert not chain_progress.is_needed(OFFER, [replace(LARGE, deletion_timestamp=NOW)], {"large": FULL})


def test_move_ends_with_its_outcome_or_after_a_time() -> None:
    def ended(outcomes: Mapping[str, str], now: datetime) -> tuple[ChainMoveState, str]:
        (move,) = chain_progress.end_moves((MOVING,), outcomes, ONE, now)
        return move.state, move.message

    assert ended({}, NOW) == (ChainMoveState.MOVING, "")
    assert ended({"api": ""}, NOW + SECOND) == (ChainMoveState.MOVED, "")
    assert ended({"api": "denied"}, NOW) == (ChainMoveState.FAILED, "denied")
    assert ended({}, NOW + timedelta(minutes=11) - SECOND)[0] is ChainMoveState.MOVING
    assert ended({}, NOW + timedelta(minutes=11)) == (
        ChainMoveState.FAILED,
        "the pod has not left its node within 11m",
    )
    assert chain_progress.end_moves((MOVED,), {"api": "late"}, ONE, NOW) == (MOVED,)


def waits(
    move: ChainMoveStatus,
    *pods: Pod,
    forecast: Forecast = FULL,
    now: datetime = NOW,
    planned_at: datetime | None = None,
    step: ReplacementStep = ReplacementStep.RELEASE,
) -> dict[str, ReplacementDecision]:
    rows = [(pod, PodDecision(PodAction.EVICT)) for pod in pods or (LARGE, WEB)]
    decisions = {pod.uid: replace(RELEASE, step=step) for pod, _ in rows}
    return chain_progress.waits((move,), rows, decisions, {"large": forecast, "web": FITS}, now, planned_at)


def test_pods_wait_while_the_other_pod_moves() -> None:
    found = waits(MOVING)
    assert found.keys() == {"large", "web"}
    assert found["large"].blocker_class is BlockerClass.NO_ROOM_IN_POOL
    assert found["large"].message == (
        "the plan finds no room for this pod on another node: full; "
        "pod shop/api moves off node n7 first, so that pod shop/large has room there"
    )
    assert found["web"].blocker_class is None
    assert found["web"].waiting_for == "pod shop/api moves off node n7 first, so that pod shop/large has room there"


def test_only_pods_without_room_wait_if_the_others_do_not_take_it() -> None:
    assert waits(MOVING.model_copy(update={"holds_others": False})).keys() == {"large"}


def test_pods_wait_for_the_plan_after_the_move() -> None:
    assert waits(MOVED, planned_at=NOW - SECOND).keys() == {"large", "web"}
    assert waits(MOVED, planned_at=NOW, forecast=FITS).keys() == {"web"}
    assert waits(MOVED, planned_at=NOW, forecast=FULL) == {}
    assert waits(MOVED, planned_at=None, now=NOW + timedelta(minutes=1)) == {}


def test_others_wait_until_the_new_pod_has_its_room() -> None:
    released = replace(LARGE, release_record=release_record())
    (at,) = {released.release_record.released_at} if released.release_record else {NOW}
    assert waits(MOVED, released, WEB, planned_at=NOW, forecast=FITS, now=at).keys() == {"web"}
    assert waits(MOVED, released, WEB, planned_at=NOW, forecast=FITS, now=at + timedelta(seconds=5)) == {}
    assert waits(MOVED, WEB, planned_at=NOW) == {}


def test_released_and_leaving_pods_never_wait() -> None:
    released = replace(LARGE, release_record=release_record())
    leaving = replace(WEB, deletion_timestamp=NOW)
    assert waits(MOVING, released, leaving) == {}
    assert waits(MOVING, LARGE, step=ReplacementStep.EVICT) == {}
    assert waits(FAILED) == {}


STATES = st.lists(st.sampled_from([MOVING, MOVED, FAILED]), max_size=4).map(tuple)


@given(STATES, st.integers(0, 4), st.integers(0, 10_000))
def test_records_never_exceed_the_limit(records: chain_progress.ChainMoves, limit: int, seconds: int) -> None:
    settings, now = DrainSettings(chain_moves=limit), NOW + timedelta(seconds=seconds)
    after = chain_progress.begin_move(records, replace(OFFER, uid="new"), settings, now)
    assert len(after) <= max(len(records), limit)
    assert len(chain_progress.moving_uids(after)) <= max(1, len(chain_progress.moving_uids(records)))
