"""`rescheduler cleanup` if something cannot be undone, in simulated time."""

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from harness import workloads
from rescheduler.api import names
from rescheduler.app import App
from rescheduler.controllers import cleanup
from simulation.clusters import NAMESPACE, SPACE
from simulation.processes import Process
from simulation.scenarios import run_scenario
from unit.simulation.refusing import NEVER, Refusing, on_node

Left = Mapping[str, Mapping[str, Any]]


async def clean(sandbox: Refusing) -> tuple[App, Left, float]:
    """Run the command to its end; return its App, its report of what is left, and its seconds."""
    for operator in sandbox.cluster.operators:
        await operator.kill()
    process = Process(sandbox.server, "operator-cleanup", random.Random(1))
    process.cleanup = True
    begun = sandbox.now
    with capture_logs() as logs:
        process.start()
        app = process.app
        assert app
        await asyncio.wait_for(app.stop_flag.wait(), 400)
    await process.stop()
    return app, {line["what"]: line for line in logs if line["event"] == "cleanup.left"}, sandbox.now - begun


def test_one_node_that_cannot_be_restored_keeps_no_other_and_is_named() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await sandbox.settle(
            workloads.deployment("web", 3, SPACE, **NEVER),
            maintenance={"maxConcurrent": 3, "maxUnavailable": "100%"},
        )
        for node in ("n2", "n3"):
            sandbox.cluster.annotate(node, maintenance="test")
            await sandbox.until(lambda node=node: sandbox.status(node).get("phase") == "Drained")  # type: ignore[misc]
        sandbox.refuse = lambda call: 403 * (on_node(call) and call.place.name == "n2" and "spec" in call.body)
        app, left, seconds = await clean(sandbox)
        assert not app.cleanup_done
        assert set(left) == {"NodeDrain n2"}
        assert "nodes are frozen until Monday" in left["NodeDrain n2"]["cause"]
        assert "kubectl uncordon n2" in left["NodeDrain n2"]["command"]
        assert seconds < cleanup.TIMEOUT
        assert sandbox.gone("n3")
        assert not sandbox.frozen("n3")
        assert sandbox.frozen("n2")
        sandbox.refuse = lambda _: 0
        app, left, _ = await clean(sandbox)
        assert app.cleanup_done
        assert not left
        assert sandbox.gone("n2")
        assert not sandbox.frozen("n2")
        assert not spec_of_node(sandbox, "n2").get("taints")

    run_scenario(Refusing, scenario)


def spec_of_node(sandbox: Refusing, name: str) -> dict[str, Any]:
    return dict(sandbox.node(name)["spec"])


def test_a_pod_that_cannot_be_returned_is_named_and_keeps_no_node() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await sandbox.release_one_for_good()
        app, left, seconds = await clean(sandbox)
        assert not app.cleanup_done
        assert {what.split("-")[0] for what in left} == {f"pod {SPACE}/web"}
        assert seconds < cleanup.TIMEOUT
        assert sandbox.gone()
        assert not sandbox.frozen()

    run_scenario(Refusing, scenario)


@pytest.mark.parametrize("managers", [("rescheduler",), ("kubectl-cordon",), ()])
def test_a_cordon_without_its_record_goes_only_if_it_was_ours(managers: tuple[str, ...]) -> None:
    """Somebody removed the NodeDrain by force, as for a CRD whose deletion hangs."""

    async def scenario(sandbox: Refusing) -> None:
        await sandbox.settle(workloads.deployment("web", 1, SPACE, **NEVER))
        sandbox.cluster.annotate("n2", maintenance="test")
        await sandbox.until(lambda: sandbox.status("n2").get("phase") == "Drained")
        for operator in sandbox.cluster.operators:
            await operator.kill()
        drain = sandbox.server.find("nodedrains", "n2")
        assert drain
        drain = sandbox.server.edit("nodedrains", drain, lambda raw: raw["metadata"].pop("finalizers"), user="human")
        assert drain
        sandbox.server.remove("nodedrains", drain, user="human")
        fields: dict[str, Any] = {"f:spec": {"f:unschedulable": {}}}
        managed = [{"manager": name, "fieldsV1": fields} for name in managers]
        sandbox.cluster.edit_node("n2", lambda raw: raw["metadata"].update(managedFields=managed))
        app, left, _ = await clean(sandbox)
        assert sandbox.gone("n2")
        assert sandbox.frozen("n2") is (managers != ("rescheduler",))
        assert not {c["type"] for c in sandbox.node("n2")["status"]["conditions"]} & set(names.NODE_CONDITIONS)
        assert set(left) == (set() if managers else {"the cordon of node n2"})
        assert app.cleanup_done is bool(managers)

    run_scenario(Refusing, scenario)


def test_a_cleanup_whose_time_is_up_says_what_it_waited_for() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await sandbox.settle(workloads.deployment("web", 1, SPACE, **NEVER))
        lease = sandbox.server.find("leases", "rescheduler", NAMESPACE)
        assert lease

        async def hold() -> None:
            """Renew the Lease like an operator that was not scaled down."""

            def renew(raw: dict[str, Any]) -> None:
                raw["spec"] |= {"holderIdentity": "one", "leaseDurationSeconds": 15, "renewTime": f"{sandbox.now}"}

            while True:
                sandbox.server.edit("leases", lease, renew, user="human")
                await asyncio.sleep(2)

        for operator in sandbox.cluster.operators:
            await operator.kill()
        holder = asyncio.create_task(hold())
        app, left, seconds = await clean(sandbox)
        holder.cancel()
        assert not app.cleanup_done
        assert cleanup.TIMEOUT <= seconds <= cleanup.TIMEOUT + 10
        assert "Lease" in left["the cleanup"]["cause"]

    run_scenario(Refusing, scenario)
