"""The chart with its defaults on real kubelets: two replicas under Pod Security `restricted`, with probes that work."""

from pathlib import Path
from typing import Any

from harness.operators import NAMESPACE
from harness.real.installation import Installation
from harness.real.lab import Lab


def restarts(pod: dict[str, Any]) -> int:
    return sum(status["restartCount"] for status in pod["status"]["containerStatuses"])


def status_of(process: Path) -> dict[str, str]:
    """Return the fields of a process in /proc."""
    lines = (line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return {key: value.strip() for key, value in lines}


def test_both_replicas_are_ready_on_different_nodes_and_one_leads(operator: Installation) -> None:
    leader = operator.settled()
    pods = operator.ready()
    assert leader["metadata"]["name"] in {pod["metadata"]["name"] for pod in pods}
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    assert [restarts(pod) for pod in pods] == [0, 0]


def test_the_processes_are_restricted_and_the_namespace_admits_no_others(lab: Lab, operator: Installation) -> None:
    other = lab.plane.kubectl("run", "other", "--image=x", "-n", NAMESPACE, "--dry-run=server", check=False)
    assert 'violates PodSecurity "restricted' in other
    for pod in operator.ready():
        (process,) = lab.processes(pod)
        status = status_of(process)
        assert status["Uid"].split() == ["65532"] * 4
        assert status["Gid"].split() == ["65532"] * 4
        assert int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
        (root,) = [options for _, _, _, _, mount, options, *_ in mounts if mount == "/"]
        assert "ro" in root.split(",")
