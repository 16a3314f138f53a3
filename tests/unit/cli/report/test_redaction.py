"""What a report shows of an object."""

import json
from typing import Any

import pytest

from rescheduler.cli.report.redaction import (
    REDACTED,
    Redactor,
    redact_crd,
    redact_deployment,
    redact_event,
    redact_metadata,
    redact_node,
    redact_own_kind,
    redact_pod,
)
from unit.builders import raw_node, raw_pod

SECRET = "hunter2"
FOREIGN = {
    "example.com/token": SECRET,
    "kubectl.kubernetes.io/last-applied-configuration": json.dumps({"password": SECRET}),
    "rescheduler.dev.example.com/x": SECRET,
}
CONTAINER = {
    "name": "app",
    "image": "app:1",
    "args": [SECRET],
    "command": ["sh", "-c", SECRET],
    "env": [{"name": "PASSWORD", "value": SECRET}],
    "envFrom": [{"prefix": SECRET}],
    "livenessProbe": {"httpGet": {"httpHeaders": [{"name": "Authorization", "value": SECRET}]}},
    "readinessProbe": {"exec": {"command": [SECRET]}},
    "lifecycle": {"preStop": {"exec": {"command": [SECRET]}}},
    "workingDir": SECRET,
}
SPEC = {
    "containers": [CONTAINER],
    "initContainers": [CONTAINER],
    "ephemeralContainers": [CONTAINER],
    "hostAliases": [{"hostnames": [SECRET]}],
    "volumes": [
        {"name": "a", "csi": {"driver": "d", "volumeAttributes": {"key": SECRET}}},
        {"name": "b", "flexVolume": {"options": {"key": SECRET}}},
        {"name": "c", "downwardAPI": {"items": [{"path": SECRET}]}},
        {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
    ],
}
METADATA = {
    "name": "p",
    "namespace": "s",
    "labels": {"app": "a"},
    "annotations": FOREIGN | {"rescheduler.dev/replacement": "Never"},
    "managedFields": [{"fieldsV1": {f"v:{SECRET}": {}}}],
}
STATES = {"terminated": {"message": SECRET, "exitCode": 1}, "waiting": {"message": SECRET, "reason": "Crash"}}
STATUS = {
    "phase": "Running",
    "message": SECRET,
    "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": SECRET}],
    "containerStatuses": [{"name": "app", "state": STATES, "lastState": STATES, "containerID": SECRET}],
}


@pytest.mark.parametrize(
    ("redact", "raw"),
    [
        (redact_pod, {"metadata": METADATA, "spec": SPEC, "status": STATUS}),
        (redact_deployment, {"metadata": METADATA, "spec": {"template": {"metadata": METADATA, "spec": SPEC}}}),
        (redact_node, {"metadata": METADATA, "spec": {"providerID": SECRET}, "status": {"images": [SECRET]}}),
        (redact_own_kind, {"metadata": METADATA, "spec": {}, "data": SECRET}),
        (redact_event, {"metadata": METADATA, "message": "m", "related": SECRET}),
        (redact_crd, {"metadata": METADATA, "spec": {"versions": [{"name": "v1", "schema": SECRET}]}}),
    ],
)
def test_a_secret_is_in_no_field_of_what_is_shown(redact: Redactor, raw: dict[str, Any]) -> None:
    assert SECRET in json.dumps(raw)
    shown = redact(raw)
    assert SECRET not in json.dumps(shown)
    assert shown["metadata"]["name"] == "p"


def test_annotations_of_others_keep_their_key_and_ours_their_value() -> None:
    shown = redact_metadata({"metadata": METADATA})["annotations"]
    assert shown == dict.fromkeys(FOREIGN, REDACTED) | {"rescheduler.dev/replacement": "Never"}


def test_what_a_bug_report_needs_of_a_pod_is_there() -> None:
    shown = redact_pod({"metadata": METADATA, "spec": SPEC, "status": STATUS})
    assert shown["spec"]["containers"] == [{"name": "app", "image": "app:1"}]
    assert shown["spec"]["volumes"][3] == {"name": "d", "persistentVolumeClaim": {"claimName": "data"}}
    assert shown["spec"]["volumes"][0] == {"name": "a", "csi": {"driver": "d"}}
    assert shown["status"]["conditions"] == [{"type": "Ready", "status": "True"}]
    assert shown["status"]["containerStatuses"][0]["state"]["terminated"] == {"exitCode": 1}


def test_a_node_has_its_taints_and_conditions() -> None:
    shown = redact_node(raw_node("n1", unschedulable=True))
    assert shown["spec"]["unschedulable"] is True
    assert "conditions" in shown["status"]


@pytest.mark.parametrize(
    "redact", [redact_pod, redact_deployment, redact_node, redact_own_kind, redact_event, redact_crd]
)
@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"metadata": 3, "spec": [], "status": "x"},
        {"metadata": {"annotations": [1]}, "spec": {"containers": {"a": 1}, "volumes": [1], "versions": 3}},
        {"spec": {"template": None}, "status": {"conditions": [1], "containerStatuses": [{"state": 1}]}},
    ],
)
def test_an_object_of_any_shape_is_no_error(redact: Redactor, raw: dict[str, Any]) -> None:
    assert "metadata" in redact(raw)


def test_a_whole_pod_of_a_real_shape_is_shown() -> None:
    assert redact_pod(raw_pod("p", node="n"))["spec"]["nodeName"] == "n"
