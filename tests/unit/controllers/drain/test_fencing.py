"""Live reads before each act on a fenced node, and what stops an act."""

import asyncio
import json
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, NodeRecord, Phase, RequestReason
from rescheduler.api.policies import Force, ReschedulePolicy
from rescheduler.controllers.drain.events import DrainEvents
from rescheduler.controllers.drain.fencing import NodeFencing
from rescheduler.controllers.store.store import Store
from rescheduler.core.drain import node_patches
from rescheduler.core.drain.state_machine import Report
from rescheduler.core.drain.status import StatusInput
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision, RequiredProof
from rescheduler.core.eviction.write_refusals import WriteOperation
from rescheduler.core.failure.fencing import OUT_OF_SERVICE_TAINT, FencingState
from rescheduler.core.model.nodes import Node, NodeCondition, Taint
from rescheduler.core.model.raw import RawObject
from rescheduler.kube.client import UnreachableError
from unit.builders import NOW, drain, node, pod, policy, raw_pod
from unit.fakes import FakeClock, FakeClusterClient, FakeEvents
from unit.supervision import run_in_own_loop

SAID = json.dumps({"nodeUID": "u", "bootID": "b", "method": "m", "time": "2026-01-01T00:00:00Z"})
UNKNOWN = (NodeCondition("Ready", "Unknown", last_transition=NOW),)
DEAD = node(uid="u", resource_version="7", boot_id="b", annotations={names.FENCED: SAID}, conditions=UNKNOWN)
ALIVE = replace(DEAD, conditions=(NodeCondition("Ready", "True"),))
REBOOTED = replace(DEAD, boot_id="c")
UNSAID = replace(DEAD, annotations={})
TAINTED = replace(
    DEAD, taints=(Taint(OUT_OF_SERVICE_TAINT.key, OUT_OF_SERVICE_TAINT.value, OUT_OF_SERVICE_TAINT.effect),)
)
POD = pod("db-0", uid="p")
SILENT, PROVEN = (
    PodDecision(PodAction.DELETE, required_proof=RequiredProof.NODE_UNREACHABLE),
    PodDecision(PodAction.DELETE, required_proof=RequiredProof.BOOT_DEAD),
)
HELD = NodeRecord(uid="u", boot_id="b", cordoned_by_us=True)
FENCED = node_patches.out_of_service_record(DEAD, HELD)


def failed_drain(record: NodeRecord = HELD) -> NodeDrain:
    """Return the drain of a failed node that has this record in its status."""
    return drain(begun=True, reasons=(RequestReason.FAILURE,), node=record)


def policy_that_forces(force: Force = Force.WITH_PROOF) -> ReschedulePolicy:
    """Return a policy with this `failure.force`."""
    return policy(failure={"force": force})


@dataclass
class World:
    """Fake collaborators of the fencing: the result of live reads, and the writes and Events in order."""

    live: Node | None = DEAD
    silent: bool | Exception = True
    refused: bool = False
    resting: bool = False
    reads: int = 0
    glances: int = 0
    done: list[Any] = field(default_factory=list)
    client: FakeClusterClient = field(default_factory=FakeClusterClient)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.store = Store(self.clock.now)
        self.store.history.observe(None, DEAD, None)

    def change(self, *, blind: bool = False, **fields: Any) -> None:
        """Change these fields; `blind`: no view of the nodes is reliable."""
        self.store.set_blackout("every Lease is silent" if blind else "")
        vars(self).update(fields)

    def fence(self) -> NodeFencing:
        keeper = SimpleNamespace(
            read_live=self.read,
            read_recent=self.glance,
            attempt=self.attempt,
            may_attempt=lambda *_, wanted: wanted and not self.resting,
        )
        heartbeats = SimpleNamespace(is_silent_for_long=self.hear)
        made: Any = NodeFencing
        fence: NodeFencing = made(
            self.client, self.store, self.clock, FakeEvents(DrainEvents, self.done), heartbeats, keeper
        )
        return fence

    async def read(self, name: str) -> Node | None:
        self.reads += 1
        return self.live

    async def glance(self, name: str) -> Node | None:
        self.glances += 1
        return self.live

    async def hear(self, here: Node) -> bool:
        if isinstance(self.silent, Exception):
            raise self.silent
        return self.silent

    async def attempt(self, act: WriteOperation, here: Node, patch: RawObject) -> bool:
        self.done.append("refused" if self.refused else patch["spec"])
        return not self.refused

    async def write(self, status_input: StatusInput, *, immediately: bool = False) -> None:
        self.done.append(status_input.node_record)


