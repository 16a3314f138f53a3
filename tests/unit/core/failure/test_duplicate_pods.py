"""Find the second copy of a pod that was removed from a node whose boot came back."""

from datetime import timedelta

import pytest

from rescheduler.core.failure.duplicate_pods import list_params, running_duplicate
from rescheduler.core.model.pods import Owner, Pod
from unit.builders import NOW

JOB = {"batch.kubernetes.io/controller-uid": "j", "batch.kubernetes.io/job-completion-index": "3", "app": "x"}


def pod(uid: str, name: str = "db-0", node: str = "n2", kind: str = "StatefulSet", **more: object) -> Pod:
    base: dict[str, object] = {"owner": Owner(kind, "o", "o"), "created": NOW}
    return Pod("s", name, uid, node, **(base | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "query"),
    [
        (pod("a"), {"fieldSelector": "metadata.name=db-0"}),
        (pod("a", kind="Job", labels={}), {"fieldSelector": "metadata.name=db-0"}),
        (
            pod("a", kind="Job", labels=JOB),
            {
                "labelSelector": "batch.kubernetes.io/controller-uid=j,batch.kubernetes.io/job-completion-index=3",
            },
        ),
        (
            pod("a", kind="ReplicaSet", labels={"pod-template-hash": "abc", "app": "x"}),
            {"labelSelector": "pod-template-hash=abc"},
        ),
    ],
)
def test_list_selects_few_other_pods(old: Pod, query: dict[str, str]) -> None:
    assert list_params(old) == query


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (pod("b"), True),
        (pod("a"), False),  # itself
        (pod("b", node="n1"), False),
        (pod("b", node=""), False),
        (pod("b", phase="Pending"), False),
        (pod("b", deletion_timestamp=NOW), False),
        (pod("b", name="web-xyz"), True),  # of the same owner, and later
        (pod("b", name="web-xyz", created=NOW - timedelta(days=1)), False),
        (pod("b", name="web-xyz", kind="Job"), False),
    ],
)
def test_running_duplicate_is_found(other: Pod, found: bool) -> None:
    old = pod("a", node="n1")
    assert running_duplicate(old, [other]) == (other if found else None)
