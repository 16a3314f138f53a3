"""Renderings of the chart over its values, without a cluster: each test looks at the objects that a value changes."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.operators import CHART, NAMESPACE, ROOT, helm

MUTATING = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"
PLATFORMS = sorted((ROOT / "manifests" / "values").glob("*.yaml"))
_MONITORING = "monitoring.coreos.com/v1"
Documents = dict[tuple[str, str], dict[str, Any]]


def run(*arguments: str, release: str = "rescheduler") -> subprocess.CompletedProcess[str]:
    return helm("template", release, str(CHART), "-n", NAMESPACE, "--api-versions", MUTATING, *arguments)


def render(*arguments: str, values: Any = None, release: str = "rescheduler") -> Documents:
    """Return the objects by kind and name, or namespace/name; `values` in the form of values.yaml."""
    changed = [f"--set-json={key}={json.dumps(value)}" for key, value in (values or {}).items()]
    result = run(*arguments, *changed, release=release)
    assert result.returncode == 0, result.stderr
    made = [document for document in yaml.safe_load_all(result.stdout) if document]
    return {(document["kind"], _name(document["metadata"])): document for document in made}


def _name(metadata: dict[str, Any]) -> str:
    elsewhere = metadata.get("namespace", NAMESPACE) not in (NAMESPACE, "kube-system")
    return f"{metadata['namespace']}/{metadata['name']}" if elsewhere else str(metadata["name"])


def pod(documents: Documents, kind: str = "Deployment", name: str = "rescheduler") -> dict[str, Any]:
    found: dict[str, Any] = documents[kind, name]["spec"]["template"]["spec"]
    return found


def operators_pods(documents: Documents) -> list[dict[str, Any]]:
    """Return the specs of all pods of the chart."""
    return [
        d["spec"]["template"]["spec"] if "template" in d["spec"] else d["spec"]
        for (kind, _), d in documents.items()
        if kind in ("Deployment", "Job", "Pod")
    ]


def kinds(documents: Documents) -> set[str]:
    return {kind for kind, _ in documents}


@pytest.mark.parametrize(
    "values",
    [
        {"fullnameOverride": "drainer"},
        {"fullnameOverride": "drainer", "serviceAccount": {"name": "mine"}},
        {"serviceAccount": {"name": "mine", "create": False}},
        {"nameOverride": "drainer"},
        {},
    ],
    ids=str,
)
def test_whatever_the_names_the_admission_policies_bound_the_accounts_that_the_pods_have(
    values: dict[str, Any],
) -> None:
    documents = render(values=values)
    name = values.get("fullnameOverride") or values.get("nameOverride") or "rescheduler"
    account = values.get("serviceAccount", {}).get("name", name)
    assert pod(documents, name=name)["serviceAccountName"] == account
    assert pod(documents, "Job", f"{name}-cleanup")["serviceAccountName"] == f"{name}-cleanup"
    accounts = {name for kind, name in documents if kind == "ServiceAccount"}
    assert accounts == {f"{name}-cleanup", f"{name}-storage"} | (
        {account} if "create" not in values.get("serviceAccount", {}) else set()
    )
    users = [f"system:serviceaccount:{NAMESPACE}:{user}" for user in (account, f"{name}-cleanup")]
    conditions = [
        condition["expression"]
        for (kind, _), d in documents.items()
        if kind.endswith("AdmissionPolicy")
        for condition in d["spec"].get("matchConditions", ())
        if "the-operator" in condition["name"]
    ]
    assert len(conditions) == 11
    assert all(json.dumps(users) in condition for condition in conditions)
    assert documents["ClusterRoleBinding", f"{name}-storage"]["subjects"][0]["name"] == f"{name}-storage"
    subjects = [
        {s["name"] for s in d["subjects"]}
        for (kind, named), d in documents.items()
        if kind.endswith("Binding") and "subjects" in d and named != f"{name}-storage"
    ]
    assert len(subjects) == 5
    assert all(found <= {account, f"{name}-cleanup"} for found in subjects)


def test_the_cleanup_scales_the_deployment_of_its_name_and_may() -> None:
    documents = render(values={"fullnameOverride": "drainer"})
    assert "--deployment=drainer" in pod(documents, "Job", "drainer-cleanup")["containers"][0]["args"]
    (rule,) = documents["Role", "drainer-cleanup"]["rules"]
    assert rule["resourceNames"] == ["drainer"]
    leases = documents["Role", "drainer"]["rules"][1]
    assert leases["resourceNames"] == ["rescheduler"]  # the operator's Lease has a fixed name


def test_the_names_of_the_policies_that_the_operator_checks_are_fixed() -> None:
    """Two sets of policies would refuse each other's operator. Helm refuses the second release by these names."""
    fixed = [key for key in render() if "Admission" in key[0]]
    assert fixed == [
        key for key in render(values={"fullnameOverride": "drainer"}, release="other") if "Admission" in key[0]
    ]


