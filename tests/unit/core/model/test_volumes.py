"""Volumes: what ties a pod to its node, and what has to be detached."""

from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import Drain
from rescheduler.core.eviction.pod_actions import Circumstances, judge
from rescheduler.core.model.pods import Owner, Pod
from rescheduler.core.model.volumes import Attachment, Claim, Volume, Volumes, attachment, claim, volume
from unit.core.eviction.test_pod_actions import NOW


def pod(name: str, *claims: str, **more: object) -> Pod:
    base: dict[str, object] = {"namespace": "s", "name": name, "uid": name, "owner": Owner("StatefulSet", "db", "o")}
    return Pod(**(base | {"claims": claims} | more))  # type: ignore[arg-type]


AROUND = Volumes(
    {
        ("s", "data"): Claim("s", "data", "v1", exclusive=True),
        ("s", "shared"): Claim("s", "shared", "v2"),
        ("s", "disk"): Claim("s", "disk", "v3", exclusive=True),
        ("s", "pending"): Claim("s", "pending"),
        ("s", "p-scratch"): Claim("s", "p-scratch", "v4", exclusive=True),
    },
    frozenset({"v3"}),
    frozenset({"v1", "v2", "v4"}),
)


def test_raw_objects_are_projected() -> None:
    raw = {
        "metadata": {"namespace": "s", "name": "c"},
        "spec": {"volumeName": "v", "accessModes": ["ReadWriteOncePod"]},
    }
    assert claim(raw) == Claim("s", "c", "v", exclusive=True)
    hostname = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]}]}
    pinned = {"nodeAffinity": {"required": {"nodeSelectorTerms": [hostname]}}}
    zone = {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]}
    zonal = {"nodeAffinity": {"required": {"nodeSelectorTerms": [zone]}}}
    for spec, local in (({"local": {}}, True), ({"hostPath": {}}, True), (pinned, True), (zonal, False), ({}, False)):
        assert volume({"metadata": {"name": "v"}, "spec": spec}) == Volume("v", local)
    raw = {"spec": {"nodeName": "n", "source": {"persistentVolumeName": "v"}}}
    assert attachment(raw) == Attachment("n", "v")


def test_a_local_volume_blocks_and_no_deadline_overrides_it() -> None:
    verdict = judge(pod("p", "disk"), Drain(), Circumstances(NOW, volumes=AROUND))
    assert verdict.cause is BlockerClass.LOCAL_VOLUME
    assert judge(pod("p", "data"), Drain(), Circumstances(NOW, volumes=AROUND)).cause is None


def test_only_exclusive_volumes_that_move_along_are_one_by_one() -> None:
    assert AROUND.one_by_one(pod("p", "data"))
    assert not AROUND.one_by_one(pod("p", "shared"))
    assert not AROUND.one_by_one(pod("p", "pending"))
    assert not AROUND.one_by_one(pod("p", ephemeral=("p-scratch",)))


def test_what_no_pod_here_uses_any_more_has_to_be_detached() -> None:
    assert AROUND.detaching([pod("p", "data"), pod("q", "shared"), pod("r", ephemeral=("p-scratch",))]) == frozenset()
    assert AROUND.detaching([pod("q", "shared")]) == {"v1", "v4"}
    assert AROUND.detaching([pod("p", "data", phase="Succeeded")]) == {"v1", "v2", "v4"}


def test_exclusive_is_what_a_successor_needs_too() -> None:
    assert AROUND.exclusive(pod("a", "data"))
    assert AROUND.exclusive(pod("a", "shared", "pending", "data"))
    assert AROUND.exclusive(pod("a", "nobody-knows"))
    assert AROUND.exclusive(pod("a", disk=True))
    assert not AROUND.exclusive(pod("a", "shared", ephemeral=("p-scratch",)))
    assert not AROUND.exclusive(pod("a"))
