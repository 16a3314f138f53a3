"""Plans against the real scheduler, and `kubectl reschedule plan` as people call it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import ControlPlane, workloads
from cluster.predictions import Score
from cluster.puzzles import puzzle
from cluster.tables import Table
from cluster.waiting import until

PUZZLES = range(1, 14, 2)  # the tight ones


@pytest.fixture(scope="module")
def bare() -> Iterator[ControlPlane]:
    """A control plane on which nothing of ours is installed."""
    with ControlPlane.start() as plane:
        yield plane


def reschedule(kubeconfig: Path | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("kubectl-reschedule", path=str(Path(sys.executable).parent))
    command = [program] if program else [sys.executable, "-c", "from rescheduler.cli.plugin import main; main()"]
    environment = os.environ | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": "operator"}
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=60, env=environment, check=False
    )


def planned(kubeconfig: Path | str, *arguments: str) -> Any:
    return json.loads(reschedule(kubeconfig, "plan", "-o", "json", *arguments).stdout)


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")  # the scheduler's own metrics
def test_what_fits_has_a_place_by_the_real_scheduler(bare: ControlPlane) -> None:
    score, table = Score(), Table(bare)
    for number in PUZZLES:
        score.play(puzzle(number), table)
    assert score.broken == []
    assert score.said.total() > 100


@pytest.fixture(scope="module")
def laid(bare: ControlPlane) -> ControlPlane:
    """Three nodes; on the first a pod that fits, one that nothing recreates, and one that fits nowhere."""
    _, *others = bare.add_nodes(3, prefix="plan-n", labels={"site": "plan"})
    bare.apply(workloads.namespace("plan"))
    bare.kubectl("cordon", *others)
    large = [{"name": "app", "image": "simulated", "resources": {"requests": {"memory": "90Gi"}}}]
    bare.apply(
        workloads.deployment("web", 2, "plan"),
        workloads.deployment("only", 1, "plan"),
        workloads.deployment("large", 1, "plan", containers=large),
    )
    until(lambda: len(bare.get("pods", "-n", "plan")["items"]) == 4, "the pods of plan")
    return bare


def test_unusable_kubeconfigs_and_nodes_that_are_not_there_are_one_line_each(
    bare: ControlPlane, tmp_path: Path
) -> None:
    broken, away = tmp_path / "broken", tmp_path / "away"
    broken.write_text("nonsense: [")
    away.write_text(bare.kubeconfig.read_text().replace(bare.server, "https://127.0.0.1:1"))
    for kubeconfig, node, word in (
        (tmp_path / "none", "n1", "kubeconfig"),
        (broken, "n1", "kubeconfig"),
        (away, "n1", "does not answer"),
        (bare.kubeconfig, "no-such-node", "no node no-such-node"),
    ):
        found = reschedule(kubeconfig, "plan", node)
        assert found.returncode == 2, found
        assert word in found.stderr
        assert found.stderr.count("\n") == 1, found.stderr
