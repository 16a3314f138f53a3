"""Nodes that can access a volume."""

from collections import Counter
from typing import Any

import pytest

from rescheduler.core.model.nodes import Node
from rescheduler.core.model.volume_topology import ClusterVolumes, VolumeTopology, parse_volume_topology

ZONE, OLD = "topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"


def volume(labels: dict[str, str] | None = None, *zones: str, **spec: Any) -> VolumeTopology:
    term = {"matchExpressions": [{"key": ZONE, "operator": "In", "values": list(zones)}]}
    affinity = {"nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}} if zones else {}
    return parse_volume_topology({"metadata": {"name": "v", "labels": labels or {}}, "spec": {**affinity, **spec}})


@pytest.mark.parametrize(
    ("found", "labels", "reached"),
    [
        (volume(), {}, True),
        (volume(None, "a", "b"), {ZONE: "a"}, True),
        (volume(None, "a"), {ZONE: "b"}, False),
        (volume(None, "a"), {}, False),
        (volume({ZONE: "a"}), {ZONE: "a"}, True),
        (volume({ZONE: "a__b"}), {ZONE: "b"}, True),
        (volume({ZONE: "a"}), {ZONE: "b"}, False),
        (volume({ZONE: "a"}), {}, True),  # a cluster without zones
        (volume({OLD: "a"}), {ZONE: "a"}, True),
        (volume({OLD: "a"}), {ZONE: "b"}, False),
    ],
)
def test_a_volume_is_accessible_from_its_zones(found: VolumeTopology, labels: dict[str, str], reached: bool) -> None:
    assert found.is_accessible_from(Node("n", "n", labels=labels)) is reached


def test_an_unbound_claim_is_left_to_the_scheduler() -> None:
    storage = ClusterVolumes({("shop", "data"): "v", ("shop", "new"): ""}, {"v": volume()})
    assert storage.topologies_of("shop", ["data"]) == (frozenset({volume()}), None)
    for name in ("new", "unknown"):
        assert name in str(storage.topologies_of("shop", ["data", name])[1])


def test_a_node_may_exceed_its_attach_limit() -> None:
    found = volume(csi={"driver": "disk"})
    storage = ClusterVolumes(free_attachments={"n1": {"disk": 3, "other": 0}})
    assert not storage.exceeds_attach_limit([found], "n1", Counter(disk=3))
    assert storage.exceeds_attach_limit([found], "n1", Counter(disk=4))
    assert not storage.exceeds_attach_limit([found], "n2", Counter(disk=4))
