"""The namespace of the operator."""

from typing import Any

import pytest

from rescheduler.cli.operator_namespace import DEFAULT_NAMESPACE, INSTALLATION_LEASE, read_operator_namespace
from unit.fakes import FakeClusterApi

PATH = f"coordination.k8s.io/v1/{INSTALLATION_LEASE}"


def lease(holder: Any) -> dict[str, Any]:
    return {"metadata": {"name": "rescheduler-installation"}, "spec": {"holderIdentity": holder}}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({PATH: lease("mine")}, "mine"),
        ({PATH: lease("")}, DEFAULT_NAMESPACE),
        ({PATH: lease("../secrets?x=")}, DEFAULT_NAMESPACE),
        ({PATH: lease(3)}, "3"),
        ({PATH: {"spec": None}}, DEFAULT_NAMESPACE),
        ({PATH: 403}, DEFAULT_NAMESPACE),
        ({}, DEFAULT_NAMESPACE),
    ],
)
def test_the_namespace_is_that_of_the_installation_that_acts(answers: dict[str, Any], expected: str) -> None:
    assert read_operator_namespace(FakeClusterApi(answers)) == expected
