"""Alerts and dashboard: each metric exists, each alert has its runbook, and promtool agrees."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from harness import alerts, binaries, dashboard, reference

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guides/observability.md"
RUNBOOKS = ROOT / "docs/runbooks"
URL = "https://rescheduler.dev/runbooks/"
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Action"]
NAME = re.compile(r"\b(?:rescheduler|rest_client|leader_election|controller_runtime|workqueue|process|python)_\w+")
RULES: list[dict[str, Any]] = yaml.safe_load(alerts.RULES.read_text())["groups"][0]["rules"]


def series() -> set[str]:
    """Return the names of all series that `/metrics` can have."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    stock = {sample.name for family in registry.collect() for sample in family.samples}
    return stock | {name for metric in reference.metrics() for name in metric.series}


def test_each_metric_of_an_alert_and_of_the_docs_exists() -> None:
    expressions = {rule["alert"]: rule["expr"] for rule in RULES}
    pages = {page.name: page.read_text() for page in (GUIDE, *RUNBOOKS.glob("*.md"))}
    unknown = {
        source: missing
        for source, text in {**expressions, **pages}.items()
        if (missing := set(NAME.findall(text)) - series())
    }
    assert unknown == {}
    assert all(NAME.search(expression) for expression in expressions.values())


def test_each_alert_has_its_runbook_and_each_runbook_its_alert() -> None:
    pages = {page.stem: page.read_text() for page in RUNBOOKS.glob("*.md")}
    assert {rule["alert"].removeprefix("Rescheduler") for rule in RULES} == pages.keys()
    for rule in RULES:
        name = rule["alert"].removeprefix("Rescheduler")
        assert rule["annotations"]["runbook_url"] == f"{URL}{name}/"
        assert re.findall(r"^## (.*)$", pages[name], re.MULTILINE) == SECTIONS
        assert f"`{rule['alert']}`" in pages[name]
        assert f"[{rule['alert']}](../runbooks/{name}.md) | {rule['labels']['severity']} |" in GUIDE.read_text()


def test_each_alert_has_series_that_fire_and_series_that_do_not() -> None:
    tests = [case for group in yaml.safe_load(alerts.TESTS.read_text())["tests"] for case in group["alert_rule_test"]]
    for firing in (True, False):
        assert {case["alertname"] for case in tests if bool(case.get("exp_alerts")) is firing} == {
            rule["alert"] for rule in RULES
        }


@pytest.mark.skipif(binaries.find("promtool") is None, reason="promtool is not built: run `make test-alerts`")
def test_promtool_agrees() -> None:
    command = [str(binaries.path("promtool")), "test", "rules", str(alerts.TESTS)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_each_metric_of_the_dashboard_exists() -> None:
    panels = [panel for row in dashboard.ROWS.values() for panel in row]
    unknown = {panel.title: set(NAME.findall(expr)) - series() for panel in panels for expr, _ in panel.queries}
    assert {title: names for title, names in unknown.items() if names} == {}
    assert all(NAME.search(expr) for panel in panels for expr, _ in panel.queries)


def test_the_dashboard_is_as_generated_and_has_the_rows() -> None:
    board = json.loads(dashboard.TARGET.read_text())
    assert board == dashboard.build()
    assert [panel["title"] for panel in board["panels"] if panel["type"] == "row"] == list(dashboard.ROWS)


def test_no_two_panels_of_the_dashboard_overlap() -> None:
    cells = [
        (place["x"] + x, place["y"] + y)
        for panel in dashboard.build()["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["w"])
        for y in range(place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@pytest.mark.skipif(binaries.find("promtool") is None, reason="promtool is not built: run `make test-alerts`")
def test_promtool_can_parse_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    queries = [expr for row in dashboard.ROWS.values() for panel in row for expr, _ in panel.queries]
    rules = [{"record": f"panel:{index}", "expr": expr} for index, expr in enumerate(queries)]
    file = tmp_path / "rules.yaml"
    text = yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]})
    file.write_text(text.replace("$__rate_interval", "5m"))
    command = [str(binaries.path("promtool")), "check", "rules", "--lint=none", str(file)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
