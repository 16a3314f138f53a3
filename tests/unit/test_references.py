"""The reference pages name everything that the code can show: fields, defaults, keys, reasons, Events and log events."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml

from harness import documents
from rescheduler.api import names
from rescheduler.api.crds import manifests
from rescheduler.api.drains import Phase, RequestReason
from rescheduler.api.policies import ReschedulePolicySpec

ROOT = documents.ROOT
REFERENCE = ROOT / "docs" / "reference"
_EVENT_REASON = re.compile(r"[A-Z][A-Za-z]+")
_LOG_EVENT = re.compile(r"[a-z_]+\.[a-z_]+")
_LOG_METHODS = {"debug", "info", "warning", "error", "exception"}


@cache
def code() -> tuple[ast.AST, ...]:
    """Return every node of the syntax trees of the package."""
    files = (ROOT / "operator" / "rescheduler").rglob("*.py")
    return tuple(node for file in files for node in ast.walk(ast.parse(file.read_text())))


def texts(node: ast.AST) -> set[str]:
    """Return the strings in an expression."""
    return {c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)}


def named(page: str) -> set[str]:
    """Return the words of a page in code spans."""
    prose = documents.read(f"docs/reference/{page}").prose
    return {word for line in prose for word in re.findall(r"`([^`]+)`", line)}


def test_each_log_event_is_listed_and_each_listed_event_is_in_the_code() -> None:
    calls = (n for n in code() if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.args)
    logged = {t for n in calls if n.func.attr in _LOG_METHODS for t in texts(n.args[0]) if _LOG_EVENT.fullmatch(t)}  # type: ignore[attr-defined]
    listed = {word for word in named("log-events.md") if _LOG_EVENT.fullmatch(word)}
    assert logged - listed == set()
    assert listed - {text for node in code() if isinstance(node, ast.Constant) for text in texts(node)} == set()


def test_each_reason_of_an_event_is_listed() -> None:
    calls = (n for n in code() if isinstance(n, ast.Call) and "EventType." in ast.unparse(n))
    reasons = {t for n in calls for argument in n.args for t in texts(argument) if _EVENT_REASON.fullmatch(t)}
    assert {"Cordoned", "PoolLabelKept"} <= reasons
    assert reasons - named("events.md") == set()


def test_each_reason_of_a_condition_is_listed() -> None:
    """States of conditions are tuples of status, reason and message."""
    states = (n for n in code() if isinstance(n, ast.Tuple) and len(n.elts) == 3)
    reasons = {t for n in states if texts(n.elts[0]) & {"True", "False", "Unknown"} for t in texts(n.elts[1])}
    assert {"Draining", "NoPods"} <= reasons
    assert reasons - named("conditions.md") == set()


def test_each_key_that_is_read_or_written_is_listed() -> None:
    values = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
    keys = {value for value in values if "/" in value and " " not in value}
    text = (REFERENCE / "annotations.md").read_text() + (ROOT / "docs" / "guides" / "coexistence.md").read_text()
    assert {key for key in keys if key not in text} == set()


@pytest.mark.parametrize("values", [Phase, RequestReason])
def test_each_phase_and_each_request_is_listed(values: type[Phase | RequestReason]) -> None:
    assert set(values) - named("nodedrain.md") == set()


@pytest.mark.parametrize(
    ("crd", "pages"),
    [
        ("reschedulepolicies", ["policy.md"]),
        ("namespacepools", ["namespacepool.md"]),
        ("nodedrains", ["nodedrain.md", "blockers.md", "policy.md", "audit.md"]),
    ],
)
def test_each_field_of_a_kind_is_listed(crd: str, pages: list[str]) -> None:
    schema = yaml.safe_load(manifests()[f"rescheduler.dev_{crd}.yaml"])["spec"]["versions"][0]["schema"]
    text = "".join((REFERENCE / page).read_text() for page in pages)
    properties = schema["openAPIV3Schema"]["properties"]
    found = {*_fields(properties["spec"]), *_fields(properties["status"])}
    assert {field for field in found if not re.search(rf"\b{field}\b", text)} == set()


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    """Yield the names of the fields, without those of conditions and label selectors, which are of Kubernetes."""
    for name, each in schema.get("properties", {}).items():
        yield name
        if not name.endswith("Selector") and name != "conditions":
            yield from _fields(each)
    if "items" in schema:
        yield from _fields(schema["items"])


def test_the_defaults_of_a_policy_are_those_of_the_model() -> None:
    """A field whose comment says `optional` has an example."""
    (block,) = [b for b in documents.read("docs/reference/policy.md").blocks if b.text.startswith("apiVersion")]
    shown = yaml.safe_load("\n".join(line for line in block.lines if "# optional" not in line))["spec"]
    shown["nodeSelector"] |= {"matchLabels": {}, "matchExpressions": []}
    assert shown == ReschedulePolicySpec().model_dump(mode="json", by_alias=True, exclude_none=True)