def judged(world: World, here: Node = DEAD, record: NodeRecord = HELD) -> tuple[NodeFencing, FencingState]:
    """Return the fencing after one evaluation, and its state."""
    fence = world.fence()
    return fence, run_in_own_loop(fence.evaluate(failed_drain(record), here, policy_that_forces(), failing=True))


def publish(fence: NodeFencing, here: Node, state: FencingState) -> None:
    fence.publish_findings(replace(scene(here, HELD), fencing_state=state))


def scene(here: Node, record: NodeRecord) -> StatusInput:
    given: dict[str, Any] = {"wait": None, "started_at": NOW, "pod_summary": None, "moved": 0, "now": NOW}
    return StatusInput(
        failed_drain(record), here, policy_that_forces(), Phase.DRAINING, Report.PHASE, node_record=record, **given
    )


# -- looking ----------------------------------------------------------------------------------------------------------


def test_a_silent_node_with_an_attestation_is_proven_dead() -> None:
    _, found = judged(World())
    assert found.proof
    assert not found.proof_pending


@pytest.mark.parametrize("silent", [False, UnreachableError("no answer")])
def test_while_its_lease_is_not_known_to_be_silent_nothing_is_proven(silent: bool | Exception) -> None:
    _, found = judged(World(silent=silent))
    assert found.proof is None
    assert found.rejections
    assert found.proof_pending


def test_an_attestation_of_another_boot_is_refused_by_an_event() -> None:
    world = World()
    fence, found = judged(world, REBOOTED)
    assert found.proof is None
    assert not world.done  # nothing is published while observing
    publish(fence, REBOOTED, found)
    assert world.done == ["publish_attestation_refused"]


def test_where_the_policy_forbids_force_there_is_no_proof() -> None:
    fence = World().fence()
    found = run_in_own_loop(fence.evaluate(failed_drain(), DEAD, policy_that_forces(Force.NEVER), failing=True))
    assert (found.proof, found.force_forbidden) == (None, True)
    assert "Never" in str(found.proof_hint)


def test_without_a_failure_nothing_is_looked_for() -> None:
    found = run_in_own_loop(World().fence().evaluate(failed_drain(), DEAD, policy_that_forces(), failing=False))
    assert found.proof is None


# -- just before a pod goes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "silent_goes", "proven_goes"),
    [
        ({}, True, True),
        ({"live": ALIVE}, False, False),
        ({"live": replace(DEAD, conditions=(NodeCondition("Ready", "False"),))}, False, False),
        ({"live": REBOOTED}, False, False),
        ({"live": replace(DEAD, uid="v")}, False, False),
        ({"live": None}, False, False),
        ({"blind": True}, False, False),
        ({"live": UNSAID}, True, False),
        ({"silent": False}, True, False),
    ],
)
def test_each_pod_goes_only_while_what_it_rests_on_is_so(
    changes: dict[str, Any], silent_goes: bool, proven_goes: bool
) -> None:
    world = World()
    fence, _ = judged(world)
    world.change(**changes)
    assert (run_in_own_loop(fence.confirm(failed_drain(), DEAD, POD, SILENT)) is None) is silent_goes
    assert (run_in_own_loop(fence.confirm(failed_drain(), DEAD, POD, PROVEN)) is None) is proven_goes


def test_forced_delete_needs_a_live_read_and_others_a_recent_one() -> None:
    world = World()
    fence, _ = judged(world)

    async def ask(verdict: PodDecision) -> None:
        await asyncio.gather(*(fence.confirm(failed_drain(), DEAD, POD, verdict) for _ in range(5)))

    run_in_own_loop(ask(SILENT))
    assert (world.reads, world.glances) == (0, 5)
    run_in_own_loop(ask(PROVEN))
    assert (world.reads, world.glances) == (5, 5)


def replace_boot(record: NodeRecord) -> NodeRecord:
    """Return the record of the same node for an earlier boot."""
    return record.model_copy(update={"boot_id": "before"})


# -- the taint --------------------------------------------------------------------------------------------------------


def tend(world: World, fence: NodeFencing, here: Node, record: NodeRecord, **given: bool) -> StatusInput:
    given = {"taint_due": True, "node_in_use": True, "may_set": True} | given
    return run_in_own_loop(fence.reconcile_taint(scene(here, record), here, (), write_status=world.write, **given))


def test_it_is_recorded_before_it_is_set() -> None:
    world = World()
    fence, _ = judged(world)
    after = tend(world, fence, DEAD, HELD)
    assert world.done == [
        FENCED,
        {"taints": [{"key": OUT_OF_SERVICE_TAINT.key, "effect": "NoSchedule"}]},
        "publish_out_of_service",
    ]
    assert after.node_record == FENCED


