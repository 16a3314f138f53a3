"""Decide one step of a drain: an observation goes in, commands and the content of the status come out.

The controller observes everything first, and writes only after the decision.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, Phase
from rescheduler.api.policies import DrainSettings, OnTimeout, ReschedulePolicy
from rescheduler.core.drain import came_back, state_machine, status
from rescheduler.core.drain.pod_evaluation import MoveMode, PodEvaluation
from rescheduler.core.drain.pod_summary import PodSummary
from rescheduler.core.drain.state_machine import Command, DrainState, Permission, Report
from rescheduler.core.drain.status import StatusInput
from rescheduler.core.eviction.pod_actions import EvictionContext, deadline
from rescheduler.core.failure.fencing import FencingState
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.wait_reasons import WaitReason

POD_RETURN_TIMEOUT, CLEANUP_POD_RETURN_TIMEOUT = timedelta(minutes=10), timedelta(minutes=1)
"""A restore waits this long for released pods; then it continues without them."""


@dataclass(frozen=True, slots=True)
class DrainObservation:
    """Everything that one step of a drain depends on, observed at one moment.

    Attributes:
        now: the operator's clock.
        drain: the NodeDrain.
        node: the Node; None if it is gone.
        policy: the winning policy; None without one.
        settings: `drain` of the policy, with the overrides of the NodeDrain.
        wait: why the drain must wait; None if it may continue.
        only_suspected: a silent Lease is the only sign of failure.
        fencing_state: what is known about the death of the node.
        out_of_service: the drain set the out-of-service taint, and the taint must stay.
        is_restored: nothing that the drain added is left on the node.
        cordoned_at: when the node was cordoned; None if no cordon was observed.
        cordon_fails: the cordon is refused, and that is reported.
        pod_summary: the pods that must leave; None while the pods or the policy are not known.
        pod_evaluation: the decisions for the pods, for the apply step; None while the pods are not known.
        pods_are_synced: the pods of the node are listed.
        released_pods: released pods on the node, by namespace/name.
        moved: pods that have left in earlier steps.
        last_move_at: when a pod last left or was in flight; None if never.
        node_in_use: a pod is Terminating or a volume is attached, or both are unknown.
        node_in_use_by: these pods and volumes, in a text each.
        unsynced_reason: which list has been missing for long; None if none has.
        cleanup: the operator is being uninstalled.
    """

    now: datetime
    drain: NodeDrain
    node: Node | None
    policy: ReschedulePolicy | None = None
    settings: DrainSettings = field(default_factory=DrainSettings)
    wait: WaitReason | None = None
    only_suspected: bool = False
    fencing_state: FencingState = field(default_factory=FencingState)
    out_of_service: bool = False
    is_restored: bool = False
    cordoned_at: datetime | None = None
    cordon_fails: bool = False
    pod_summary: PodSummary | None = None
    pod_evaluation: PodEvaluation | None = None
    pods_are_synced: bool = False
    released_pods: tuple[str, ...] = ()
    moved: int = 0
    last_move_at: datetime | None = None
    node_in_use: bool = True
    node_in_use_by: tuple[str, ...] = ()
    unsynced_reason: str | None = None
    cleanup: bool = False


@dataclass(frozen=True, slots=True)
class DrainDecision:
    """The step of a drain.

    Attributes:
        commands: the acts, in this order.
        status_input: the content of the status after the acts.
        withdrawn: the NodeDrain is being deleted, so failures of its writes no longer matter.
        node_in_use: as observed; a restore keeps the out-of-service taint of a node in use.
        pod_evaluation: as observed.
    """

    commands: tuple[Command, ...]
    status_input: StatusInput
    withdrawn: bool
    node_in_use: bool
    pod_evaluation: PodEvaluation | None = None


def move_mode(drain: NodeDrain, wait: WaitReason | None, *, only_suspected: bool) -> MoveMode:
    """Return which pods of the drain may move now; a drain without its slot still finishes what it began."""
    permission = state_machine.permission(drain, wait)
    if drain.deletion_timestamp is not None or permission not in (Permission.MAY_MOVE, Permission.YIELDS):
        return MoveMode.NONE
    return MoveMode.RELEASE_ONLY if only_suspected else MoveMode.ALL


def decide_step(observed: DrainObservation) -> DrainDecision:
    """Return the step of the drain."""
    drain, summary = observed.drain, observed.pod_summary
    withdrawn = drain.deletion_timestamp is not None
    row = state_machine.step(drain.status.phase or Phase.WAITING, state_machine.fact(drain_state(observed)))
    reports_releases = withdrawn or row.report is Report.STEPPING_BACK
    status_input = StatusInput(
        drain=drain,
        node=observed.node,
        policy=observed.policy,
        phase=row.phase,
        report=row.report,
        wait=None if row.phase is Phase.DRAINED else observed.wait,
        node_record=drain.status.node,
        started_at=drain.status.started_at,
        pod_summary=summary,
        moved=observed.moved + (summary.existing - summary.remaining if summary else 0),
        now=observed.now,
        settings=observed.settings,
        fencing_state=observed.fencing_state,
        pods_to_return=observed.released_pods if reports_releases else (),
        node_in_use_by=observed.node_in_use_by if row.report is Report.OUT_OF_SERVICE else (),
        unsynced_reason=observed.unsynced_reason,
        last_move_at=observed.last_move_at,
    )
    return DrainDecision(row.commands, status_input, withdrawn, observed.node_in_use, observed.pod_evaluation)


def drain_state(observed: DrainObservation) -> DrainState:
    """Return the input of the state machine."""
    drain, record, summary = observed.drain, observed.drain.status.node, observed.pod_summary
    return DrainState(
        now=observed.now,
        same_node=observed.node is not None and (not record or not record.uid or record.uid == observed.node.uid),
        withdrawn=drain.deletion_timestamp is not None,
        restored=observed.is_restored,
        permission=state_machine.permission(drain, observed.wait, out_of_service=observed.out_of_service),
        out_of_service=observed.out_of_service,
        suspected=observed.only_suspected,
        has_pods_to_return=_waits_for_pod_returns(observed),
        has_step_back=names.STEPPED_BACK in drain.annotations,
        timed_out=_is_cancelled_by_timeout(observed),
        started_at=drain.status.started_at,
        cordoned_at=observed.cordoned_at,
        remaining=summary.existing + len(summary.detaching_volumes) if summary else None,
        may_come_back=summary is not None
        and came_back.may_come_back(summary.came_back, summary.tolerating_left_at, observed.now),
        blocker_count=(len(summary.blockers) if summary else 0) + observed.cordon_fails,
        last_move_at=observed.last_move_at,
    )


def _waits_for_pod_returns(observed: DrainObservation) -> bool:
    """Whether released pods are left on the node, or the pods of the node are not known.

    After a timeout the restore continues without such pods, and they are returned later.
    """
    drain = observed.drain
    if drain.status.started_at is None:
        return False
    patience = CLEANUP_POD_RETURN_TIMEOUT if observed.cleanup else POD_RETURN_TIMEOUT
    is_late = drain.deletion_timestamp is not None and observed.now - drain.deletion_timestamp >= patience
    return not is_late and (bool(observed.released_pods) or not observed.pods_are_synced)


def _is_cancelled_by_timeout(observed: DrainObservation) -> bool:
    """Whether the timeout has passed and the drain must be cancelled."""
    before, settings = observed.drain.status, observed.settings
    context = EvictionContext(observed.now, before.started_at, status.paused_duration(before, observed.now))
    timeout_at = deadline(settings.timeout, context)
    return settings.on_timeout is OnTimeout.CANCEL and timeout_at is not None and observed.now >= timeout_at
