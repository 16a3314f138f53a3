"""Progress of the chain moves of one drain: when one begins and ends, and which pods wait for it.

The status of the drain has the record of each chain move. It is written before the move is requested, so a restart
loses no move and begins none twice. A move that fails counts too: `chainMoves` limits the attempts of a drain.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from rescheduler.api.drains import BlockerClass, ChainMoveState, ChainMoveStatus
from rescheduler.api.policies import DrainSettings
from rescheduler.core.drain import messages
from rescheduler.core.drain.capacity import Forecasts, no_room_reason
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision
from rescheduler.core.model.pods import Pod
from rescheduler.core.placement.chain_moves import ChainMove, lacks_room
from rescheduler.core.replacement.decisions import ReplacementDecision, ReplacementStep
from rescheduler.core.replacement.messages import NO_ROOM_PREFIX

_PAUSE_AFTER_FAILURE = timedelta(minutes=30)
"""No chain move of the drain begins within this time after one has failed."""
_MOVE_TIMEOUT_MARGIN = timedelta(minutes=1)  # after two replacement timeouts: one to begin it, one to return the pod
_WAIT_AFTER_MOVE = timedelta(minutes=1)
"""Time in which pods still wait after a move: for the next plan, and for the pod that gets the room."""
_WAIT_AFTER_RELEASE = timedelta(seconds=5)
"""Time in which the ReplicaSet makes the new pod of a released pod, and the scheduler places it."""
_REPLACED_STEPS = (ReplacementStep.RELEASE, ReplacementStep.PLAIN_EVICTION, ReplacementStep.HOLD)
"""Steps of an unreleased pod that a wait takes the place of."""

ChainMoves = tuple[ChainMoveStatus, ...]
"""Records of the chain moves of a drain, the oldest first."""


def moving(chain_moves: Iterable[ChainMoveStatus]) -> ChainMoveStatus | None:
    """Return the chain move in progress; None if there is none."""
    return next((move for move in chain_moves if move.state is ChainMoveState.MOVING), None)


def end_moves(
    chain_moves: ChainMoves, outcomes: Mapping[str, str], settings: DrainSettings, now: datetime
) -> ChainMoves:
    """Return the records, with the moves that have ended.

    `outcomes`: by uid of the pod, why its move failed; empty if the pod has left its node.
    """
    limit = 2 * settings.replacement_timeout + _MOVE_TIMEOUT_MARGIN

    def ended(move: ChainMoveStatus) -> ChainMoveStatus:
        if move.state is not ChainMoveState.MOVING:
            return move
        cause = outcomes.get(move.uid)
        if cause is None and now - move.since >= limit:
            cause = messages.chain_move_timed_out(limit)
        if cause is None:
            return move
        state = ChainMoveState.FAILED if cause else ChainMoveState.MOVED
        return move.model_copy(update={"state": state, "since": now, "message": cause})

    return tuple(map(ended, chain_moves))


def moves_left(chain_moves: ChainMoves, settings: DrainSettings, now: datetime) -> int:
    """Return how many chain moves the drain may begin now: 0 while one is in progress, and soon after a failure."""
    if moving(chain_moves) or any(
        move.state is ChainMoveState.FAILED and now - move.since < _PAUSE_AFTER_FAILURE for move in chain_moves
    ):
        return 0
    return max(0, settings.chain_moves - len(chain_moves))


def is_needed(offer: ChainMove, pods: Iterable[Pod], forecasts: Forecasts) -> bool:
    """Whether the pod that gets the room is still there without room, and not released."""
    pod = next((pod for pod in pods if pod.uid == offer.for_uid), None)
    forecast = forecasts.get(offer.for_uid)
    is_unreleased = pod is not None and not pod.release_record and not pod.deletion_timestamp and not pod.finished
    return is_unreleased and forecast is not None and lacks_room(forecast)


def begin_move(chain_moves: ChainMoves, offer: ChainMove | None, settings: DrainSettings, now: datetime) -> ChainMoves:
    """Return the records, with a new one for the move that the plan offers."""
    known = {move.uid for move in chain_moves}
    if offer is None or offer.uid in known or not moves_left(chain_moves, settings, now):
        return chain_moves
    namespace, _, name = offer.pod.partition("/")
    record = ChainMoveStatus(
        namespace=namespace,
        pod=name,
        uid=offer.uid,
        node=offer.node,
        for_pod=offer.for_pod,
        for_uid=offer.for_uid,
        holds_others=offer.holds_others,
        state=ChainMoveState.MOVING,
        since=now,
    )
    return (*chain_moves, record)


def waits(
    chain_moves: ChainMoves,
    pod_decisions: Sequence[tuple[Pod, PodDecision]],
    decisions: Mapping[str, ReplacementDecision],
    forecasts: Forecasts,
    now: datetime,
    planned_at: datetime | None,
) -> dict[str, ReplacementDecision]:
    """Return the decisions for the pods that wait for a chain move, by uid.

    `planned_at`: start of the last plan; a plan from before the end of a move does not know the room.
    """
    move = moving(chain_moves) or _recently_moved(chain_moves, now)
    if move is None:
        return {}
    leaving = [
        pod
        for pod, decision in pod_decisions
        if decision.action is PodAction.EVICT and not pod.deletion_timestamp and not pod.finished
    ]
    unreleased = [pod for pod in leaving if not pod.release_record]
    without_room = {pod.uid for pod in unreleased if (found := forecasts.get(pod.uid)) and lacks_room(found)}
    is_planned = move.state is ChainMoveState.MOVED and planned_at is not None and planned_at >= move.since
    waiting = set[str]() if is_planned else without_room
    if move.holds_others and (not is_planned or _awaits_room(move, leaving, without_room, now)):
        waiting |= {pod.uid for pod in unreleased if not is_planned or pod.uid != move.for_uid}
    return {
        pod.uid: _wait(pod, move, forecasts)
        for pod in unreleased
        if pod.uid in waiting and ((own := decisions.get(pod.uid)) is None or own.step in _REPLACED_STEPS)
    }


def _awaits_room(move: ChainMoveStatus, leaving: Iterable[Pod], without_room: Collection[str], now: datetime) -> bool:
    """Whether the pod that gets the room is not released yet, or was just released: its new pod must come first."""
    pod = next((pod for pod in leaving if pod.uid == move.for_uid), None)
    if pod is None or pod.uid in without_room:
        return False
    return pod.release_record is None or now - pod.release_record.released_at < _WAIT_AFTER_RELEASE


def _recently_moved(chain_moves: ChainMoves, now: datetime) -> ChainMoveStatus | None:
    """Return the last move if its pod has just left."""
    last = chain_moves[-1] if chain_moves else None
    is_recent = last and last.state is ChainMoveState.MOVED and now - last.since < _WAIT_AFTER_MOVE
    return last if is_recent else None


def _wait(pod: Pod, move: ChainMoveStatus, forecasts: Forecasts) -> ReplacementDecision:
    waiting_for = messages.waits_for_chain_move(f"{move.namespace}/{move.pod}", move.node, move.for_pod)
    decision = ReplacementDecision(ReplacementStep.WAIT, waiting_for=waiting_for, hint=messages.CHAIN_MOVE_HINT)
    if not (reason := no_room_reason(forecasts.get(pod.uid))):
        return decision
    return replace(
        decision,
        blocker_class=BlockerClass.NO_ROOM_IN_POOL,
        message=f"{NO_ROOM_PREFIX}{reason}; {waiting_for}",
    )


def moving_uids(chain_moves: Iterable[ChainMoveStatus]) -> Collection[str]:
    """Return the uids of the pods that are being moved."""
    return frozenset(move.uid for move in chain_moves if move.state is ChainMoveState.MOVING)
