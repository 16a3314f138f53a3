"""The objects of applications in a folder of a user."""

from pathlib import Path

import pytest

from applications.loading import applications, flat, owned, owner, placed
from catalogue.entries import OWNER

DEPLOYMENT = (
    "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {template: {metadata: {labels: {a: b}}}}}"
)
SERVICE = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}}"


def test_each_subfolder_and_each_file_is_an_application(tmp_path: Path) -> None:
    (tmp_path / "Shop v1.2.yaml").write_text(f"{DEPLOYMENT}\n---\n{SERVICE}\n---\n")
    (tmp_path / "monitoring" / "setup").mkdir(parents=True)
    (tmp_path / "monitoring" / "setup" / "a.yml").write_text(SERVICE)
    (tmp_path / "monitoring" / "b.json").write_text('{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}')
    (tmp_path / "README.md").write_text("no manifest")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    shop, monitoring = applications(tmp_path)
    assert (shop.name, [each["kind"] for each in shop.documents]) == ("shop-v1-2", ["Deployment", "Service"])
    assert (monitoring.name, [each["kind"] for each in monitoring.documents]) == ("monitoring", ["Secret", "Service"])
    assert shop.namespaces() == ["shop"]


def test_dates_and_the_value_sign_are_strings_as_for_kubectl(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a: 2026-01-02, b: =}}"
    )
    (found,) = applications(tmp_path)
    assert found.documents[0]["data"] == {"a": "2026-01-02", "b": "="}


def test_broken_yaml_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: {")
    with pytest.raises(ValueError, match=r"broken\.yaml is not valid YAML"):
        applications(tmp_path)


def test_lists_are_taken_apart_and_other_documents_are_no_objects() -> None:
    role = {"metadata": {"name": "r"}}
    assert list(flat({"apiVersion": "rbac/v1", "kind": "RoleList", "items": [role]})) == [
        {"apiVersion": "rbac/v1", "kind": "Role", **role}
    ]
    for none in (None, "text", {"kind": "X"}, {"apiVersion": "v1", "kind": "X"}, ["a"]):
        assert list(flat(none)) == []
    assert not list(
        flat({"apiVersion": "kustomize.config.k8s.io/v1", "kind": "Kustomization", "metadata": {"name": "k"}})
    )


def test_webhooks_are_left_out_and_the_reason_is_kept(tmp_path: Path) -> None:
    webhook = "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: w}}"
    (tmp_path / "a.yaml").write_text(f"{webhook}\n---\n{SERVICE}")
    (found,) = applications(tmp_path)
    assert [each["kind"] for each in found.documents] == ["Service"]
    assert found.left_out == {"ValidatingWebhookConfiguration": "no server runs behind a webhook"}


def test_pods_get_a_label_with_their_workload_and_keep_their_own() -> None:
    made = {
        "kind": "StatefulSet",
        "metadata": {"name": "db"},
        "spec": {"template": {"metadata": {"labels": {"a": "b"}}}},
    }
    assert owned(made)["spec"]["template"]["metadata"]["labels"] == {"a": "b", OWNER: "statefulset.db"}
    pod = {"kind": "Pod", "metadata": {"name": "one"}}
    assert owned(pod)["metadata"]["labels"] == {OWNER: "pod.one"}
    other = {"kind": "Service", "metadata": {"name": "s"}, "spec": {"template": "x"}}
    assert owned(other) == other
    assert len(owner("Deployment", "x" * 80)) == 63


def test_only_namespaced_objects_without_a_namespace_get_one() -> None:
    served = {("v1", "Secret"): True, ("v1", "Node"): False}
    found = placed(
        [
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b", "namespace": "other"}},
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "c"}},
        ],
        served,
        "mine",
    )
    assert [each["metadata"].get("namespace") for each in found] == ["mine", "other", None]


def test_crds_and_namespaces_come_first(tmp_path: Path) -> None:
    crd = "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: x}}"
    (tmp_path / "a.yaml").write_text(f"{SERVICE}\n---\n{crd}")
    first, others = applications(tmp_path)[0].groups()
    assert [each["kind"] for each in (*first, *others)] == ["CustomResourceDefinition", "Service"]
