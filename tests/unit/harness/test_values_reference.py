"""The reference page of the chart's values is generated from the comments in values.yaml."""

import json
from typing import Any

import pytest
import yaml

from harness import values_reference
from harness.values_reference import ROOT, rows

CHART = ROOT / "manifests/chart"


def test_nested_values_have_their_path_and_the_comment_above_them() -> None:
    text = "a:\n  # One\n  # line.\n  b: {c: 1}\n# A list.\nd:\n- x\n- y\n"
    assert rows(text) == [("a.b", "{c: 1}", "One line."), ("d", "[x, y]", "A list.")]


def test_a_value_without_a_comment_is_named() -> None:
    with pytest.raises(ValueError, match=r"a\.b has no comment"):
        rows("# A section.\na:\n  b: 1\n")


def test_the_page_is_current() -> None:
    assert values_reference.main(["--check"]) == 0


def test_every_value_is_in_the_schema_and_on_the_page() -> None:
    """A value that the schema lacks is not checked, and a value of the schema without a default is not documented."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def leaves(at: dict[str, Any], properties: dict[str, Any], path: str = "") -> set[str]:
        assert at.keys() == properties.keys(), path
        return {
            leaf
            for key, below in properties.items()
            for leaf in (leaves(at[key], below["properties"], f"{path}{key}.") if _is_section(below) else {path + key})
        }

    assert leaves(values, schema["properties"]) == {name for name, _, _ in rows((CHART / "values.yaml").read_text())}


def _is_section(schema: dict[str, Any]) -> bool:
    """Whether these are values of the chart; `strategy` holds fields of Kubernetes, of which the schema checks one."""
    return "properties" in schema and "type" not in schema["properties"]
