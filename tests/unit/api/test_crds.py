"""The CRDs in the repository are the generated ones, and every field has a description."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rescheduler.api import STORAGE_VERSION
from rescheduler.api.crds import main, manifests, template
from rescheduler.cli.storage.stored_versions import RESOURCES

ROOT = Path(__file__).parents[3]
CRDS = {crd["spec"]["names"]["kind"]: crd for crd in map(yaml.safe_load, manifests().values())}


def schema(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = CRDS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def fields(at: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, child in at.get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from fields(child, f"{path}.{name}")
    if isinstance(at.get("items"), dict):
        yield from fields(at["items"], f"{path}[]")


ALL = [
    pytest.param(field, id=path)
    for kind in CRDS
    for part in ("spec", "status")
    for path, field in fields(schema(kind)["properties"][part], f"{kind}.{part}")
]


def test_the_files_are_up_to_date() -> None:
    assert main(["--check", str(ROOT / "manifests/crds"), str(ROOT / "manifests/chart/templates/crds")]) == 0


@pytest.mark.parametrize("folder", ["crds", "templates"])
def test_a_file_that_differs_is_named(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(tmp_path / name) for name in ("crds", "templates")]
    assert main(folders) == 0
    assert main(["--check", *folders]) == 0
    (tmp_path / folder / "rescheduler.dev_nodedrains.yaml").write_text("changed")
    assert main(["--check", *folders]) == 1
    assert f"{folder}/rescheduler.dev_nodedrains.yaml" in capsys.readouterr().err


def test_a_template_shows_double_braces_as_they_are() -> None:
    made = template("metadata:\n  name: x\nspec:\n  rule: a{{b}}\n")
    assert 'rule: a{{ "{{" }}b}}' in made


def test_helm_finds_no_folder_of_crds_that_it_would_never_upgrade() -> None:
    assert not (ROOT / "manifests/chart/crds").exists()


@pytest.mark.parametrize("field", ALL)
def test_every_field_is_described(field: dict[str, Any]) -> None:
    assert field.get("description")


@pytest.mark.parametrize("field", ALL)
def test_every_field_has_one_type(field: dict[str, Any]) -> None:
    assert "type" in field or field.get("x-kubernetes-int-or-string")
    assert not {"anyOf", "$ref", "title", "$defs"} & field.keys()


def test_overrides_have_no_defaults() -> None:
    """A default in an override would silently replace the policy's value."""
    overrides = schema("NodeDrain")["properties"]["spec"]["properties"]["drain"]
    assert not [path for path, field in fields(overrides, "drain") if "default" in field]


def test_nothing_observed_is_defaulted() -> None:
    for kind in CRDS:
        status = schema(kind)["properties"]["status"]
        assert not [path for path, field in fields(status, kind) if "default" in field]


@pytest.mark.parametrize(
    ("kind", "short"), [("ReschedulePolicy", "rsp"), ("NamespacePool", "nsp"), ("NodeDrain", "nd")]
)
def test_names_and_scope_are_the_contract(kind: str, short: str) -> None:
    spec = CRDS[kind]["spec"]
    assert (spec["group"], spec["scope"]) == ("rescheduler.dev", "Cluster")
    assert spec["names"]["shortNames"] == [short]
    assert spec["names"]["categories"] == ["rescheduler"]
    assert spec["versions"][0]["subresources"] == {"status": {}}


@pytest.mark.parametrize("kind", CRDS)
def test_all_versions_are_served_with_the_same_schema_and_one_is_stored(kind: str) -> None:
    versions = CRDS[kind]["spec"]["versions"]
    found = [(version["name"], version["served"], version["storage"]) for version in versions]
    assert found == [("v1alpha1", True, True), ("v1beta1", True, False)]
    first, second = ({k: v for k, v in version.items() if k not in ("name", "storage")} for version in versions)
    assert first == second
    assert "conversion" not in CRDS[kind]["spec"]


def test_no_yaml_alias_is_in_a_manifest() -> None:
    """The templates of helm are no YAML, so nothing would resolve an alias that crosses their conditions."""
    assert not [name for name, text in manifests().items() if "&id0" in text]


def test_the_job_of_the_chart_knows_the_storage_version_and_all_kinds() -> None:
    text = (ROOT / "manifests/chart/templates/storage.yaml").read_text()
    assert f'$storage := "{STORAGE_VERSION}"' in text
    plurals = sorted(crd["spec"]["names"]["plural"] for crd in CRDS.values())
    assert f"$kinds := list {' '.join(json.dumps(plural) for plural in plurals)} " in text
    assert sorted(RESOURCES) == plurals
