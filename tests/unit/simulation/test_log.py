"""The operator's log of an undisturbed drain, in simulated time."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
import structlog

from harness import workloads
from rescheduler.api import names
from simulation.clusters import SPACE
from simulation.refusals import RefusedError
from simulation.scenarios import Sandbox, run_scenario

REQUEST = {"metadata": {"name": "n1"}, "spec": {"nodeName": "n1", "requests": [{"reason": "Manual"}]}}


@pytest.fixture
def warnings() -> list[dict[str, Any]]:
    """Return lines of the log at level warning or above."""
    found: list[dict[str, Any]] = []

    def keep(_: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        if method not in ("debug", "info"):
            found.append({"level": method, **event})
        raise structlog.DropEvent

    structlog.configure(processors=[keep], cache_logger_on_first_use=False)
    return found


@pytest.mark.parametrize("by_hand", [False, True], ids=["annotated", "by hand"])
def test_a_drain_that_nothing_disturbs_logs_no_warning(warnings: list[dict[str, Any]], *, by_hand: bool) -> None:
    """A NodeDrain made by hand has no finalizer: the operator's first two writes must not conflict."""

    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.settle(workloads.deployment("web", 6, SPACE))
        warnings.clear()  # drop lines of the start
        if by_hand:
            sandbox.server.make("nodedrains", REQUEST)
        else:
            sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")
        drain = sandbox.server.find("nodedrains", "n1")
        assert drain
        if by_hand:
            sandbox.server.remove("nodedrains", drain, user="human")
        else:
            sandbox.cluster.annotate("n1", maintenance=None)
        await sandbox.until(lambda: sandbox.server.find("nodedrains", "n1") is None)
        assert warnings == []

    run_scenario(Sandbox, scenario)


class WithoutFinalizer(Sandbox):
    """A sandbox that refuses the finalizer of a NodeDrain."""

    def call(self, call: Any) -> None:
        super().call(call)
        if call.place.resource == "nodedrains" and names.FINALIZER in call.body.get("metadata", {}).get(
            "finalizers", ()
        ):
            raise RefusedError(403, "admission webhook denied the request")


def test_a_drain_whose_finalizer_is_refused_goes_on_after_ten_seconds() -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.settle(workloads.deployment("web", 6, SPACE))
        sandbox.server.make("nodedrains", REQUEST)
        asked = sandbox.now
        await asyncio.sleep(8)
        assert not sandbox.status()
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained", limit=60)
        assert 10 <= sandbox.cordoned_at() - asked <= 12

    run_scenario(WithoutFinalizer, scenario)