@pytest.mark.parametrize(
    "changes",
    [{"live": ALIVE}, {"live": REBOOTED}, {"live": None}, {"live": UNSAID}, {"silent": False}],
)
def test_it_is_not_set_where_the_proof_fails_at_the_last_moment(changes: dict[str, Any]) -> None:
    world = World()
    fence, _ = judged(world)
    world.change(**changes)
    tend(world, fence, DEAD, HELD)
    assert world.done == [FENCED]


def test_a_drain_that_may_not_go_on_sets_none() -> None:
    world = World()
    fence, _ = judged(world)
    tend(world, fence, DEAD, HELD, may_set=False)
    assert not world.done


def test_a_refused_taint_is_neither_announced_nor_tried_while_it_rests() -> None:
    world = World(refused=True)
    fence, _ = judged(world)
    assert tend(world, fence, DEAD, HELD).node_record == FENCED
    assert world.done == [FENCED, "refused"]
    world.live = TAINTED
    world.done.clear()
    assert tend(
        world, fence, TAINTED, replace_boot(FENCED), taint_due=False, node_in_use=False
    ).node_record == replace_boot(FENCED)
    assert world.done == ["refused"]
    reads, world.resting = world.reads, True
    tend(world, fence, DEAD, HELD)
    assert (world.done, world.reads) == (["refused"], reads)


def test_record_without_its_taint_is_cleared_only_after_a_live_read() -> None:
    world = World(live=TAINTED)
    fence, _ = judged(world)
    assert tend(world, fence, DEAD, FENCED, taint_due=False).node_record == FENCED
    world.live = DEAD
    assert tend(world, fence, DEAD, FENCED, taint_due=False).node_record == HELD


@pytest.mark.parametrize(
    ("live", "busy", "lifted"),
    [
        (replace(TAINTED, boot_id="c"), True, True),
        (replace(TAINTED, conditions=ALIVE.conditions), False, True),
        (replace(TAINTED, conditions=ALIVE.conditions), True, False),
        (TAINTED, False, False),
    ],
)
def test_it_is_taken_off_only_where_the_live_node_allows(live: Node, busy: bool, lifted: bool) -> None:
    world = World(live=live)
    fence, _ = judged(world)
    seen = replace(TAINTED, boot_id="c")  # in view: a new boot
    after = tend(world, fence, seen, FENCED, taint_due=False, node_in_use=busy)
    assert world.done == ([{"taints": None}, "publish_in_service"] if lifted else [])
    assert (after.node_record == HELD) is lifted
    assert (
        bool(fence.wait_reason(failed_drain(), DEAD, policy_that_forces())) is lifted
    )  # nothing is moved for a minute


# -- coming back ------------------------------------------------------------------------------------------------------


def test_nothing_is_moved_off_a_ghost() -> None:
    world = World()
    ghost = replace(TAINTED, conditions=ALIVE.conditions)
    fence, found = judged(world, ghost, FENCED)
    assert found.returned_without_reboot
    publish(fence, ghost, found)
    assert world.done == ["publish_returned_without_reboot"]
    assert fence.wait_reason(failed_drain(FENCED), ghost, policy_that_forces())


def test_a_pod_that_runs_twice_is_published_once_in_the_apply_step() -> None:
    world = World()
    fence, _ = judged(world)
    assert run_in_own_loop(fence.confirm(failed_drain(), DEAD, POD, PROVEN)) is None
    world.client.put("pods", raw_pod("db-0", node="other"))
    found = run_in_own_loop(fence.evaluate(failed_drain(), ALIVE, policy_that_forces(), failing=False))
    assert not world.done
    publish(fence, ALIVE, found)
    assert world.done == ["publish_returned_without_reboot", "publish_running_twice"]
    world.clock.seconds += 60
    assert run_in_own_loop(fence.evaluate(failed_drain(), ALIVE, policy_that_forces(), failing=False)).duplicates == ()


def test_a_node_that_boots_anew_gets_the_time_of_its_condition() -> None:
    world = World()
    fence, _ = judged(world)
    ill = replace(REBOOTED, conditions=(NodeCondition("Ready", "False"),))
    assert fence.wait_reason(failed_drain(), ill, policy_that_forces())
    world.clock.seconds += 181
    assert fence.wait_reason(failed_drain(), ill, policy_that_forces()) is None
    assert fence.wait_reason(failed_drain(), REBOOTED, policy_that_forces()) is None  # silent again
    assert fence.wait_reason(failed_drain(), replace(ill, boot_id="b"), policy_that_forces()) is None
