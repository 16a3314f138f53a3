"""Find the second copy of a pod that was removed from a node whose boot came back."""

from datetime import timedelta
from typing import Any

import pytest

from rescheduler.core.failure.duplicate_pods import list_params, running_duplicate
from rescheduler.core.model.pods import Owner, Pod
from unit.builders import NOW, pod

JOB = {"batch.kubernetes.io/controller-uid": "j", "batch.kubernetes.io/job-completion-index": "3", "app": "x"}


def copy_of_pod(uid: str, name: str = "db-0", node: str = "n2", kind: str = "StatefulSet", **fields: Any) -> Pod:
    """Return a pod on this node; pods of one name with several UIDs run twice."""
    return pod(name, **{"uid": uid, "node": node, "owner": Owner(kind, "o", "o"), "created": NOW, **fields})


@pytest.mark.parametrize(
    ("old", "query"),
    [
        (copy_of_pod("a"), {"fieldSelector": "metadata.name=db-0"}),
        (copy_of_pod("a", kind="Job", labels={}), {"fieldSelector": "metadata.name=db-0"}),
        (
            copy_of_pod("a", kind="Job", labels=JOB),
            {
                "labelSelector": "batch.kubernetes.io/controller-uid=j,batch.kubernetes.io/job-completion-index=3",
            },
        ),
        (
            copy_of_pod("a", kind="ReplicaSet", labels={"pod-template-hash": "abc", "app": "x"}),
            {"labelSelector": "pod-template-hash=abc"},
        ),
    ],
)
def test_list_selects_few_other_pods(old: Pod, query: dict[str, str]) -> None:
    assert list_params(old) == query


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (copy_of_pod("b"), True),
        (copy_of_pod("a"), False),  # itself
        (copy_of_pod("b", node="n1"), False),
        (copy_of_pod("b", node=""), False),
        (copy_of_pod("b", phase="Pending"), False),
        (copy_of_pod("b", deletion_timestamp=NOW), False),
        (copy_of_pod("b", name="web-xyz"), True),  # of the same owner, and later
        (copy_of_pod("b", name="web-xyz", created=NOW - timedelta(days=1)), False),
        (copy_of_pod("b", name="web-xyz", kind="Job"), False),
    ],
)
def test_running_duplicate_is_found(other: Pod, found: bool) -> None:
    old = copy_of_pod("a", node="n1")
    assert running_duplicate(old, [other]) == (other if found else None)
