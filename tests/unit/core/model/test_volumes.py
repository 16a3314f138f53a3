"""Volumes with data on one node, and volumes that a node must detach."""

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
from unit.builders import NOW


def pod(name: str, *claims: str, **more: object) -> Pod:
    base: dict[str, object] = {"namespace": "s", "name": name, "uid": name, "owner": Owner("StatefulSet", "db", "o")}
    return Pod(**(base | {"claims": claims} | more))  # type: ignore[arg-type]


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
    verdict = decide_action(pod("p", "disk"), DrainSettings(), EvictionContext(NOW, volumes=AROUND))
    assert verdict.blocker_class is BlockerClass.LOCAL_VOLUME
    assert decide_action(pod("p", "data"), DrainSettings(), EvictionContext(NOW, volumes=AROUND)).blocker_class is None


def test_only_attached_single_node_volumes_must_be_detached() -> None:
    assert AROUND.has_volume_to_detach(pod("p", "data"))
    assert not AROUND.has_volume_to_detach(pod("p", "shared"))
    assert not AROUND.has_volume_to_detach(pod("p", "pending"))
    assert not AROUND.has_volume_to_detach(pod("p", ephemeral_claims=("p-scratch",)))


def test_volumes_that_no_pod_uses_await_detach() -> None:
    assert (
        AROUND.awaiting_detach([pod("p", "data"), pod("q", "shared"), pod("r", ephemeral_claims=("p-scratch",))])
        == frozenset()
    )
    assert AROUND.awaiting_detach([pod("q", "shared")]) == {"v1", "v4"}
    assert AROUND.awaiting_detach([pod("p", "data", phase="Succeeded")]) == {"v1", "v2", "v4"}


def test_a_single_node_volume_counts_if_the_successor_needs_it() -> None:
    assert AROUND.has_single_node_volume(pod("a", "data"))
    assert AROUND.has_single_node_volume(pod("a", "shared", "pending", "data"))
    assert AROUND.has_single_node_volume(pod("a", "nobody-knows"))
    assert AROUND.has_single_node_volume(pod("a", has_inline_disk=True))
    assert not AROUND.has_single_node_volume(pod("a", "shared", ephemeral_claims=("p-scratch",)))
    assert not AROUND.has_single_node_volume(pod("a"))