def test_common_labels_are_on_every_object_and_in_no_selector() -> None:
    documents = render(values={"commonLabels": {"team": "platform"}})
    assert not [key for key, d in documents.items() if d["metadata"]["labels"].get("team") != "platform"]
    assert "team" in documents["Deployment", "rescheduler"]["spec"]["template"]["metadata"]["labels"]
    assert "team" not in documents["Deployment", "rescheduler"]["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({}, "ghcr.io/rescheduler-dev/rescheduler:0.1.0"),
        ({"tag": "next"}, "ghcr.io/rescheduler-dev/rescheduler:next"),
        ({"registry": "local:5000", "repository": "x"}, "local:5000/x:0.1.0"),
        ({"registry": "", "repository": "local/x"}, "local/x:0.1.0"),
        ({"tag": "next", "digest": f"sha256:{64 * 'a'}"}, f"ghcr.io/rescheduler-dev/rescheduler@sha256:{64 * 'a'}"),
    ],
)
def test_the_image_of_all_pods(image: dict[str, str], reference: str) -> None:
    documents = render(values={"image": image})
    assert {c["image"] for spec in operators_pods(documents) for c in spec["containers"]} == {reference}


def test_pull_secrets_are_names_or_objects_and_those_of_a_parent_chart_are_added() -> None:
    documents = render(values={"imagePullSecrets": ["a", {"name": "b"}], "global": {"imagePullSecrets": ["c"]}})
    for spec in operators_pods(documents):
        assert spec["imagePullSecrets"] == [{"name": name} for name in "abc"]


def test_without_rbac_no_role_is_made_and_the_policies_stay() -> None:
    documents = render(values={"rbac": {"create": False, "aggregate": {"view": True, "edit": True}}})
    assert not {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} & kinds(documents)
    assert {key for key in render() if "Admission" in key[0]} <= documents.keys()


def test_aggregated_roles_are_off_by_default() -> None:
    assert not [d for d in render().values() if d["kind"] == "ClusterRole" and "aggregate" in str(d["metadata"])]
    documents = render(values={"rbac": {"aggregate": {"view": True, "edit": True}}})
    verbs = {}
    for name in ("view", "edit"):
        role = documents["ClusterRole", f"rescheduler-{name}"]
        assert role["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{name}"] == "true"
        (rule,) = role["rules"]
        assert set(rule["resources"]) == {"reschedulepolicies", "namespacepools", "nodedrains"}
        verbs[name] = set(rule["verbs"])
    assert verbs == {
        "view": {"get", "list", "watch"},
        "edit": {"create", "update", "patch", "delete", "deletecollection"},
    }


@pytest.mark.parametrize("platform", [None, *PLATFORMS], ids=lambda path: path.stem if path else "default")
def test_no_role_has_a_wildcard_or_reads_secrets(platform: Path | None) -> None:
    values = {"rbac": {"aggregate": {"view": True, "edit": True}}}
    documents = render(*(("-f", str(platform)) if platform else ()), values=values)
    for (kind, name), role in documents.items():
        for rule in role["rules"] if kind.endswith("Role") else ():
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"]), name
            assert "secrets" not in rule["resources"], name


def test_settings_of_pods_reach_all_of_them() -> None:
    values: dict[str, Any] = {
        "hostNetwork": True,
        "hostUsers": False,
        "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
        "podSecurityContext": {"runAsUser": None, "fsGroup": 1},
        "securityContext": {"runAsNonRoot": True},
        "nodeSelector": {"role": "system"},
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "mine",
        "serviceAccount": {"automount": False},
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
        "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/ca/ca.crt"}],
        "resources": {"limits": {"memory": "1Gi"}},
    }
    documents = render(values=values)
    for spec in operators_pods(documents):
        (container,) = spec["containers"]
        assert (spec["hostNetwork"], spec["hostUsers"]) == (True, False)
        assert spec["dnsPolicy"] == "ClusterFirstWithHostNet"
        assert spec["dnsConfig"] == values["dnsConfig"]
        assert "runAsUser" not in spec["securityContext"]
        assert (spec["securityContext"]["fsGroup"], spec["securityContext"]["runAsNonRoot"]) == (1, True)
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["runAsNonRoot"] is True
        assert spec["nodeSelector"] == {"role": "system"}
        assert spec["tolerations"] == [{"operator": "Exists"}]
        assert (spec["priorityClassName"], spec["automountServiceAccountToken"]) == ("mine", False)
        assert [volume["name"] for volume in spec["volumes"]] == ["tmp", "ca"]
        assert [mount["name"] for mount in container["volumeMounts"]] == ["tmp", "ca"]
        assert values["extraEnv"][0] in container["env"]
        assert container["resources"]["limits"] == {"memory": "1Gi"}


