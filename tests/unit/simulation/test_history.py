"""The record of a finished drain, over a change of the leader and with a ConfigMap that refuses writes."""

import asyncio

from harness import workloads
from rescheduler.api.history import DrainRecord, MoveWay, Outcome
from rescheduler.api.names import HISTORY
from rescheduler.core.drain.history import parse_records
from simulation.clusters import NAMESPACE, SPACE
from simulation.scenarios import run_scenario
from unit.simulation.refusing import Refusing


def records(sandbox: Refusing) -> list[DrainRecord]:
    """Return the records in the ConfigMap."""
    found = sandbox.server.find("configmaps", HISTORY, NAMESPACE) or {}
    return parse_records(found.get("data") or {})


async def drained(sandbox: Refusing) -> None:
    await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")


async def ended(sandbox: Refusing) -> None:
    sandbox.cluster.annotate("n1", maintenance=None)
    await sandbox.until(lambda: sandbox.server.find("nodedrains", "n1") is None)


def test_a_new_leader_records_the_moves_of_the_last_one() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await sandbox.settle(workloads.deployment("web", 8, SPACE))
        pods = {pod["metadata"]["name"] for pod in sandbox.pods("n1")}
        sandbox.cluster.annotate("n1", maintenance="kernel")
        await sandbox.until(lambda: sandbox.status().get("history", {}).get("moves"))
        await asyncio.sleep(1.5)  # progress is written once a second
        assert sandbox.status()["phase"] == "Draining"
        leader = next(o for o in sandbox.cluster.operators if o.app and o.app._may_write())
        await leader.kill()
        await drained(sandbox)
        await ended(sandbox)
        (record,) = records(sandbox)
        assert (record.node, record.outcome, record.policy) == ("n1", Outcome.DRAINED, "default")
        assert [(who.reason, who.message) for who in record.requested_by] == [("Maintenance", "kernel")]
        assert record.moves_total == len(record.moves)
        assert {move.pod for move in record.moves} == pods
        first = [move for move in record.moves if move.way is MoveWay.REPLACED_FIRST]
        assert first
        assert all(move.new_pod and move.new_node in ("n2", "n3") and move.owner == "Deployment/web" for move in first)

    run_scenario(Refusing, scenario)


def test_a_refused_record_keeps_no_drain_from_its_end() -> None:
    async def scenario(sandbox: Refusing) -> None:
        sandbox.refuse = lambda call: 403 * (call.place.resource == "configmaps")
        await sandbox.settle(workloads.deployment("web", 2, SPACE))
        sandbox.cluster.annotate("n1", maintenance="kernel")
        await drained(sandbox)
        began = sandbox.now
        await ended(sandbox)
        assert sandbox.now - began < 10
        assert records(sandbox) == []
        sandbox.refuse = lambda _: 0
        sandbox.cluster.annotate("n2", maintenance="kernel")
        await sandbox.until(lambda: sandbox.status("n2").get("phase") == "Drained")
        sandbox.cluster.annotate("n2", maintenance=None)
        await sandbox.until(lambda: len(records(sandbox)) == 2)

    run_scenario(Refusing, scenario)
