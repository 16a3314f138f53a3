"""Raw pods become records."""

from typing import Any

import pytest

from rescheduler.api.untrusted import LATEST, UnreadableError
from rescheduler.core.moves import Move
from rescheduler.core.pods import Owner, pod


def test_a_raw_pod_is_projected() -> None:
    raw = {
        "metadata": {
            "namespace": "s",
            "name": "p",
            "uid": "u",
            "ownerReferences": [
                {"kind": "X", "name": "x", "uid": "1"},
                {"kind": "Job", "name": "j", "uid": "2", "controller": True},
            ],
            "annotations": {"kubernetes.io/config.mirror": "m", "rescheduler.dev/do-not-disrupt": "true", "big": "x"},
        },
        "spec": {"nodeName": "n", "volumes": [{"emptyDir": {}}, {"persistentVolumeClaim": {"claimName": "c"}}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    seen = pod(raw)
    assert seen.owner == Owner("Job", "j", "2")
    assert (seen.mirror, seen.empty_dir, seen.claims, seen.ready, seen.grace) == (True, True, ("c",), True, 30)
    assert seen.annotations == {"rescheduler.dev/do-not-disrupt": "true"}


def test_a_released_pod_counts_as_its_replica_sets() -> None:
    raw = {
        "metadata": {
            "namespace": "s",
            "name": "p",
            "uid": "u",
            "labels": {"pod-template-hash": "rescheduler-released"},
            "annotations": {
                "rescheduler.dev/move": '{"cause":"NodeDrain/n1","hash":"abc","ready":3,"since":"2026-01-01T00:00:00+00:00",'
                '"attempt":1,"deployment":"web","deploymentUID":"d","replicaSet":"web-abc","replicaSetUID":"r"}'
            },
        },
    }
    seen = pod(raw)
    assert seen.released
    assert seen.owner == Owner("ReplicaSet", "web-abc", "r")
    assert seen.move is not None
    assert Move.read(seen.move.text()) == seen.move


def test_nonsense_in_the_move_annotation_is_none_of_ours() -> None:
    for text in ("", "x", "[]", "{}", '{"ready": "x"}'):
        assert Move.read(text) is None


def _asking(*terms: dict[str, Any]) -> dict[str, Any]:
    return {
        "affinity": {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
        }
    }


def _in(key: str, *values: str, kind: str = "matchExpressions") -> dict[str, Any]:
    return {kind: [{"key": key, "operator": "In", "values": list(values)}]}


@pytest.mark.parametrize(
    ("spec", "pinned"),
    [
        ({}, False),
        ({"nodeSelector": {"kubernetes.io/hostname": "n1"}}, True),
        ({"nodeSelector": {"disk": "ssd"}}, False),
        (_asking(_in("kubernetes.io/hostname", "n1")), True),
        (_asking(_in("metadata.name", "n1", kind="matchFields")), True),
        (_asking(_in("kubernetes.io/hostname", "n1", "n2")), False),
        (_asking(_in("kubernetes.io/hostname", "n1"), _in("kubernetes.io/hostname", "n2")), False),
        (_asking(_in("kubernetes.io/hostname", "n1"), _in("zone", "a")), False),
        (_asking(_in("zone", "a")), False),
    ],
)
def test_a_pod_that_one_node_alone_can_run_is_pinned(spec: dict[str, Any], pinned: bool) -> None:
    raw = {"metadata": {"namespace": "s", "name": "p", "uid": "u"}, "spec": spec}
    assert pod(raw).pinned is pinned


def test_an_owner_of_another_group_is_another_kind() -> None:
    """An OpenKruise StatefulSet or a Volcano Job only shares its name with Kubernetes' own."""
    for version, kind in (("apps/v1", "StatefulSet"), ("apps.kruise.io/v1beta1", "StatefulSet.apps.kruise.io")):
        owner = {"apiVersion": version, "kind": "StatefulSet", "name": "db", "uid": "o", "controller": True}
        seen = pod({"metadata": {"namespace": "s", "name": "p", "uid": "u", "ownerReferences": [owner]}})
        assert seen.owner == Owner(kind, "db", "o")


def test_a_disk_that_the_pod_names_itself_is_seen() -> None:
    meta = {"namespace": "s", "name": "p", "uid": "u"}
    assert pod({"metadata": meta, "spec": {"volumes": [{"iscsi": {}}]}}).disk
    assert not pod({"metadata": meta, "spec": {"volumes": [{"nfs": {}}, {"configMap": {}}, {"csi": {}}]}}).disk


META = {"namespace": "s", "name": "p", "uid": "u"}


@pytest.mark.parametrize(
    ("grace", "seconds"), [(2**63 - 1, 100_000_000), (-(2**63), 0), (0, 0), (300, 300), ("5", 30), (None, 30)]
)
def test_a_grace_period_is_one_that_can_be_added_to_a_time(grace: object, seconds: int) -> None:
    assert pod({"metadata": META, "spec": {"terminationGracePeriodSeconds": grace}}).grace == seconds


@pytest.mark.parametrize("when", ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "soon", 5, None])
def test_a_pod_with_any_time_of_deletion_is_terminating_and_never_overdue(when: object) -> None:
    assert pod({"metadata": META | {"deletionTimestamp": when}}).deleting == LATEST


def test_only_annotations_that_are_read_are_kept_and_none_at_length() -> None:
    found = {"rescheduler.dev/replacement": "x" * 200_000, "rescheduler.dev/other": "y", "rescheduler.dev.evil/z": "z"}
    kept = pod({"metadata": META | {"annotations": found}}).annotations
    assert kept == {"rescheduler.dev/replacement": "x" * 1023 + "…"}


def test_a_pod_without_a_uid_is_refused_with_the_field() -> None:
    with pytest.raises(UnreadableError, match=r"metadata\.uid"):
        pod({"metadata": {"namespace": "s", "name": "p"}})


def test_a_pod_without_priority_is_as_any_other() -> None:
    raw = {"metadata": {"namespace": "s", "name": "p", "uid": "u"}, "spec": {"priority": None}}
    assert pod(raw).priority == 0