def test_settings_of_the_operator_itself() -> None:
    values: dict[str, Any] = {
        "replicas": 3,
        "strategy": {"type": "Recreate", "rollingUpdate": None},
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}],
        "extraArgs": ["--log-format=console"],
        "ports": {"metrics": 9080, "health": 9081},
        "podLabels": {"a": "b"},
        "podAnnotations": {"c": "d"},
    }
    documents = render(values=values)
    deployment, spec = documents["Deployment", "rescheduler"]["spec"], pod(documents)
    (container,) = spec["containers"]
    assert (deployment["replicas"], deployment["strategy"]) == (3, {"type": "Recreate"})
    assert spec["affinity"] == {"nodeAffinity": {}}
    assert spec["topologySpreadConstraints"] == values["topologySpreadConstraints"]
    assert container["args"][-1] == "--log-format=console"
    assert {"--metrics-port=9080", "--health-port=9081"} <= set(container["args"])
    assert {port["containerPort"] for port in container["ports"]} == {9080, 9081}
    metadata = deployment["template"]["metadata"]
    assert metadata["labels"]["a"] == "b"
    assert metadata["annotations"] == {"c": "d"}


@pytest.mark.parametrize(
    ("budget", "spec"),
    [
        ({}, {"maxUnavailable": 1}),
        ({"maxUnavailable": "50%"}, {"maxUnavailable": "50%"}),
        ({"minAvailable": 0}, {"minAvailable": 0}),
        ({"enabled": False}, None),
    ],
)
def test_the_operators_own_disruption_budget(budget: dict[str, Any], spec: dict[str, Any] | None) -> None:
    found = render(values={"podDisruptionBudget": budget}).get(("PodDisruptionBudget", "rescheduler"))
    assert (found and {k: v for k, v in found["spec"].items() if k != "selector"}) == spec


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PodMonitor"])
def test_monitors_are_made_if_their_kind_exists_or_on_demand(kind: str) -> None:
    value, served = kind[0].lower() + kind[1:], ("--api-versions", f"{_MONITORING}/{kind}")

    def made(*arguments: str, **monitor: Any) -> bool:
        return (kind, "rescheduler") in render(*arguments, values={value: monitor})

    assert [made(enabled="auto"), made(*served, enabled="auto")] == [False, True]
    assert [made(*served, enabled=False), made(enabled=True)] == [False, True]
    settings = {"interval": "15s", "scrapeTimeout": "5s", "honorLabels": True, "relabelings": [{"action": "drop"}]}
    found = render(values={value: {"enabled": True, "labels": {"release": "x"}, **settings}})[kind, "rescheduler"]
    (endpoint,) = found["spec"]["endpoints" if kind == "ServiceMonitor" else "podMetricsEndpoints"]
    assert endpoint == {"port": "metrics", **settings}
    assert found["metadata"]["labels"]["release"] == "x"


def test_the_network_policy_is_off_by_default_and_lets_only_metrics_in_and_the_api_server_out() -> None:
    assert "NetworkPolicy" not in kinds(render())
    peer, server = {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}, {"ipBlock": {"cidr": "10.0.0.1/32"}}
    values = {
        "networkPolicy": {"enabled": True, "metricsFrom": [peer], "apiServer": [server], "apiServerPorts": [6443]}
    }
    spec = render(values=values)["NetworkPolicy", "rescheduler"]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["egress"] == [{"to": [server], "ports": [{"port": 6443, "protocol": "TCP"}]}]
    assert [rule.get("from") for rule in spec["ingress"]] == [[peer], None]


def test_the_policies_of_pools_need_no_api_server_if_a_value_says_so() -> None:
    def pool_policies(policies: str, *served: str) -> int:
        result = helm("template", str(CHART), *served, "--set", f"pools.policies={policies}")
        assert result.returncode == 0, result.stderr
        return sum(
            d["kind"].endswith("AdmissionPolicy") and "-pool-" in d["metadata"]["name"]
            for d in yaml.safe_load_all(result.stdout)
            if d
        )

    served = ("--api-versions", MUTATING)
    assert pool_policies("auto") == pool_policies("never", *served) == 0
    assert pool_policies("auto", *served) == pool_policies("always") == 9


def test_the_quota_of_the_priority_class_is_not_made_in_kube_system() -> None:
    assert "ResourceQuota" in kinds(render())
    assert "ResourceQuota" not in kinds(render("-n", "kube-system"))
    assert "ResourceQuota" not in kinds(render(values={"resourceQuota": {"enabled": False}}))


