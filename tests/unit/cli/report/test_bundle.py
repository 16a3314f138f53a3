"""Files of a report, read from a captured cluster."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rescheduler.cli.cluster_api import ApiUnavailableError
from rescheduler.cli.operator_namespace import DEFAULT_NAMESPACE
from rescheduler.cli.report.bundle import Report, read_report, safe_name
from unit.builders import raw_drain, raw_object, raw_pod
from unit.fakes import FakeClusterApi

CAPTURED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "check" / "cluster.json").read_text())
SECRET = "hunter2"


def operator_pod(name: str = "rescheduler-1") -> dict[str, Any]:
    raw = raw_pod(name, node="n1")
    container = {"name": "rescheduler", "image": "i", "args": [SECRET], "env": [{"name": "A", "value": SECRET}]}
    raw["metadata"]["annotations"] = {"example.com/token": SECRET}
    return {**raw, "spec": {**raw["spec"], "containers": [container]}}


def answers(*pods: dict[str, Any]) -> dict[str, Any]:
    folder = f"v1/namespaces/{DEFAULT_NAMESPACE}/pods"
    texts: dict[str, str] = {}
    for pod in pods:
        name = pod["metadata"]["name"]
        texts |= {f"{folder}/{name}/log": "a line\n", f"{folder}/{name}:8080/proxy/metrics": "up 1\n"}
    return {folder: {"items": list(pods)}, **texts}


def event(component: str, kind: str, name: str, message: str) -> dict[str, Any]:
    about = {"kind": kind, "name": name, "namespace": "s"}
    return {**raw_object("e"), "reportingComponent": component, "involvedObject": about, "message": message}


def read(changes: dict[str, Any], namespace: str | None = None) -> Report:
    return read_report(FakeClusterApi(CAPTURED | changes), namespace)


def content(report: Report, name: str) -> str:
    (found,) = [file.content.decode() for file in report.files if file.name == name]
    return found


def test_a_report_has_the_logs_and_metrics_of_the_operator() -> None:
    report = read(answers(operator_pod()))
    assert content(report, "logs/rescheduler-1-rescheduler.log") == "a line\n"
    assert content(report, "logs/rescheduler-1-rescheduler.previous.log") == "a line\n"
    assert content(report, "metrics/rescheduler-1.txt") == "up 1\n"


def test_no_file_has_a_planted_secret() -> None:
    drains = {"items": [with_secrets(raw_drain("n1"))]}
    planted = CAPTURED | {"rescheduler.dev/v1alpha1/nodedrains": drains}
    for kind in ("v1/nodes", "v1/pods", "policy/v1/poddisruptionbudgets", "apps/v1/deployments"):
        planted[kind] = {"items": [with_secrets(item) for item in CAPTURED[kind]["items"]]}
    assert SECRET in json.dumps(planted["v1/pods"])
    report = read(planted | answers(operator_pod()))
    assert len(json.loads(content(report, "pods-of-drained-nodes.json"))) > 5
    assert [file.name for file in report.files if SECRET in file.content.decode()] == []


def with_secrets(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy with a secret in annotations, environment and arguments."""
    copy: dict[str, Any] = json.loads(json.dumps(item))
    copy["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": SECRET}
    for container in copy.get("spec", {}).get("containers", []):
        container |= {"env": [{"name": "A", "value": SECRET}], "args": [SECRET]}
    return copy


def test_events_are_those_of_the_operator_of_nodes_and_of_moved_pods() -> None:
    rows = [
        event("rescheduler", "Pod", "any", "ours"),
        event("node-controller", "Node", "n1", "node"),
        event("default-scheduler", "Pod", "moved", "moved"),
        event("kubelet", "Pod", "moved", SECRET),
        event("default-scheduler", "Pod", "other", SECRET),
    ]
    moved = {"items": [raw_pod("moved", node="n1")]}
    drains = {"items": [raw_drain("n1")]}
    changes = {"v1/events": {"items": rows}, "v1/pods": moved, "rescheduler.dev/v1alpha1/nodedrains": drains}
    found = json.loads(content(read(changes), "events.json"))
    assert [row["message"] for row in found] == ["ours", "node", "moved"]


def test_neither_secrets_nor_config_maps_are_read() -> None:
    api = FakeClusterApi(CAPTURED | answers(operator_pod()))
    read_report(api, None)
    assert not any("secrets" in row or "configmaps" in row for row in api.asked)
    assert {row.split()[0] for row in api.asked} == {"get", "post"}


def test_what_cannot_be_read_is_named_and_the_rest_is_there() -> None:
    report = read({"v1/events": 403, "v1/nodes": 403})
    assert any("cannot list events" in row for row in report.missing)
    assert any("no pod of the operator" in row for row in report.missing)
    assert json.loads(content(report, "reschedulepolicies.json"))


def test_without_an_answer_of_the_api_server_there_is_no_report() -> None:
    with pytest.raises(ApiUnavailableError):
        read_report(FakeClusterApi({}), None)


def test_files_of_pods_with_similar_names_do_not_replace_each_other() -> None:
    report = read(answers(operator_pod("a/b"), operator_pod("a_b")))
    names = [file.name for file in report.files]
    assert len(names) == len({*names})
    assert {"metrics/a_b.txt", "metrics/a_b-2.txt"} <= {*names}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..", "_"),
        ("/etc/.hidden", "_etc_.hidden"),
        ("C:\\a", "C_a"),
        ("a\x00b\n", "a_b_"),
        ("", "_"),
        ("x" * 500, "x" * 120),
    ],
)
def test_a_name_of_others_is_no_path(name: str, expected: str) -> None:
    assert safe_name(name) == expected
