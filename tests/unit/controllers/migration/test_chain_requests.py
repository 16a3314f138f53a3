"""Requests for the chain moves of drains: from the status, within the group of nodes, until the move has ended."""

from types import SimpleNamespace
from typing import Any

import pytest

from rescheduler.api.drains import Blocker, BlockerClass, ChainMoveState, ChainMoveStatus, NodeDrain
from rescheduler.controllers.evacuation.chain_outcomes import ChainOutcomes
from rescheduler.controllers.migration.chain_requests import ChainMoveRequests
from rescheduler.controllers.migration.node_task import BlockedMigration, MigrationRequests
from rescheduler.core.eligibility.cluster_state import ClusterState
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.policy_selection import PolicySelector
from unit.builders import NOW, drain, node, policy

MOVE = ChainMoveStatus(
    namespace="shop",
    pod="api",
    uid="api",
    node="n7",
    for_pod="shop/large",
    for_uid="large",
    state=ChainMoveState.MOVING,
    since=NOW,
)
REQUEST = {"n7": {"api": "ChainMove/n1"}}


def moving(**status: Any) -> NodeDrain:
    """Return the drain of n1 while a pod moves off n7."""
    return drain("n1", begun=True, **{"chain_moves": (MOVE,), **status})


class World:
    """A store with a drain of n1, and migrations that remember their requests."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {name: node(name, ready="True") for name in ("n1", "n7")}
        self.drains = {"n1": moving()}
        self.requests: list[dict[str, MigrationRequests]] = []
        self.blocked: list[BlockedMigration] = []
        self.woken: list[str] = []
        self.listeners: dict[str, Any] = {}
        self.outcomes = ChainOutcomes(self.woken.extend)
        store: Any = SimpleNamespace(
            drains=self.drains,
            drain=self.drains.get,
            node=self.nodes.get,
            cluster_state=lambda: ClusterState(self.nodes, PolicySelector([policy()]), self.drains, NOW),
        )
        migrations: Any = SimpleNamespace(
            subscribe=lambda **listeners: self.listeners.update(listeners),
            set_requests=lambda _, requests: self.requests.append(requests),
            blocked_migrations=lambda: self.blocked,
        )
        self.chain = ChainMoveRequests(store, migrations, self.outcomes)
        self.chain.reconcile()


def test_move_is_requested_once_and_again_by_the_next_leader() -> None:
    world = World()
    world.chain.reconcile()
    assert world.requests == [REQUEST]
    world.chain.reset()
    world.chain.reconcile()
    assert world.requests == [REQUEST, REQUEST]


@pytest.mark.parametrize(
    "changed",
    [
        moving(waiting="Suspended"),
        moving(waiting="StaleView"),
        moving(started_at=None),
        moving().model_copy(update={"deletion_timestamp": NOW}),
        moving(chain_moves=(MOVE.model_copy(update={"state": ChainMoveState.MOVED}),)),
        moving(chain_moves=()),
    ],
)
def test_request_is_withdrawn_if_the_drain_must_not_move_pods(changed: NodeDrain) -> None:
    world = World()
    world.drains["n1"] = changed
    world.chain.reconcile()
    assert world.requests == [REQUEST, {}]
    assert world.outcomes.causes == {}


def test_drain_without_its_slot_finishes_the_move() -> None:
    world = World()
    world.drains["n1"] = moving(waiting="MaxConcurrent")
    world.chain.reconcile()
    assert world.requests == [REQUEST]


@pytest.mark.parametrize("change", ["gone", "cordoned", "not Ready", "drained", "other pool"])
def test_move_fails_if_its_node_must_not_give_pods(change: str) -> None:
    world = World()
    if change == "gone":
        del world.nodes["n7"]
    elif change == "drained":
        world.drains["n7"] = drain("n7")
    else:
        fields: Any = {
            "cordoned": {"unschedulable": True},
            "not Ready": {"ready": "False"},
            "other pool": {"labels": {"rescheduler.node-restriction.kubernetes.io/pool": "db"}},
        }[change]
        world.nodes["n7"] = node("n7", **{"ready": "True", **fields})
    world.chain.reconcile()
    assert world.requests[-1] == {}
    assert world.outcomes.causes["api"].startswith("node n7 is gone, drained, not Ready")
    assert world.woken == ["n1"]


def test_gone_pod_ends_the_move_and_its_request() -> None:
    world = World()
    world.listeners["on_pod_gone"]("other")
    assert world.outcomes.causes == {}
    world.listeners["on_pod_gone"]("api")
    assert (dict(world.outcomes.causes), world.woken) == ({"api": ""}, ["n1"])
    world.chain.reconcile()
    assert world.requests[-1] == {}


@pytest.mark.parametrize(
    ("class_", "cause", "fails"),
    [
        (BlockerClass.REPLACEMENT_NOT_READY, "ChainMove/n1", True),
        (BlockerClass.BUDGET_EXHAUSTED, "ChainMove/n1", False),
        (BlockerClass.REPLACEMENT_NOT_READY, "NamespacePool/shop", False),
    ],
)
def test_lasting_blocker_ends_the_move(class_: BlockerClass, cause: str, *, fails: bool) -> None:
    world = World()
    blocker = Blocker(namespace="shop", pod="api", class_=class_, message="it crashes", since=NOW)
    world.blocked = [BlockedMigration(cause, blocker)]
    world.listeners["on_node_evaluated"]()
    assert dict(world.outcomes.causes) == ({"api": "ReplacementNotReady: it crashes"} if fails else {})
    assert world.requests[-1] == ({} if fails else REQUEST)


def test_first_outcome_counts_and_is_forgotten_when_it_is_recorded() -> None:
    world = World()
    world.outcomes.record("api", "n1", "first")
    world.outcomes.record("api", "n1")
    assert dict(world.outcomes.causes) == {"api": "first"}
    world.drains["n1"] = moving(chain_moves=())
    world.chain.reconcile()
    assert world.outcomes.causes == {}
