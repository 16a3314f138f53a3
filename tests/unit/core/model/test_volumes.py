"""Volumes with data on one node, and volumes that a node must detach."""

from dataclasses import replace
from typing import Any

import pytest

from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import DrainSettings
from rescheduler.core.eviction.pod_actions import EvictionContext, decide_action
from rescheduler.core.model.pods import Owner, Pod
from rescheduler.core.model.volumes import (
    NodeVolumes,
    Volume,
    VolumeAttachment,
    VolumeClaim,
    parse_volume,
    parse_volume_attachment,
    parse_volume_claim,
)
from unit.builders import NOW, pod


def pod_with_claims(name: str, *claims: str, **fields: Any) -> Pod:
    """Return a pod of a StatefulSet with these claims."""
    return pod(name, **{"owner": Owner("StatefulSet", "db", "o"), "claims": claims, **fields})


AROUND = NodeVolumes(
    {
        ("s", "data"): VolumeClaim("s", "data", "v1", single_node=True),
        ("s", "shared"): VolumeClaim("s", "shared", "v2"),
        ("s", "disk"): VolumeClaim("s", "disk", "v3", single_node=True),
        ("s", "pending"): VolumeClaim("s", "pending"),
        ("s", "p-scratch"): VolumeClaim("s", "p-scratch", "v4", single_node=True),
    },
    frozenset({"v3"}),
    frozenset({"v1", "v2", "v4"}),
)


def test_raw_objects_are_projected() -> None:
    raw = {
        "metadata": {"namespace": "s", "name": "c"},
        "spec": {"volumeName": "v", "accessModes": ["ReadWriteOncePod"]},
    }
    assert parse_volume_claim(raw) == VolumeClaim("s", "c", "v", single_node=True)
    hostname = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]}]}
    pinned = {"nodeAffinity": {"required": {"nodeSelectorTerms": [hostname]}}}
    zone = {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]}
    zonal = {"nodeAffinity": {"required": {"nodeSelectorTerms": [zone]}}}
    for spec, local in (({"local": {}}, True), ({"hostPath": {}}, True), (pinned, True), (zonal, False), ({}, False)):
        assert parse_volume({"metadata": {"name": "v"}, "spec": spec}) == Volume("v", local)
    raw = {"spec": {"nodeName": "n", "source": {"persistentVolumeName": "v"}}}
    assert parse_volume_attachment(raw) == VolumeAttachment("n", "v")


def test_a_local_volume_blocks_and_no_deadline_overrides_it() -> None:
    verdict = decide_action(pod_with_claims("p", "disk"), DrainSettings(), EvictionContext(NOW, volumes=AROUND))
    assert verdict.blocker_class is BlockerClass.LOCAL_VOLUME
    assert (
        decide_action(pod_with_claims("p", "data"), DrainSettings(), EvictionContext(NOW, volumes=AROUND)).blocker_class
        is None
    )


def test_only_attached_single_node_volumes_must_be_detached() -> None:
    assert AROUND.has_volume_to_detach(pod_with_claims("p", "data"))
    assert not AROUND.has_volume_to_detach(pod_with_claims("p", "shared"))
    assert not AROUND.has_volume_to_detach(pod_with_claims("p", "pending"))
    assert not AROUND.has_volume_to_detach(pod_with_claims("p", ephemeral_claims=("p-scratch",)))


def test_volumes_that_no_pod_uses_await_detach() -> None:
    assert (
        AROUND.awaiting_detach(
            [
                pod_with_claims("p", "data"),
                pod_with_claims("q", "shared"),
                pod_with_claims("r", ephemeral_claims=("p-scratch",)),
            ]
        )
        == frozenset()
    )
    assert AROUND.awaiting_detach([pod_with_claims("q", "shared")]) == {"v1", "v4"}
    assert AROUND.awaiting_detach([pod_with_claims("p", "data", phase="Succeeded")]) == {"v1", "v2", "v4"}


def test_a_single_node_volume_counts_if_the_successor_needs_it() -> None:
    assert AROUND.has_single_node_volume(pod_with_claims("a", "data"))
    assert AROUND.has_single_node_volume(pod_with_claims("a", "shared", "pending", "data"))
    assert AROUND.has_single_node_volume(pod_with_claims("a", "nobody-knows"))
    assert AROUND.has_single_node_volume(pod_with_claims("a", has_inline_disk=True))
    assert not AROUND.has_single_node_volume(pod_with_claims("a", "shared", ephemeral_claims=("p-scratch",)))
    assert not AROUND.has_single_node_volume(pod_with_claims("a"))


def _term(key: str, *values: str, operator: str = "In") -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("terms", "local"),
    [
        ([_term("kubernetes.io/hostname", "host-of-n")], True),
        ([_term("topology.topolvm.io/node", "n")], True),
        ([_term("topology.topolvm.io/node", "other")], False),
        ([_term("kubernetes.io/hostname", "n", "m")], False),
        ([_term("kubernetes.io/hostname", "n"), _term("kubernetes.io/hostname", "m")], False),
        ([_term("kubernetes.io/hostname", "n", operator="NotIn")], False),
        ([_term("topology.kubernetes.io/zone", "a")], False),
        ([], False),
    ],
)
def test_a_volume_is_local_if_its_terms_name_a_single_node(terms: list[dict[str, Any]], local: bool) -> None:
    """A replicated volume names several nodes. A driver for disks of a node has a label of its own."""
    spec = {"csi": {"driver": "d"}, "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}
    assert parse_volume({"metadata": {"name": "v"}, "spec": spec}).is_local_to(["n"]) is local


def test_a_successor_needs_the_local_volume_of_a_claim_and_not_of_an_ephemeral_claim() -> None:
    volumes = replace(AROUND, local_volumes=frozenset({"v3", "v4"}))
    assert volumes.needs_local_volume(pod_with_claims("p", "data", "disk"))
    assert not volumes.needs_local_volume(pod_with_claims("p", "data", ephemeral_claims=("p-scratch",)))
    assert not volumes.needs_local_volume(pod_with_claims("p", "nobody-knows"))
