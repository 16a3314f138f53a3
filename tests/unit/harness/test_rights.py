"""Rights of the chart that an audit log shows in use."""

import json
from typing import Any

import pytest

from harness.rights import ACCOUNTS, Right, granted, used


def event(
    verb: str,
    resource: str,
    *,
    user: str = ACCOUNTS[0],
    decision: str = "allow",
    agent: str = "rescheduler",
    **where: str,
) -> str:
    found: dict[str, Any] = {"verb": verb, "user": {"username": user}, "userAgent": agent}
    found["annotations"] = {"authorization.k8s.io/decision": decision}
    return json.dumps(found | {"objectRef": {"resource": resource, **where}})


def test_rights_are_read_from_all_roles_each_by_itself() -> None:
    rule = {"apiGroups": ["a", "b"], "resources": ["x"], "verbs": ["get"], "resourceNames": ["n"]}
    role = {"kind": "Role", "metadata": {"namespace": "s"}, "rules": [rule]}
    found = granted([role, {"kind": "Service", "metadata": {}}])
    assert found == {Right("a", "x", "get", "s", "n"), Right("b", "x", "get", "s", "n")}


def test_requests_of_the_program_that_were_authorized_count() -> None:
    lines = [
        event("create", "pods", subresource="eviction", namespace="s", name="p"),
        event("get", "leases", apiGroup="coordination.k8s.io", user=ACCOUNTS[1]),
        event("get", "secrets", decision="forbid"),
        event("get", "secrets", user="somebody"),
        event("get", "secrets", agent="kubectl/v1.37"),
        event("watch", "nodes", agent="kopf/1.45"),
        event("get", "secrets", user="somebody", name=ACCOUNTS[0]),
        event("get", "secrets")[:-9],
        json.dumps({"verb": "get", "user": {"username": ACCOUNTS[0]}, "requestURI": "/apis"}),
    ]
    assert used(lines) == {
        Right("", "pods/eviction", "create", "s", "p"),
        Right("", "nodes", "watch"),
        Right("coordination.k8s.io", "leases", "get"),
    }


@pytest.mark.parametrize(
    ("right", "covers"),
    [
        (Right("g", "x", "get"), True),
        (Right("g", "x", "get", "s"), True),
        (Right("g", "x", "get", "s", "n"), True),
        (Right("g", "x", "get", "other"), False),
        (Right("g", "x", "get", "", "other"), False),
        (Right("g", "x", "list"), False),
        (Right("g", "x/status", "get"), False),
        (Right("", "x", "get"), False),
    ],
)
def test_a_right_is_in_use_if_a_request_needed_it(right: Right, *, covers: bool) -> None:
    assert right.covers(Right("g", "x", "get", "s", "n")) is covers
