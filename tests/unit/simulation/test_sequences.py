"""Short random sequences break no invariant; a bug that a test adds breaks one within a few of them."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rescheduler.controllers.evacuation import eviction_queue
from rescheduler.core.eligibility import concurrency
from rescheduler.core.replacement import decisions
from simulation.sequences import run_sequence

ROOT = Path(__file__).parents[3]
FEW = 100
"""Sequences of `make test`; `make sequences`, which CI runs too, has 2,000 and `make chaos` 50,000."""


def test_random_sequences_break_no_invariant() -> None:
    path = os.pathsep.join(str(ROOT / part) for part in ("operator", "tests"))
    command = [sys.executable, "-m", "simulation", "--sequences", f"1-{FEW}"]
    found = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=600
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_seed_makes_the_same_sequence_each_time() -> None:
    first, again = played(7), played(7)
    assert (first.faults, first.lines) == (again.faults, again.lines)


def played(seed: int) -> Any:
    """Return the result of a sequence, which needs a thread without an event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run_sequence, seed).result()


def found(words: str, *, within: int = 40) -> bool:
    """Whether one of the first sequences shows the violation."""
    return any(words in line for seed in range(1, within + 1) for line in played(seed).broken)


def test_a_gate_that_is_always_open_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "_is_release_gate_open", lambda *_: True)
    assert found("a released pod leaves")


def test_a_missing_precondition_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction_queue, "_delete_options", lambda *_: {"gracePeriodSeconds": 1})
    assert found("has no UID precondition")


def test_a_delete_past_a_budget_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction_queue._EvictionRequest, "is_delete", property(lambda _: True))
    assert found("deletes without a budget")


def test_more_nodes_at_once_than_the_policy_allows_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "start_wait_reason", lambda *_: None)
    assert found("with maxConcurrent")
