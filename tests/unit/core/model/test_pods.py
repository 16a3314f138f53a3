"""Raw pods are parsed into records."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api.untrusted import LATEST_TIME, UnreadableError
from rescheduler.core.model.pods import Owner, parse_pod
from rescheduler.core.model.release_record import ReleaseRecord, clear_patch, release_patch, return_patch
from unit.builders import raw_pod


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
    seen = parse_pod(raw)
    assert seen.owner == Owner("Job", "j", "2")
    assert (seen.is_mirror, seen.has_empty_dir, seen.claims, seen.ready, seen.grace_period_seconds) == (
        True,
        True,
        ("c",),
        True,
        30,
    )
    assert seen.annotations == {"rescheduler.dev/do-not-disrupt": "true"}


def test_scheduling_gates_are_read() -> None:
    raw = raw_pod(schedulingGates=[{"name": "a"}, {}, "b", {"name": "c"}])
    assert parse_pod(raw).scheduling_gates == ("a", "c")


def status(*, phase: str = "Pending", conditions: Any = (), **containers: Any) -> dict[str, Any]:
    """Return the status of a raw pod; `containers`: the state and the last state of one container."""
    names = [{"type": kind, "status": value} for kind, value in dict(conditions).items()]
    return {"phase": phase, "conditions": names, "containerStatuses": [{"name": "c", **containers}]}


def waits(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code}}


RUNS: dict[str, Any] = {"running": {}}
SET_UP = "PodReadyToStartContainers"


@pytest.mark.parametrize(
    ("found", "failure"),
    [
        (status(state=waits("ImagePullBackOff", "no such tag")), "container c waits (ImagePullBackOff): no such tag"),
        (status(state=waits("CreateContainerConfigError")), "container c waits (CreateContainerConfigError)"),
        (status(state=waits("CrashLoopBackOff"), lastState=ended(0)), "container c waits (CrashLoopBackOff)"),
        (status(state=ended(2), phase="Running"), "container c has ended with exit code 2"),
        (status(state=RUNS, lastState=ended(1), phase="Running"), "container c has ended with exit code 1"),
        (status(state=RUNS, lastState=ended(0), phase="Running"), "container c has ended with exit code 0"),
        (status(state=waits("ContainerCreating"), conditions={SET_UP: "False"}), "the kubelet has not set up"),
        (status(state=waits("ContainerCreating"), conditions={SET_UP: "True"}), ""),  # the image is pulled
        (status(state=waits("PodInitializing")), ""),
        (status(state=RUNS, phase="Running"), ""),
        (status(state=RUNS, lastState=ended(1), phase="Running", conditions={"Ready": "True"}), ""),
        ({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": ended(0), "lastState": ended(1)}]}, ""),
        ({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": ended(3)}]}, "container i has ended"),
        ({"phase": "Pending", "containerStatuses": [{"name": "c", "state": {"waiting": "x", "terminated": 3}}]}, ""),
        ({"phase": "Pending"}, ""),
    ],
)
def test_a_start_failure_is_read_from_the_containers(found: dict[str, Any], failure: str) -> None:
    read = parse_pod({**raw_pod(), "status": found}).start_failure
    assert read.startswith(failure)
    assert bool(read) == bool(failure)


def test_a_start_failure_is_short() -> None:
    assert len(parse_pod({**raw_pod(), "status": status(state=waits("x" * 9999, "y" * 9999))}).start_failure) == 1024


RECORD = {
    "cause": "NodeDrain/n1",
    "ready": 3,
    "since": "2026-01-01T00:00:00+00:00",
    "attempt": 1,
    "deployment": "web",
    "deploymentUID": "d",
    "replicaSet": "web-abc",
    "replicaSetUID": "r",
}
DEPLOYMENT = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": True}
REPLICA_SET = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-abc", "uid": "r", "controller": True}


def carrying(record: dict[str, Any], *owners: dict[str, Any], cost: str = "2147483647") -> dict[str, Any]:
    """Return a raw pod with a release record and a deletion cost."""
    annotations = {"rescheduler.dev/move": json.dumps(record), "controller.kubernetes.io/pod-deletion-cost": cost}
    meta = {"namespace": "s", "name": "p", "uid": "u", "ownerReferences": list(owners), "annotations": annotations}
    return {"metadata": meta}


def test_a_released_pod_counts_as_its_replica_sets() -> None:
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "c"}
    seen = parse_pod(carrying(RECORD, DEPLOYMENT, other))
    assert (seen.released, seen.returned, seen.has_foreign_record) == (True, False, False)
    assert seen.owner == Owner("ReplicaSet", "web-abc", "r")
    assert seen.other_owner_references == (other,)
    assert seen.release_record is not None
    assert ReleaseRecord.from_annotation(seen.release_record.to_annotation()) == seen.release_record


def test_a_returned_pod_has_its_record_until_it_is_cleared() -> None:
    seen = parse_pod(carrying(RECORD, REPLICA_SET))
    assert (seen.released, seen.returned, seen.has_foreign_record) == (False, True, False)
    # A return sets the deletion cost in the same patch. Without it, another client wrote the record.
    assert parse_pod(carrying(RECORD, REPLICA_SET, cost="5")).has_foreign_record


@pytest.mark.parametrize(
    "owners",
    [
        (),
        (DEPLOYMENT | {"uid": "other"},),
        (DEPLOYMENT | {"name": "other"},),
        (DEPLOYMENT | {"controller": False},),
        (DEPLOYMENT | {"apiVersion": "example.com/v1"},),
        (DEPLOYMENT | {"kind": "StatefulSet"},),
        (REPLICA_SET | {"uid": "other"},),
        ({"apiVersion": "batch/v1", "kind": "Job", "name": "web", "uid": "d", "controller": True},),
    ],
)
def test_a_record_on_any_other_pod_is_ignored(owners: tuple[dict[str, Any], ...]) -> None:
    seen = parse_pod(carrying(RECORD, *owners))
    assert (seen.release_record, seen.released, seen.has_foreign_record) == (None, False, True)


@pytest.mark.parametrize(
    "changes",
    [
        {"ready": float("inf")},
        {"ready": True},
        {"ready": "3"},
        {"ready": -1},
        {"ready": 10**12},
        {"attempt": []},
        {"since": "2026-01-01T00:00:00"},
        {"since": "9999-12-31T23:59:59+00:00"},
        {"since": "0001-01-01T00:00:00+00:00"},
        {"since": 5},
        {"cost": 5},
        {"cost": "x"},
        {"cost": "9999999999"},
        {"cost": "+1"},
        {"cause": ""},
        {"deployment": None},
        {"deploymentUID": {}},
        {"replicaSet": "x" * 301},
    ],
)
def test_a_record_with_a_value_that_no_release_writes_is_ignored(changes: dict[str, Any]) -> None:
    assert parse_pod(carrying(RECORD | changes, DEPLOYMENT)).has_foreign_record


def test_an_unreadable_move_annotation_is_no_record() -> None:
    for text in ("", "x", "[]", "{}", '{"ready": "x"}', "[" * 60_000, "1e999", "NaN", json.dumps(RECORD) + " " * 5000):
        assert ReleaseRecord.from_annotation(text) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(sorted(RECORD)), inner),
    )
)
def test_any_json_in_the_move_annotation_is_parsed(value: object) -> None:
    assert ReleaseRecord.from_annotation(json.dumps(value)) is None or isinstance(value, dict)


@given(
    st.dictionaries(
        st.sampled_from([*sorted(RECORD), "cost"]),
        st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.datetimes().map(str),
    )
)
def test_a_record_that_is_parsed_can_be_written_again(changes: dict[str, Any]) -> None:
    """A record that is parsed and written again is the same."""
    found = parse_pod(carrying(RECORD | changes, DEPLOYMENT, REPLICA_SET)).release_record
    assert found is None or ReleaseRecord.from_annotation(found.to_annotation()) == found


def test_the_patches_of_a_move_write_the_controller_and_annotations_and_nothing_else() -> None:
    move = ReleaseRecord("NodeDrain/n1", "7", 3, datetime(2026, 1, 1, tzinfo=UTC), 1, "web", "d", "web-abc", "r")
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "c"}
    identity = {"uid": "u", "resourceVersion": "5"}
    assert release_patch("u", "5", (other,), move) == {
        "metadata": identity
        | {"annotations": {"rescheduler.dev/move": move.to_annotation()}, "ownerReferences": [other, DEPLOYMENT]}
    }
    cost = "controller.kubernetes.io/pod-deletion-cost"
    assert return_patch("u", "5", (other,), move) == {
        "metadata": identity | {"annotations": {cost: "2147483647"}, "ownerReferences": [other, REPLICA_SET]}
    }
    assert clear_patch("u", "5", move) == {
        "metadata": identity | {"annotations": {"rescheduler.dev/move": None, cost: "7"}}
    }


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
def test_a_pod_that_names_a_single_node_is_pinned(spec: dict[str, Any], pinned: bool) -> None:
    raw = {"metadata": {"namespace": "s", "name": "p", "uid": "u"}, "spec": spec}
    assert parse_pod(raw).pinned_to_node is pinned


def test_texts_of_an_owner_fit_into_a_status_and_different_uids_stay_different() -> None:
    def owner(last: str) -> Owner:
        long = "x" * 1000 + last
        reference = {"apiVersion": "g/v1", "kind": long, "name": long, "uid": long, "controller": True}
        found = parse_pod(
            {"metadata": {"namespace": "s", "name": "p", "uid": "u", "ownerReferences": [reference]}}
        ).owner
        assert found is not None
        return found

    one, other = owner("1"), owner("2")
    assert (len(one.kind), len(one.name), len(one.uid)) == (317, 253, 253)
    assert one.uid != other.uid


def test_an_owner_of_another_group_is_another_kind() -> None:
    """An OpenKruise StatefulSet or a Volcano Job only shares the name of the built-in kind."""
    for version, kind in (("apps/v1", "StatefulSet"), ("apps.kruise.io/v1beta1", "StatefulSet.apps.kruise.io")):
        owner = {"apiVersion": version, "kind": "StatefulSet", "name": "db", "uid": "o", "controller": True}
        seen = parse_pod({"metadata": {"namespace": "s", "name": "p", "uid": "u", "ownerReferences": [owner]}})
        assert seen.owner == Owner(kind, "db", "o")


def test_an_inline_disk_is_recognised() -> None:
    meta = {"namespace": "s", "name": "p", "uid": "u"}
    assert parse_pod({"metadata": meta, "spec": {"volumes": [{"iscsi": {}}]}}).has_inline_disk
    assert not parse_pod(
        {"metadata": meta, "spec": {"volumes": [{"nfs": {}}, {"configMap": {}}, {"csi": {}}]}}
    ).has_inline_disk


META = {"namespace": "s", "name": "p", "uid": "u"}


@pytest.mark.parametrize(
    ("grace", "seconds"), [(2**63 - 1, 100_000_000), (-(2**63), 0), (0, 0), (300, 300), ("5", 30), (None, 30)]
)
def test_a_grace_period_is_one_that_can_be_added_to_a_time(grace: object, seconds: int) -> None:
    assert (
        parse_pod({"metadata": META, "spec": {"terminationGracePeriodSeconds": grace}}).grace_period_seconds == seconds
    )


@pytest.mark.parametrize("when", ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "soon", 5, None])
def test_an_unreadable_deletion_time_means_terminating_never_overdue(when: object) -> None:
    assert parse_pod({"metadata": META | {"deletionTimestamp": when}}).deletion_timestamp == LATEST_TIME


def test_only_known_annotations_are_kept_and_long_ones_are_cut() -> None:
    found = {"rescheduler.dev/replacement": "x" * 200_000, "rescheduler.dev/other": "y", "rescheduler.dev.evil/z": "z"}
    kept = parse_pod({"metadata": META | {"annotations": found}}).annotations
    assert kept == {"rescheduler.dev/replacement": "x" * 1023 + "…"}


def test_a_pod_without_a_uid_is_refused_with_the_field() -> None:
    with pytest.raises(UnreadableError, match=r"metadata\.uid"):
        parse_pod({"metadata": {"namespace": "s", "name": "p"}})


def test_a_pod_without_priority_has_priority_zero() -> None:
    raw = {"metadata": {"namespace": "s", "name": "p", "uid": "u"}, "spec": {"priority": None}}
    assert parse_pod(raw).priority == 0


@pytest.mark.parametrize(
    ("condition", "evicted", "disruption"),
    [
        ({"status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}, True, None),
        ({"status": "True", "reason": "DeletionByPodGC"}, False, "DeletionByPodGC"),
        ({"status": "False", "reason": "EvictionByEvictionAPI", "message": "over"}, False, ""),
    ],
)
def test_disruption_is_read_only_while_its_condition_is_true(
    condition: dict[str, str], evicted: bool, disruption: str | None
) -> None:
    raw = {
        "metadata": {"namespace": "s", "name": "p", "uid": "p"},
        "spec": {},
        "status": {"conditions": [{"type": "DisruptionTarget", **condition}]},
    }
    seen = parse_pod(raw)
    expected = "EvictionByEvictionAPI: Eviction API: evicting" if disruption is None else disruption
    assert (seen.evicted, seen.disruption) == (evicted, expected)
