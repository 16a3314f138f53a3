"""The chart and the plain manifest on a real API server, and what the operator's identity may not write."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import ControlPlane
from cluster.operators import CHART, NAMESPACE, ROOT, helm
from cluster.waiting import until


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """With the chart installed by helm."""
    with ControlPlane.start() as made:
        made.add_nodes(1)
        result = helm(
            "install", "rescheduler", str(CHART), "-n", NAMESPACE, "--create-namespace", kubeconfig=made.kubeconfig
        )
        assert result.returncode == 0, result.stderr
        # kubectl reads the subresource before it patches it; the operator does not, and has no right to.
        made.kubectl("create", "clusterrole", "reader", "--verb=get", "--resource=nodes/status")
        made.kubectl(
            "create",
            "clusterrolebinding",
            "reader",
            "--clusterrole=reader",
            f"--serviceaccount={NAMESPACE}:rescheduler",
        )
        until(lambda: _in_force(made), "the policies on the operator's writes to be in force")
        yield made


def _in_force(plane: ControlPlane) -> bool:
    """A new admission policy binds only once every API server has read it; until then all is let through."""
    identity = plane.identity_kubeconfig(NAMESPACE, "rescheduler")
    for extra in ((), ("--subresource=status",)):
        patch = json.dumps({"metadata": {"annotations": {"probe": "x"}}})
        said = plane.kubectl(
            "patch",
            "node",
            "n1",
            "--type=merge",
            "-p",
            patch,
            "--dry-run=server",
            *extra,
            kubeconfig=identity,
            check=False,
        )
        if "Rescheduler may change" not in said:
            return False
    return True


def test_the_chart_lints() -> None:
    result = helm("lint", "--strict", str(CHART))
    assert result.returncode == 0, result.stdout + result.stderr


def test_unknown_values_are_refused() -> None:
    result = helm("template", str(CHART), "--set", "replica=3")
    assert result.returncode != 0
    assert "replica" in result.stderr


def test_helm_install_gives_all_that_is_needed(plane: ControlPlane) -> None:
    assert {c["metadata"]["name"].split(".")[0] for c in plane.get("crd")["items"]} == {
        "namespacepools",
        "nodedrains",
        "reschedulepolicies",
    }
    assert plane.get("deployment", "rescheduler", "-n", NAMESPACE)["spec"]["replicas"] == 2
    policy = plane.get("rsp", "default")
    assert policy["spec"]["nodeSelector"] == {
        "matchExpressions": [{"key": "node-role.kubernetes.io/control-plane", "operator": "DoesNotExist"}]
    }
    assert policy["spec"]["maintenance"]["enabled"]

    def checked() -> list[dict[str, Any]]:
        policies = plane.get("validatingadmissionpolicies")["items"]
        return policies if all("typeChecking" in policy.get("status", {}) for policy in policies) else []

    for admission in until(checked, "all policies to be type checked"):
        assert not admission["status"]["typeChecking"].get("expressionWarnings"), admission["metadata"]["name"]


def test_a_users_edit_of_the_default_policy_survives_an_upgrade(plane: ControlPlane) -> None:
    plane.kubectl("patch", "rsp", "default", "--type=merge", "-p", '{"spec":{"maintenance":{"maxConcurrent":3}}}')
    result = helm("upgrade", "rescheduler", str(CHART), "-n", NAMESPACE, kubeconfig=plane.kubeconfig)
    assert result.returncode == 0, result.stderr
    assert plane.get("rsp", "default")["spec"]["maintenance"]["maxConcurrent"] == 3


def test_the_operators_pods_meet_pod_security_restricted(plane: ControlPlane) -> None:
    plane.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    said = plane.kubectl("rollout", "restart", "deploy/rescheduler", "-n", NAMESPACE, check=False)
    assert "violate" not in said


def test_the_plain_manifest_is_accepted(plane: ControlPlane) -> None:
    said = plane.kubectl("apply", "--dry-run=server", "-f", str(ROOT / "manifests" / "install.yaml"), check=False)
    assert "error" not in said.lower()


@pytest.mark.parametrize(
    ("patch", "refused"),
    [
        ({"spec": {"unschedulable": True}}, None),
        ({"spec": {"unschedulable": None}}, None),
        ({"metadata": {"annotations": {"cluster-autoscaler.kubernetes.io/scale-down-disabled": "true"}}}, None),
        ({"metadata": {"labels": {"x": "y"}}}, "change no label"),
        ({"metadata": {"labels": {"kubernetes.io/os": None}}}, "change no label"),
        ({"metadata": {"annotations": {"x": "y"}}}, "change no annotation"),
        ({"metadata": {"annotations": {"rescheduler.dev/maintenance": "y"}}}, "change no annotation"),
        ({"metadata": {"finalizers": ["a.b/c"]}}, "neither finalizers nor owners"),
        ({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}, "add no taint"),
        ({"spec": {"providerID": "x"}}, "nothing of a node's spec"),
    ],
)
def test_what_the_operator_may_write_on_a_node(plane: ControlPlane, patch: object, refused: str | None) -> None:
    identity = plane.identity_kubeconfig(NAMESPACE, "rescheduler")
    arguments = ["patch", "node", "n1", "--type=merge", "-p", json.dumps(patch)]
    said = plane.kubectl(*arguments, kubeconfig=identity, check=False)
    assert (refused in said) if refused else ("patched" in said), said


@pytest.mark.parametrize(
    ("patch", "refused"),
    [
        ({"status": {"conditions": [{"type": "Drained", "status": "True"}]}}, None),
        ({"status": {"conditions": [{"type": "Drained", "$patch": "delete"}]}}, None),
        ({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, "set no node condition"),
        ({"status": {"conditions": [{"type": "Ready", "$patch": "delete"}]}}, "set no node condition"),
        ({"status": {"capacity": {"cpu": "1"}}}, "nothing of a node's status"),
        ({"metadata": {"labels": {"x": "y"}}}, "nothing of a node's metadata"),
        ({"metadata": {"annotations": {"x": "y"}}}, "nothing of a node's metadata"),
        ({"metadata": {"finalizers": ["a.b/c"]}}, "nothing of a node's metadata"),
    ],
)
def test_what_the_operator_may_write_in_a_nodes_status(plane: ControlPlane, patch: object, refused: str | None) -> None:
    identity = plane.identity_kubeconfig(NAMESPACE, "rescheduler")
    arguments = ["patch", "node", "n1", "--subresource=status", "-p", json.dumps(patch)]
    said = plane.kubectl(*arguments, kubeconfig=identity, check=False)
    assert (refused in said) if refused else ("patched" in said), said


def test_uninstalling_runs_the_cleanup_and_leaves_nothing_but_the_crds(plane: ControlPlane) -> None:
    """The simulated node pretends to run the hook's pod; what the program does is tested with the crashes."""
    result = helm("uninstall", "rescheduler", "-n", NAMESPACE, "--timeout=60s", kubeconfig=plane.kubeconfig)
    assert result.returncode == 0, result.stderr
    ours = ("-n", NAMESPACE, "-l", "app.kubernetes.io/name=rescheduler", "-o", "name")
    until(lambda: not plane.kubectl("get", "all,sa,role,rolebinding", *ours).strip(), "all of it to be collected")
    admission = [f"{kind}admissionpolic{end}" for kind in ("validating", "mutating") for end in ("y", "ybinding")]
    for kind in ("clusterrole", *admission, "rsp"):
        assert "rescheduler" not in plane.kubectl("get", kind, "-o", "name").replace("rescheduler.dev/", ""), kind
