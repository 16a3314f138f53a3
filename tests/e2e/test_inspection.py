"""`kubectl reschedule check`, `why` and `report`, as people call them."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import Site
from e2e.test_plans import reschedule
from harness import ControlPlane, workloads
from harness.operators import NAMESPACE
from harness.waiting import until

LABELS = {"app.kubernetes.io/name": "rescheduler"}


@pytest.fixture(scope="module")
def empty() -> Iterator[ControlPlane]:
    """Yield a control plane without any Rescheduler component."""
    with ControlPlane.start() as plane:
        yield plane


def test_check_finds_no_problem_in_an_empty_cluster_and_says_what_it_finds(empty: ControlPlane) -> None:
    empty.add_nodes(1, prefix="check-n")
    found = reschedule(empty.kubeconfig, "check")
    assert (found.returncode, found.stderr) == (0, "")
    assert "Rescheduler is not installed" in found.stdout
    assert "your rights suffice for plan, drain, cancel" in found.stdout
    empty.apply(workloads.namespace("shop"))
    empty.kubectl("wait", "-n", "shop", "--for=create", "serviceaccount/default")
    empty.apply(workloads.stateful_set("db", 1, "shop"), workloads.budget("db", "shop", minAvailable=1))
    until(lambda: "BudgetMisconfigured" in reschedule(empty.kubeconfig, "check").stdout, "the budget to be counted")
    result = reschedule(empty.kubeconfig, "check", "-o", "json")
    problems = [row for row in json.loads(result.stdout)["findings"] if row["level"] == "problem"]
    assert (result.returncode, [row["topic"] for row in problems]) == (1, ["budgets"])
    nobody = reschedule(empty.identity_kubeconfig("shop", "default"), "check")
    assert (nobody.returncode, nobody.stderr) == (1, "")
    assert "the check is incomplete" in nobody.stdout


def test_why_says_what_the_plan_and_the_running_drain_say(site: Site) -> None:
    first, *others = site.nodes(2)
    site.policy()
    web = workloads.deployment("web", 1, site.name, **site.here())
    db = workloads.stateful_set("db", 1, site.name, **site.here())
    site.on_first(first, others, web, db, workloads.budget("db", site.name, minAvailable=1))
    (pod,) = [p["metadata"]["name"] for p in site.observer.pods(site.name) if p["metadata"]["name"] != "db-0"]
    replaced = why(site, pod)
    assert (replaced["onDrain"]["outcome"], replaced["drain"]) == ("ReplacedFirst", None)
    expected = why(site, "db-0")["onDrain"]
    assert (expected["outcome"], expected["class"]) == ("Blocked", "BudgetMisconfigured")
    site.annotate(first)
    until(lambda: (why(site, "db-0")["drain"] or {}).get("blocker"), "the blocker to be in the status")
    found = why(site, "db-0")
    assert {key: found["drain"]["blocker"][key] for key in ("class", "message", "hint")} == {
        key: found["onDrain"][key] for key in ("class", "message", "hint")
    }
    text = reschedule(site.plane.kubeconfig, "why", f"{site.name}/db-0").stdout
    assert "This pod blocks it for" in text
    absent = reschedule(site.plane.kubeconfig, "why", f"{site.name}/gone")
    assert (absent.returncode, absent.stdout, absent.stderr.count("\n")) == (2, "", 1)


def why(site: Site, pod: str) -> dict[str, Any]:
    found = reschedule(site.plane.kubeconfig, "why", f"{site.name}/{pod}", "-o", "json")
    assert (found.returncode, found.stderr) == (0, "")
    explained: dict[str, Any] = json.loads(found.stdout)
    return explained


def test_a_report_of_a_running_drain_has_its_objects_and_no_secret(site: Site, tmp_path: Path) -> None:
    first, *others = site.nodes(2)
    site.policy()
    secret = "hunter2"
    container = {"name": "app", "image": "simulated", "args": [secret], "env": [{"name": "A", "value": secret}]}
    notes = {"example.com/token": secret}
    stuck, web = (
        make("stuck", 1, site.name, annotations=notes, containers=[container], **site.here())
        for make in (workloads.stateful_set, workloads.deployment)
    )
    site.on_first(first, others, stuck, workloads.budget("stuck", site.name, maxUnavailable=0))
    # As a Deployment of the operator in its namespace, with the annotation of `kubectl apply`.
    copy = json.loads(json.dumps(web))
    copy["metadata"] |= {"name": site.name, "namespace": NAMESPACE}
    copy["metadata"]["labels"] = copy["spec"]["template"]["metadata"]["labels"] = LABELS
    copy["spec"] |= {"selector": {"matchLabels": LABELS}}
    copy["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(copy)}
    site.plane.apply(copy)
    site.plane.kubectl("annotate", "node", first, f"example.com/token={secret}")
    site.annotate(first)
    until(lambda: site.drain_status(first) != "null", "the drain to begin")
    target = tmp_path / "report.zip"
    found = reschedule(site.plane.kubeconfig, "report", "--file", str(target))
    site.plane.kubectl("delete", "deployment", site.name, "-n", NAMESPACE)
    assert (found.returncode, found.stderr) == (0, "")
    with zipfile.ZipFile(target) as archive:
        files = {name.removeprefix("rescheduler-report/"): archive.read(name).decode() for name in archive.namelist()}
    assert [name for name, text in files.items() if secret in text] == []
    assert first in {drain["metadata"]["name"] for drain in json.loads(files["nodedrains.json"])}
    assert site.name in {pod["metadata"]["namespace"] for pod in json.loads(files["pods-of-drained-nodes.json"])}
    assert site.name in {made["metadata"]["name"] for made in json.loads(files["operator-deployments.json"])}
    assert {event["involvedObject"]["kind"] for event in json.loads(files["events.json"])} >= {"Node"}
    assert "nodedrains.json" in found.stdout


def test_history_says_who_asked_for_a_drain_and_what_it_interrupted(site: Site) -> None:
    first, *others = site.nodes(2)
    site.policy()
    web = workloads.deployment("web", 1, site.name, **site.here())
    site.on_first(first, others, web, workloads.stateful_set("db", 1, site.name, **site.here()))
    site.annotate(first, "kernel 6.18")
    site.phase(first, "Drained")
    (running,) = past_drains(site, first)
    assert running["outcome"] == "Running"
    site.annotate(first, None)
    site.gone(first)
    until(lambda: [row["outcome"] for row in past_drains(site, first)] == ["Drained"], "the record of the drain")
    text = reschedule(site.plane.kubeconfig, "history", first, "-n", NAMESPACE).stdout
    assert "Maintenance (kernel 6.18) by kubectl-annotate" in text
    assert "1 pod left without a replacement first" in text
    assert f"{site.name}/db-0   Evicted   StatefulSet/db" in text
    assert past_drains(site, first, "--until", "2026-01-01") == []


def past_drains(site: Site, node: str, *options: str) -> list[dict[str, Any]]:
    found = reschedule(site.plane.kubeconfig, "history", node, "-n", NAMESPACE, "-o", "json", *options)
    assert (found.returncode, found.stderr) == (0, "")
    rows: list[dict[str, Any]] = json.loads(found.stdout)
    return rows
