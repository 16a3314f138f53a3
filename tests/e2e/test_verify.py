"""`rescheduler verify`, which `helm test` runs: it checks an installation with the operator's identity."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness import ControlPlane
from harness.operators import CHART, NAMESPACE, Operator, helm
from harness.waiting import until


def verify(kubeconfig: Path, namespace: str = NAMESPACE, packages: Path | None = None) -> tuple[int, list[str]]:
    """Return exit code and lines; `packages`: a folder of Python packages in place of the installed ones."""
    command = [sys.executable, *(["-S"] if packages else []), "-m", "rescheduler", "verify", "--namespace", namespace]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig), **({"PYTHONPATH": str(packages)} if packages else {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout.splitlines()


@pytest.mark.every_version("installation")
def test_a_working_installation_passes_and_nothing_is_written(
    control_plane: ControlPlane, identity: Path, operator: Operator, image_packages: Path
) -> None:
    control_plane.add_nodes(1, prefix="verify-")
    code, lines = verify(identity, packages=image_packages)
    assert (code, [line.split()[0] for line in lines]) == (0, ["ok"] * 5), lines
    assert "verify.rescheduler.dev" not in control_plane.kubectl("get", "nodedrains", "-o", "name")


def test_writes_that_no_policy_bounds_are_named(control_plane: ControlPlane, operator: Operator) -> None:
    """The administrator has all rights, and no policy of the operator bounds them."""
    code, lines = verify(control_plane.kubeconfig)
    (failed,) = [line for line in lines if line.startswith("failed")]
    assert code == 1
    assert "rescheduler-nodes.rescheduler.dev does not bound the writes" in failed


def test_a_missing_right_ends_the_command_with_its_name(control_plane: ControlPlane, identity: Path) -> None:
    control_plane.kubectl("create", "serviceaccount", "nobody", "-n", NAMESPACE)
    code, lines = verify(control_plane.identity_kubeconfig(NAMESPACE, "nobody"))
    assert code == 1
    assert "patch nodes" in lines[0]


def test_helm_test_runs_the_command_as_the_operator(control_plane: ControlPlane, identity: Path) -> None:
    """A simulated node cannot run the image, so the API server only checks the pod."""
    rendered = helm("template", "rescheduler", str(CHART), "-n", NAMESPACE, "-s", "templates/tests/verify.yaml").stdout
    pod = yaml.safe_load(rendered)
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["serviceAccountName"] == "rescheduler"
    assert pod["spec"]["containers"][0]["args"] == ["verify", f"--namespace={NAMESPACE}"]

    def made() -> str:
        return control_plane.kubectl("create", "--dry-run=server", "-f", "-", input=rendered, check=False)

    until(lambda: "pod/rescheduler-verify created" in made(), made)
