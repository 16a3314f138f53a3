"""Owners of pods: the fields that a move uses."""

from typing import Any

import pytest

from rescheduler.core.model.workloads import replaces_terminating_pods


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
