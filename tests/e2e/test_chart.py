"""The chart and the plain manifest on a real API server with GKE's limits on system priority classes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import ControlPlane, dashboard
from harness.alerts import RULES
from harness.operators import CHART, NAMESPACE, ROOT, helm, serves_pools
from harness.waiting import until
from rescheduler.api.names import HISTORY


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Yield a control plane with the chart, installed by helm."""
    flags = {"kube-apiserver": {"admission-control-config-file": str(_limits(tmp_path_factory.mktemp("limits")))}}
    with ControlPlane.start(extra_args=flags) as made:
        made.add_nodes(1)
        result = helm(
            "install", "rescheduler", str(CHART), "-n", NAMESPACE, "--create-namespace", kubeconfig=made.kubeconfig
        )
        assert result.returncode == 0, result.stderr
        yield made


def _limits(folder: Path) -> Path:
    """Return the API server's configuration: pods of system classes need a quota in their namespace."""
    classes: dict[str, Any] = {"scopeName": "PriorityClass", "operator": "In"}
    classes |= {"values": ["system-node-critical", "system-cluster-critical"]}
    group = "apiserver.config.k8s.io/v1"
    quota: dict[str, Any] = {"apiVersion": group, "kind": "ResourceQuotaConfiguration"}
    quota |= {"limitedResources": [{"resource": "pods", "matchScopes": [classes]}]}
    plugins = [{"name": "ResourceQuota", "configuration": quota}]
    file = folder / "admission.yaml"
    file.write_text(yaml.safe_dump({"apiVersion": group, "kind": "AdmissionConfiguration", "plugins": plugins}))
    return file


def test_the_chart_lints() -> None:
    result = helm("lint", "--strict", str(CHART))
    assert result.returncode == 0, result.stdout + result.stderr


def test_unknown_values_are_refused() -> None:
    result = helm("template", str(CHART), "--set", "replica=3")
    assert result.returncode != 0
    assert "replica" in result.stderr


def test_the_quota_is_for_the_priority_class_that_the_pods_have() -> None:
    def classes(value: str) -> list[Any]:
        text = helm("template", "rescheduler", str(CHART), "--set", f"priorityClassName={value}").stdout
        documents = {d["kind"]: d["spec"] for d in yaml.safe_load_all(text) if d and "spec" in d}
        quota = documents.get("ResourceQuota", {"scopeSelector": {"matchExpressions": [{"values": []}]}})
        pods = [documents[kind]["template"]["spec"]["priorityClassName"] for kind in ("Deployment", "Job")]
        return [quota["scopeSelector"]["matchExpressions"][0]["values"], pods]

    assert classes("mine") == [["mine"], ["mine", "mine"]]
    assert classes("") == [[], ["", ""]]


@pytest.mark.every_version("installation")
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


@pytest.mark.every_version("reports of what is off")
def test_the_notes_say_that_pools_are_off_where_the_api_server_cannot_enforce_them(plane: ControlPlane) -> None:
    notes = helm("get", "notes", "rescheduler", "-n", NAMESPACE, kubeconfig=plane.kubeconfig).stdout
    assert "Check the installation" in notes
    assert ("this API server has no MutatingAdmissionPolicy v1" not in notes) == serves_pools(plane)


def test_the_operators_pods_start_where_their_priority_class_is_limited(plane: ControlPlane) -> None:
    """As on GKE, no pod of another namespace may have the class. The last test checks the cleanup's pod."""

    def running() -> bool:
        pods = plane.get("pods", "-n", NAMESPACE)["items"]
        return [p["spec"]["priorityClassName"] for p in pods] == ["system-cluster-critical"] * 2

    until(running, "the operator's pods")
    critical = '{"spec":{"priorityClassName":"system-cluster-critical"}}'
    until(lambda: plane.kubectl("get", "sa", "default", check=False).startswith("NAME"), "the default account")
    said = plane.kubectl("run", "other", "--image=simulated", f"--overrides={critical}", check=False)
    assert "insufficient quota to match these scopes" in said


@pytest.mark.parametrize("values", ["crds.enabled=true", "crds.enabled=false,fullnameOverride=other"])
def test_a_second_installation_is_refused_and_told_of_the_first(plane: ControlPlane, values: str) -> None:
    """Two installations would write to the same nodes and pods, and refuse each other's writes by policy.

    Whatever its names, the second one has the same admission policies.
    """
    more = ("--create-namespace", "--set", f"defaultPolicy.enabled=false,{values}")
    result = helm("install", "other", str(CHART), "-n", "other", *more, kubeconfig=plane.kubeconfig)
    assert result.returncode != 0
    assert "exists and cannot be imported into the current release" in result.stderr
    assert f'current value is "{NAMESPACE}"' in result.stderr


@pytest.mark.every_version("installation")
def test_a_users_edit_of_the_default_policy_survives_an_upgrade(plane: ControlPlane) -> None:
    """The first installation made the policy by a hook, because helm did not know its kind; the upgrade owns it."""
    uid = plane.get("rsp", "default")["metadata"]["uid"]
    plane.kubectl("patch", "rsp", "default", "--type=merge", "-p", '{"spec":{"maintenance":{"maxConcurrent":3}}}')
    for values in ((), ("--set", "defaultPolicy.spec.maintenance.maxUnavailable=20%")):
        result = helm("upgrade", "rescheduler", str(CHART), "-n", NAMESPACE, *values, kubeconfig=plane.kubeconfig)
        assert result.returncode == 0, result.stderr
    maintenance = plane.get("rsp", "default")["spec"]["maintenance"]
    assert (maintenance["maxConcurrent"], maintenance["maxUnavailable"]) == (3, "20%")
    # Helm does not know the policy as an object of the first revision.
    for command in (("rollback", "rescheduler", "1"), ("upgrade", "rescheduler", str(CHART))):
        result = helm(*command, "-n", NAMESPACE, kubeconfig=plane.kubeconfig)
        assert result.returncode == 0, result.stderr
        policy = plane.get("rsp", "default")
        assert policy["metadata"]["uid"] == uid
        assert policy["spec"]["maintenance"]["maxConcurrent"] == 3


