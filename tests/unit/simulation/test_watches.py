"""Views of the cluster that are wrong, because watches lost events."""

from harness import workloads
from invariants.objects import released
from simulation.clusters import SPACE
from simulation.scenarios import Sandbox, run_scenario


def lose(sandbox: Sandbox, share: float) -> None:
    """Let this share of the events get lost on their way to each operator."""
    for operator in sandbox.cluster.operators:
        assert operator.client is not None
        operator.client.watch_faults.lost = share


def test_a_released_pod_that_its_drain_never_saw_is_returned_when_the_drain_ends() -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.settle(workloads.deployment("web", 2, SPACE), workloads.budget("web", SPACE, maxUnavailable=0))
        uids = {pod["metadata"]["uid"] for pod in sandbox.pods()}
        lose(sandbox, 1.0)
        sandbox.cluster.annotate("n1", maintenance="x")
        await sandbox.until(lambda: any(map(released, sandbox.pods())))
        sandbox.cluster.annotate("n1", maintenance=None)
        await sandbox.until(lambda: sandbox.server.find("nodedrains", "n1") is None)
        lose(sandbox, 0.0)
        await sandbox.until(lambda: {pod["metadata"]["uid"] for pod in sandbox.pods()} == uids, limit=120)
        await sandbox.until(lambda: not any(map(released, sandbox.pods())), limit=60)

    run_scenario(Sandbox, scenario)
