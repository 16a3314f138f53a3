"""Random failures in simulated time break no invariant; a bug that a test adds breaks one."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rescheduler.controllers.evacuation import node_evacuation
from rescheduler.controllers.evacuation.eviction_queue import EvictionQueue
from rescheduler.core.drain import node_patches
from rescheduler.core.eligibility import decision
from rescheduler.core.eviction import pod_actions
from rescheduler.core.replacement import decisions
from simulation.faults import Fault
from simulation.runs import run_seed

ROOT = Path(__file__).parents[3]


def test_eight_random_runs_break_no_invariant() -> None:
    """`make bench ONLY=soak` runs 500 seeds."""
    path = os.pathsep.join(str(ROOT / part) for part in ("operator", "tests"))
    command = [sys.executable, "-m", "simulation", "1-8"]
    found = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=300
    )
    assert found.returncode == 0, found.stdout + found.stderr


def maintained() -> list[Fault]:
    return [Fault(10 + 130 * index, "maintain", 120, {"nodes": [f"n{index + 1}"]}) for index in range(4)]


def unreachable() -> list[Fault]:
    return [Fault(10 + 500 * index, "cut", 200, {"nodes": [f"n{index + 1}"], "reboot": False}) for index in range(4)]


def ill() -> list[Fault]:
    return [Fault(10, "not_ready", 400, {"nodes": ["n1", "n2", "n3", "n4"]})]


def broken(seed: int, faults: list[Fault], **more: Any) -> list[str]:
    """Return violations of a run, in its own thread with its own event loop."""
    with ThreadPoolExecutor(1) as thread:
        return list(thread.submit(run_seed, seed, faults, **more).result().broken)


def found(faults: list[Fault], words: str) -> bool:
    """Whether one of a few clusters shows the violation."""
    return any(words in line for seed in range(1, 9) for line in broken(seed, faults, settles=120))


@pytest.mark.parametrize("faults", [maintained(), unreachable(), ill()], ids=["maintained", "unreachable", "ill"])
def test_unchanged_operator_breaks_no_invariant(faults: list[Fault]) -> None:
    assert not broken(1, faults)


def test_a_gate_that_is_always_open_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "_is_release_gate_open", lambda *_: True)
    assert found(maintained(), "a released pod leaves")


def test_a_missing_precondition_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = EvictionQueue._send_request

    async def careless(self: Any, pod: Any, *rest: Any) -> Any:
        create = self._client.create

        async def without(path: str, body: dict[str, Any], **more: Any) -> Any:
            return await create(path, {**body, "deleteOptions": {}}, **more)

        self._client.create = without
        try:
            return await ask(self, pod, *rest)
        finally:
            self._client.create = create

    monkeypatch.setattr(EvictionQueue, "_send_request", careless)
    assert found(maintained(), "has no UID precondition")


def test_acting_without_proof_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_actions, "may_run_twice", lambda *_: True)
    assert found(unreachable(), "must not run twice")


def test_a_pod_that_leaves_before_the_pod_that_controls_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_evacuation, "follow_controlling_pods", lambda decided, *_: decided)
    assert found(maintained(), "which controls it")


def test_acting_in_a_storm_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision, "_storm_wait_reason", lambda *_: None)
    assert found(ill(), "are unhealthy")


def test_more_failures_at_once_than_the_policy_lets_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision, "_storm_wait_reason", lambda *_: None)
    monkeypatch.setattr(decision, "_failure_slot_wait_reason", lambda *_: None)
    assert found(ill(), "with failure.maxConcurrent")


def test_a_cordon_left_behind_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    restore = node_patches.restore_patch

    def forgetful(*arguments: Any) -> Any:
        patch = dict(restore(*arguments) or {})
        if patch and patch.get("spec", {}).pop("unschedulable", patch) is None and not patch["spec"]:
            del patch["spec"]
        return patch if patch and patch.keys() - {"metadata"} else None

    monkeypatch.setattr(node_patches, "restore_patch", forgetful)
    assert found(maintained(), "'cordoned': True")