def test_the_api_server_checks_the_fields_of_the_default_policy(plane: ControlPlane) -> None:
    wrong = ("--set", "defaultPolicy.spec.mode=Sometimes")
    result = helm("upgrade", "rescheduler", str(CHART), "-n", NAMESPACE, *wrong, kubeconfig=plane.kubeconfig)
    assert result.returncode != 0
    assert 'Unsupported value: "Sometimes"' in result.stderr
    assert plane.get("rsp", "default")["spec"]["mode"] == "Enforce"


def test_an_upgrade_keeps_the_records_of_finished_drains(plane: ControlPlane) -> None:
    data = json.dumps({"data": {"20260314T091241Z.u": "{}"}})
    plane.kubectl("patch", "configmap", HISTORY, "-n", NAMESPACE, "--type=merge", "-p", data)
    result = helm("upgrade", "rescheduler", str(CHART), "-n", NAMESPACE, kubeconfig=plane.kubeconfig)
    assert result.returncode == 0, result.stderr
    documents = yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text())
    plane.apply(*(document for document in documents if document["kind"] == "ConfigMap"))
    kept = json.loads(plane.kubectl("get", "configmap", HISTORY, "-n", NAMESPACE, "-o", "json"))
    assert kept["data"] == {"20260314T091241Z.u": "{}"}


def test_the_chart_has_its_alerts_if_the_cluster_has_the_kind() -> None:
    kind = "monitoring.coreos.com/v1/PrometheusRule"
    cases = [((), False), (("--api-versions", kind), True), (("--set", "prometheusRule.enabled=true"), True)]
    cases += [(("--api-versions", kind, "--set", "prometheusRule.enabled=false"), False)]
    for arguments, expected in cases:
        rendered = yaml.safe_load_all(helm("template", "r", str(CHART), *arguments).stdout)
        rules = [document["spec"] for document in rendered if document and document["kind"] == "PrometheusRule"]
        assert rules == ([yaml.safe_load(RULES.read_text())] if expected else []), arguments


def test_the_dashboard_is_a_config_map_for_the_sidecar_of_grafana() -> None:
    rendered = yaml.safe_load_all(helm("template", "r", str(CHART), "--set", "dashboard.enabled=true").stdout)
    (found,) = [d for d in rendered if d and d["metadata"]["name"] == "rescheduler-dashboard"]
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(found["data"]["rescheduler.json"]) == json.loads(dashboard.TARGET.read_text())


def test_the_operators_pods_meet_pod_security_restricted(plane: ControlPlane) -> None:
    plane.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    said = plane.kubectl("rollout", "restart", "deploy/rescheduler", "-n", NAMESPACE, check=False)
    assert "violate" not in said


def test_the_plain_manifest_is_accepted(plane: ControlPlane) -> None:
    said = plane.kubectl("apply", "--dry-run=server", "-f", str(ROOT / "manifests" / "install.yaml"), check=False)
    assert "error" not in said.lower()


@pytest.mark.parametrize("platform", sorted((ROOT / "manifests" / "values").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_api_server_accepts_the_example_of_each_platform(plane: ControlPlane, platform: Path) -> None:
    made = helm("template", "rescheduler", str(CHART), "-n", NAMESPACE, "--no-hooks", "-f", str(platform)).stdout
    said = plane.kubectl("apply", "--dry-run=server", "-f", "-", input=made, check=False)
    assert "deployment.apps/rescheduler configured" in said
    assert "error" not in said.lower()


@pytest.mark.every_version("installation")
def test_uninstalling_runs_the_cleanup_and_leaves_nothing_but_the_crds_and_policies(plane: ControlPlane) -> None:
    """The simulated node pretends to run the hook's pod; the crash tests cover the program."""
    result = helm("uninstall", "rescheduler", "-n", NAMESPACE, "--timeout=60s", kubeconfig=plane.kubeconfig)
    assert result.returncode == 0, result.stderr
    ours = ("-n", NAMESPACE, "-l", "app.kubernetes.io/name=rescheduler", "-o", "name")
    until(lambda: not plane.kubectl("get", "all,sa,role,rolebinding", *ours).strip(), "all of it to be collected")
    served = ("validating", "mutating") if serves_pools(plane) else ("validating",)
    admission = [f"{kind}admissionpolic{end}" for kind in served for end in ("y", "ybinding")]
    for kind in ("clusterrole", *admission):
        assert "rescheduler" not in plane.kubectl("get", kind, "-o", "name"), kind
    assert plane.get("rsp", "default")["spec"]["maintenance"]["maxConcurrent"] == 3


@pytest.mark.parametrize("keep", ["true", "false"])
def test_the_crds_stay_or_go_with_all_policies(plane: ControlPlane, keep: str) -> None:
    for command in (("install", "rescheduler", str(CHART), "--set", f"crds.keep={keep}"), ("uninstall", "rescheduler")):
        result = helm(*command, "-n", NAMESPACE, kubeconfig=plane.kubeconfig)
        assert result.returncode == 0, result.stderr
    if keep == "true":
        assert plane.get("rsp", "default")
    else:
        until(lambda: "rescheduler.dev" not in plane.kubectl("get", "crd", "-o", "name"), "the CRDs to be gone")
