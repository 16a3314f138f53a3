"""Owners of pods: the fields that a move uses."""

from typing import Any

import pytest

from rescheduler.core.model.workloads import parse_replica_set, replaces_terminating_pods
from unit.builders import raw_replica_set


@pytest.mark.parametrize(
    ("spec", "at_once"),
    [
        ({"podReplacementPolicy": "TerminatingOrFailed"}, True),
        ({"podReplacementPolicy": "Failed"}, False),
        ({}, True),
        ({"podFailurePolicy": {"rules": []}}, False),
        ({"podReplacementPolicy": "TerminatingOrFailed", "managedBy": "kubernetes.io/job-controller"}, True),
        ({"podReplacementPolicy": "TerminatingOrFailed", "managedBy": "kueue.x-k8s.io/multikueue"}, False),
    ],
)
def test_a_job_may_replace_terminating_pods(spec: dict[str, Any], at_once: bool) -> None:
    assert replaces_terminating_pods({"spec": spec}) is at_once


def test_template_of_a_replica_set_is_kept_without_what_no_plan_reads() -> None:
    container = {"name": "c", "image": "i", "env": [{"name": "A"}], "resources": {"requests": {"cpu": "1"}}}
    template = {"metadata": {"labels": {"app": "a"}, "annotations": {"a": "b"}}, "spec": {"containers": [container]}}
    raw = raw_replica_set()
    found = parse_replica_set({**raw, "spec": {**raw["spec"], "template": template}}).template
    kept = {"name": "c", "resources": {"requests": {"cpu": "1"}}}
    assert found == {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [kept], "initContainers": []}}


def test_template_of_an_old_replica_set_is_not_kept() -> None:
    assert parse_replica_set(raw_replica_set(replicas=0)).template is None
