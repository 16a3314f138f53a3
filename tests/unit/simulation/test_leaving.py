"""`rescheduler cleanup` if something cannot be undone, in simulated time."""

import asyncio
import random
from collections.abc import Mapping
from typing import Any

from structlog.testing import capture_logs

from harness import workloads
from invariants.objects import Json
from rescheduler.app import App
from rescheduler.controllers import cleanup
from simulation.clusters import NAMESPACE, SPACE
from simulation.processes import Process
from simulation.scenarios import play
from unit.simulation.test_refused_writes import NEVER, Refusing, on_node

Left = Mapping[str, Mapping[str, Any]]


async def clean(world: Refusing) -> tuple[App, Left, float]:
    """Run the command to its end; return its App, its report of what is left, and its seconds."""
    for operator in world.cluster.operators:
        await operator.kill()
    process = Process(world.server, "operator-cleanup", random.Random(1))
    process.cleanup = True
    begun = world.now
    with capture_logs() as logs:
        process.start()
        app = process.app
        assert app
        await asyncio.wait_for(app.stop_flag.wait(), 400)
    await process.stop()
    return app, {line["what"]: line for line in logs if line["event"] == "cleanup.left"}, world.now - begun


def test_one_node_that_cannot_be_restored_keeps_no_other_and_is_named() -> None:
    async def scene(world: Refusing) -> None:
        await world.settle(
            workloads.deployment("web", 3, SPACE, **NEVER),
            maintenance={"maxConcurrent": 3, "maxUnavailable": "100%"},
        )
        for node in ("n2", "n3"):
            world.cluster.annotate(node, maintenance="test")
            await world.until(lambda node=node: world.status(node).get("phase") == "Drained")  # type: ignore[misc]
        world.refuse = lambda call: 403 * (on_node(call) and call.place.name == "n2" and "spec" in call.body)
        app, left, seconds = await clean(world)
        assert not app.cleanup_done
        assert set(left) == {"NodeDrain n2"}
        assert "nodes are frozen until Monday" in left["NodeDrain n2"]["cause"]
        assert "kubectl uncordon n2" in left["NodeDrain n2"]["command"]
        assert seconds < cleanup.TIMEOUT
        assert world.gone("n3")
        assert not world.frozen("n3")
        assert world.frozen("n2")
        world.refuse = lambda _: 0
        app, left, _ = await clean(world)
        assert app.cleanup_done
        assert not left
        assert world.gone("n2")
        assert not world.frozen("n2")
        assert not spec_of_node(world, "n2").get("taints")

    play(Refusing, scene)


def spec_of_node(world: Refusing, name: str) -> dict[str, Any]:
    return dict(world.node(name)["spec"])


def test_a_pod_that_cannot_be_returned_is_named_and_keeps_no_node() -> None:
    async def scene(world: Refusing) -> None:
        await world.release_one_for_good()
        app, left, seconds = await clean(world)
        assert not app.cleanup_done
        assert {what.split("-")[0] for what in left} == {f"pod {SPACE}/web"}
        assert seconds < cleanup.TIMEOUT
        assert world.gone()
        assert not world.frozen()

    play(Refusing, scene)


def test_a_cleanup_whose_time_is_up_says_what_it_waited_for() -> None:
    async def scene(world: Refusing) -> None:
        await world.settle(workloads.deployment("web", 1, SPACE, **NEVER))
        lease = world.server.find("leases", "rescheduler", NAMESPACE)
        assert lease

        async def hold() -> None:
            """Renew the Lease like an operator that was not scaled down."""

            def renew(raw: Json) -> None:
                raw["spec"] |= {"holderIdentity": "one", "leaseDurationSeconds": 15, "renewTime": f"{world.now}"}

            while True:
                world.server.edit("leases", lease, renew, user="human")
                await asyncio.sleep(2)

        for operator in world.cluster.operators:
            await operator.kill()
        holder = asyncio.create_task(hold())
        app, left, seconds = await clean(world)
        holder.cancel()
        assert not app.cleanup_done
        assert cleanup.TIMEOUT <= seconds <= cleanup.TIMEOUT + 10
        assert "Lease" in left["the cleanup"]["cause"]

    play(Refusing, scene)