def test_extra_objects_are_objects_or_templates() -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "of-{{ .Release.Name }}"}}
    documents = render(values={"extraObjects": [config, yaml.safe_dump({**config, "metadata": {"name": "text"}})]})
    assert {("ConfigMap", "of-rescheduler"), ("ConfigMap", "text")} <= documents.keys()


def test_the_default_policy_has_the_given_fields_and_selects_workers_unless_told_otherwise() -> None:
    def spec(**fields: Any) -> Any:
        return render(values={"defaultPolicy": {"spec": fields}})["ReschedulePolicy", "default"]["spec"]

    workers = {"matchExpressions": [{"key": "node-role.kubernetes.io/control-plane", "operator": "DoesNotExist"}]}
    assert spec() == {"nodeSelector": workers}
    assert spec(mode="Audit") == {"mode": "Audit", "nodeSelector": workers}
    assert spec(nodeSelector={"matchLabels": {"a": "b"}}) == {"nodeSelector": {"matchLabels": {"a": "b"}}}


def test_crds_are_those_for_kubectl_and_survive_an_uninstall_unless_told_otherwise() -> None:
    documents = render()
    plain = [yaml.safe_load(file.read_text()) for file in (ROOT / "manifests" / "crds").glob("*.yaml")]
    assert plain
    for crd in plain:
        found = documents["CustomResourceDefinition", crd["metadata"]["name"]]
        assert found["spec"] == crd["spec"]
        assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    not_kept = render(values={"crds": {"keep": False}})
    assert "resource-policy" not in str(
        [d["metadata"] for (kind, _), d in not_kept.items() if kind.startswith("Custom")]
    )
    assert "CustomResourceDefinition" not in kinds(render(values={"crds": {"enabled": False}}))


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("replica=3", "replica"),
        ("crds.keeps=true", "keeps"),
        ("image.digest=latest", "digest"),
        ("serviceMonitor.enabled=maybe", "serviceMonitor"),
        ("pools.policies=sometimes", "policies"),
        ("ports.metrics=0", "metrics"),
        ("commonLabels.a=1", "commonLabels"),
        ("fullnameOverride=UPPER", "fullnameOverride"),
    ],
)
def test_a_value_that_the_schema_refuses_is_named(argument: str, named: str) -> None:
    result = run("--set", argument)
    assert result.returncode != 0
    assert named in result.stderr


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda path: path.stem)
def test_the_examples_for_platforms_change_what_they_say(platform: Path) -> None:
    documents, given = render("-f", str(platform)), yaml.safe_load(platform.read_text())
    spec = pod(documents)
    for field in ("nodeSelector", "tolerations", "affinity"):
        if field in given:
            assert spec[field] == given[field]
    if platform.stem == "openshift":
        assert not {"runAsUser", "runAsGroup"} & spec["securityContext"].keys()
    assert documents.keys() != render().keys() or documents != render()


def test_every_platform_has_an_example() -> None:
    assert [path.stem for path in PLATFORMS] == ["air-gapped", "aks", "eks", "gke", "kind", "openshift"]


@pytest.mark.parametrize(
    ("values", "said", "unsaid"),
    [
        (
            {},
            [
                "every node but control-plane nodes",
                "NamespacePools are not enforced: this API server",
                "off, or the API server lacks their kinds: dashboard, podMonitor, prometheusRule, serviceMonitor, networkPolicy",
                f"rescheduler cleanup --namespace {NAMESPACE}\n",
            ],
            ["no ReschedulePolicy", "rbac.create", "not part of this release"],
        ),
        (
            {
                "defaultPolicy": {"enabled": False},
                "pools": {"policies": "never"},
                "crds": {"enabled": False},
                "rbac": {"create": False},
                "fullnameOverride": "drainer",
                "podMonitor": {"enabled": True},
                "prometheusRule": {"enabled": True},
                "dashboard": {"enabled": True},
                "networkPolicy": {"enabled": True},
            },
            [
                "This release has no ReschedulePolicy",
                "the value pools.policies is never",
                "The CRDs are not part of this release",
                "No role is installed",
                "--deployment drainer",
            ],
            ["are off"],
        ),
        ({"pools": {"policies": "always"}}, [], ["NamespacePools are not enforced"]),
    ],
)
def test_the_notes_name_what_is_off_and_the_command_that_repairs(
    values: dict[str, Any], said: list[str], unsaid: list[str]
) -> None:
    changed = [f"--set-json={key}={json.dumps(value)}" for key, value in values.items()]
    result = helm("install", "rescheduler", str(CHART), "-n", NAMESPACE, "--dry-run=client", *changed)
    assert result.returncode == 0, result.stderr
    notes = result.stdout.partition("NOTES:")[2]
    assert [words for words in said if words not in notes] == []
    assert [words for words in unsaid if words in notes] == []
