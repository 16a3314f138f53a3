"""Rules for the files of the repository."""

import ast
import operator
import re
from pathlib import Path

import yaml

import unit
from rescheduler.kube.preflight import REQUIRED_PERMISSIONS

ROOT = Path(__file__).parents[2]
PLACEMENT_PARSERS = ("pod_affinity", "pod_requirements", "pod_snapshot", "successors", "topology_spread")
"""The modules of `core/placement` that parse or build raw pods."""


def test_the_standard_librarys_operator_is_not_shadowed() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert "rescheduler" not in str(operator.__file__)


def test_the_cluster_role_grants_what_is_called_and_no_more() -> None:
    documents = list(yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()))
    (role,) = [d for d in documents if d["kind"] == "ClusterRole"]
    granted = {
        (group, resource, verb, name)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }
    assert granted == {(right.group, right.resource, right.verb, right.name) for right in REQUIRED_PERMISSIONS}


def test_the_install_manifest_has_its_namespace_but_no_hooks_and_no_crds() -> None:
    documents = list(yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()))
    assert documents[0]["kind"] == "Namespace"
    assert "CustomResourceDefinition" not in {d["kind"] for d in documents}
    assert not any("helm.sh/hook" in d["metadata"].get("annotations", {}) for d in documents)


def test_the_install_manifest_has_each_admission_policy_before_its_binding() -> None:
    """A binding without its policy allows every write, and reports no error."""
    kinds: dict[str, list[str]] = {}
    for document in yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()):
        if document["kind"].endswith("AdmissionPolicyBinding"):
            policy = document["kind"].removesuffix("Binding")
            assert document["spec"]["policyName"] in kinds[policy], document["metadata"]["name"]
        kinds.setdefault(document["kind"], []).append(document["metadata"]["name"])
    assert kinds["MutatingAdmissionPolicyBinding"]


def test_no_mutating_policy_has_an_object_literal() -> None:
    """API servers up to 1.36 panic on an object literal in a list of a patch, with any failurePolicy."""
    text = (ROOT / "manifests" / "install.yaml").read_text()
    expressions = [
        mutation["jsonPatch"]["expression"]
        for document in yaml.safe_load_all(text)
        for mutation in document.get("spec", {}).get("mutations", [])
    ]
    assert expressions
    assert not any("Object{" in e or "Object." in e for e in expressions)


def test_no_webhook_and_no_right_to_change_admission_policies() -> None:
    documents = list(yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text()))
    assert not [d["kind"] for d in documents if "Webhook" in d["kind"]]
    rules = [rule for d in documents if d["kind"] in ("ClusterRole", "Role") for rule in d["rules"]]
    verbs = {verb for r in rules if "admissionregistration.k8s.io" in r["apiGroups"] for verb in r["verbs"]}
    assert verbs == {"get"}
    assert not any("*" in (*r["apiGroups"], *r["resources"], *r["verbs"]) for r in rules)


def test_kopf_watches_and_does_nothing_else() -> None:
    """The other decorators of Kopf write to the objects: see handlers.py."""
    used = {
        ast.unparse(decorator.func)
        for file in (ROOT / "operator").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).startswith("kopf.")
    }
    assert used == {"kopf.on.event", "kopf.on.login", "kopf.on.startup", "kopf.on.cleanup"}


def test_every_test_that_the_docs_name_is_there() -> None:
    named = [
        (page.name, *found)
        for page in (ROOT / "docs").rglob("*.md")
        for found in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text())
    ]
    assert named
    for page, file, test in named:
        assert f"def {test}" in (ROOT / file).read_text(), f"{page} names {file}::{test}"


def test_each_module_has_a_test_of_its_name_or_a_row_that_names_another() -> None:
    package, tests = ROOT / "operator" / "rescheduler", ROOT / "tests"
    rows = dict(re.findall(r"^    ([\w/]+): ([\w/]+)$", str(unit.__doc__), re.MULTILINE))
    without_test = {
        str(file.relative_to(package).with_suffix(""))
        for folder in ("api", "cli", "controllers", "core", "kube")
        for file in (package / folder).rglob("*.py")
        if file.name not in ("__init__.py", "messages.py")
        and "def " in file.read_text()
        and not (tests / "unit" / file.relative_to(package)).with_name(f"test_{file.name}").exists()
    }
    assert rows.keys() == without_test
    assert [test for test in rows.values() if not (tests / f"{test}.py").exists()] == []


def test_each_unit_test_of_a_package_is_named_after_a_module() -> None:
    package, tests = ROOT / "operator" / "rescheduler", ROOT / "tests" / "unit"
    files = (
        file for folder in ("api", "cli", "controllers", "core", "kube") for file in (tests / folder).rglob("test_*.py")
    )
    modules = {file: package / file.relative_to(tests).with_name(file.name.removeprefix("test_")) for file in files}
    assert [str(file) for file, module in modules.items() if not module.exists()] == []


def test_raw_objects_enter_core_only_through_parsers() -> None:
    """Every other function of `core` takes records. A patch is raw until it is sent."""
    core = ROOT / "operator" / "rescheduler" / "core"
    modules_with_raw_objects = {
        str(file.relative_to(core).with_suffix(""))
        for file in core.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if file.parent.name != "model" and _takes_raw_object(node)
    }
    assert modules_with_raw_objects == {f"placement/{name}" for name in PLACEMENT_PARSERS}


def test_pods_are_deleted_in_one_place_only() -> None:
    """That place sets the condition DisruptionTarget first: a Job must not count the delete as a failure of its pod."""
    deleting = {
        file.name
        for file in (ROOT / "operator" / "rescheduler").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "delete"
        and "pod" in ast.unparse(node).lower()
    }
    assert deleting == {"eviction_queue.py"}


def _takes_raw_object(node: ast.AST) -> bool:
    """Whether this is a parameter of a raw type, or reads the raw object of a record."""
    if isinstance(node, ast.arg) and node.annotation and node.arg != "patch":
        return bool(re.search(r"\bRaw[A-Z]|\[str, Any\]", ast.unparse(node.annotation)))
    return isinstance(node, ast.Attribute) and node.attr == "raw"


def test_requirements_are_locked_with_hashes_and_name_no_index() -> None:
    for name in ("runtime", "dev", "bench", "plugin", "docs", "audit", "build"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        assert "--hash=sha256:" in text
        assert "index-url" not in text
        assert "://" not in text
