"""Known movers, by the marks of their pods."""

from typing import Any

import pytest

from rescheduler.core.model.pods import parse_pod
from rescheduler.core.replacement.movers import has_mover
from unit.builders import raw_pod


def owned_by(api_version: str, kind: str) -> dict[str, Any]:
    return {"ownerReferences": [{"apiVersion": api_version, "kind": kind, "name": "o", "uid": "o", "controller": True}]}


@pytest.mark.parametrize(
    ("meta", "moved"),
    [
        ({"labels": {"kubevirt.io": "virt-launcher"}}, True),
        (owned_by("kubevirt.io/v1", "VirtualMachineInstance"), True),
        (owned_by("core.strimzi.io/v1beta2", "StrimziPodSet"), True),
        ({"labels": {"paguro.dev/migratable": "true"}}, True),
        ({"annotations": {"descheduler.alpha.kubernetes.io/request-evict-only": ""}}, True),
        ({"labels": {"kubevirt.io": "virt-handler"}}, False),
        ({"labels": {"paguro.dev/migratable": "false"}}, False),
        ({"labels": {"strimzi.io/kind": "Kafka"}, **owned_by("apps/v1", "ReplicaSet")}, False),
        (owned_by("example.com/v1", "StrimziPodSet"), False),
        ({}, False),
    ],
)
def test_pods_of_movers_are_known_by_label_owner_or_annotation(meta: dict[str, Any], moved: bool) -> None:
    raw = raw_pod("p")
    assert has_mover(parse_pod({**raw, "metadata": {**raw["metadata"], **meta}})) is moved
