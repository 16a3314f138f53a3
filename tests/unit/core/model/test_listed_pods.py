"""Pods of a list, and what decisions about many pods read of them."""

from typing import Any

import pytest

from rescheduler.api import names
from rescheduler.api.untrusted import UnreadableError
from rescheduler.core.model.listed_pods import ListedPod, parse_listed_pod
from unit.builders import NOW, raw_pod, release_record


def listed_pod(**fields: Any) -> ListedPod:
    return parse_listed_pod(raw_pod(**fields))


def owned_by(kind: str, uid: str, **metadata: Any) -> ListedPod:
    raw = raw_pod()
    owner = {"apiVersion": "apps/v1", "kind": kind, "name": "web", "uid": uid, "controller": True}
    raw["metadata"].update({"ownerReferences": [owner], **metadata})
    return parse_listed_pod(raw)


def test_pod_without_optional_fields_is_read() -> None:
    pod = parse_listed_pod({"metadata": {"namespace": "s", "name": "p"}})
    assert (pod.key, pod.uid, pod.node, pod.controller_kind, pod.labels) == ("s/p", "", "", None, {})
    assert not any((pod.finished, pod.terminating, pod.is_mirror, pod.released))
    assert (pod.owner_uid, pod.created, pod.claims, pod.allocated) == ("", None, (), {})


def test_pod_without_a_namespace_is_unreadable() -> None:
    with pytest.raises(UnreadableError):
        parse_listed_pod({"metadata": {"name": "p"}})


def test_pods_that_need_no_place_again_are_known() -> None:
    assert parse_listed_pod(raw_pod(phase="Succeeded")).finished
    assert parse_listed_pod(raw_pod(phase="Failed")).finished
    assert owned_by("Node", "n", deletionTimestamp=NOW.isoformat()).terminating
    assert owned_by("Node", "n", annotations={names.MIRROR_POD: "x"}).is_mirror


def test_owner_is_the_controller_or_the_pod_itself() -> None:
    assert (owned_by("ReplicaSet", "r").owner_uid, owned_by("ReplicaSet", "r").controller_kind) == ("r", "ReplicaSet")
    assert listed_pod(name="p").owner_uid == "p"


def test_owner_of_a_released_pod_is_its_replica_set() -> None:
    pod = owned_by("Deployment", "web", annotations={names.MOVE: release_record().to_annotation()})
    assert (pod.released, pod.owner_uid) == (True, "web-a")


def test_time_of_creation_is_read() -> None:
    assert owned_by("ReplicaSet", "r", creationTimestamp=NOW.isoformat()).created == NOW


@pytest.mark.parametrize(
    ("selector", "namespace", "key", "off"),
    [
        ({"matchLabels": {"app": "web"}}, "shop", "kubernetes.io/hostname", True),
        ({"matchLabels": {"app": "db"}}, "shop", "kubernetes.io/hostname", False),
        ({"matchLabels": {"app": "web"}}, "other", "kubernetes.io/hostname", False),
        ({"matchLabels": {"app": "web"}}, "shop", "topology.kubernetes.io/zone", False),
        ({}, "shop", "kubernetes.io/hostname", True),
        (None, "shop", "kubernetes.io/hostname", False),
    ],
)
def test_anti_affinity_by_hostname_keeps_pods_apart(
    selector: dict[str, Any] | None, namespace: str, key: str, off: bool
) -> None:
    wants = {"topologyKey": key, "labelSelector": selector}
    rule = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [wants]}}
    other = raw_pod(namespace=namespace, labels={"app": "web"})
    assert listed_pod(namespace="shop", affinity=rule).has_anti_affinity_to(parse_listed_pod(other)) is off
