"""The watched workloads: which lists are needed, which pods belong to an owner, and who hears of a change."""

from collections.abc import Iterable

import pytest

from rescheduler.controllers.evacuation.workload_watch import ReplicaSetIndex, WorkloadWatch
from rescheduler.core.model.pods import Owner, Pod, parse_pod
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.workloads import Workload
from unit.builders import pod, raw_deployment, raw_replica, raw_replica_set, release_record
from unit.fakes import FakeClusterClient, settle

PODS_OF_WEB = ("s", "app=web")


class World:
    """Deployment `web` with ReplicaSet `web-a` and its pods, and the watch over them."""

    def __init__(self, *pods: RawObject) -> None:
        self.client = FakeClusterClient()
        self.client.put("deployments", raw_deployment())
        self.client.put("replicasets", raw_replica_set())
        self.client.put("pods", *pods)
        self.woken: list[str] = []
        self.watch = WorkloadWatch(self.client, self._wake)

    def _wake(self, subscribers: Iterable[str]) -> None:
        self.woken += subscribers

    async def subscribe(self, *pods: Pod, subscriber: str = "n") -> None:
        """Subscribe for these pods: first to the lists of their namespaces, then to the pods of their owners."""
        for _ in range(2):
            self.watch.subscribe(subscriber, pods)
            await settle()
        self.woken.clear()

    def workload(self, of: Pod) -> Workload | None:
        return self.watch.workload(of, frozenset(), ReplicaSetIndex())

    def names(self, of: Pod) -> list[str]:
        found = self.workload(of)
        return [] if found is None else sorted(pod.name for pod in found.pods)


def claim(name: str, mode: str) -> RawObject:
    return {"metadata": {"namespace": "s", "name": name, "uid": name}, "spec": {"accessModes": [mode]}}


A = parse_pod(raw_replica("a"))


@pytest.mark.parametrize("missing", ["deployments", "replicasets", "persistentvolumeclaims"])
async def test_namespace_is_synced_only_with_all_three_lists(missing: str) -> None:
    world = World()
    world.client.refuse(f"LIST {missing}", 403, "not allowed")
    await world.subscribe(A)
    assert not world.watch.is_synced("s")
    assert missing in world.watch.why_not_synced("n")
    assert "not allowed" in world.watch.why_not_synced("n")


async def test_synced_namespace_misses_nothing() -> None:
    world = World()
    await world.subscribe(A)
    assert world.watch.is_synced("s")
    assert world.watch.why_not_synced("n") == ""


async def test_pods_of_an_owner_are_listed_for_all_its_replica_sets_at_once() -> None:
    world = World(raw_replica("a"), raw_replica("b", replica_set="web-b"), raw_replica("x", app="other"))
    world.client.put("replicasets", raw_replica_set("web-b"))
    await world.subscribe(A)
    pod_lists = [query for path, query in world.client.listed if path.endswith("/pods")]
    assert pod_lists == [{"labelSelector": "app=web"}]
    assert world.names(A) == ["a", "b"]


async def test_pods_are_watched_until_the_last_subscriber_leaves() -> None:
    world = World(raw_replica("a"))
    await world.subscribe(A, subscriber="n1")
    await world.subscribe(A, subscriber="n2")
    world.watch.subscribe("n1", ())
    assert world.watch.latest_pod(PODS_OF_WEB, A)
    world.watch.subscribe("n2", ())
    assert world.watch.latest_pod(PODS_OF_WEB, A) is None
    assert not world.watch.is_synced("s")


async def test_change_of_a_pod_wakes_only_the_subscribers_of_its_owner() -> None:
    world = World(raw_replica("a"))
    world.client.put("replicasets", raw_replica_set("db-a", deployment="db", app="db"))
    await world.subscribe(A, subscriber="n1")
    await world.subscribe(parse_pod(raw_replica("x", replica_set="db-a", app="db")), subscriber="n2")
    world.client.put("pods", raw_replica("a", ready=False))
    await settle()
    assert world.woken == ["n1"]


async def test_response_to_a_write_counts_until_the_watch_brings_a_newer_version() -> None:
    world = World(raw_replica("a"))
    await world.subscribe(A)
    response = raw_replica("a", record=release_record())
    response["metadata"]["resourceVersion"] = "50"
    world.watch.put(PODS_OF_WEB, response)
    world.client.put("pods", raw_replica("a", ready=False))  # an older event, which arrives late
    await settle()
    latest = world.watch.latest_pod(PODS_OF_WEB, A)
    assert latest is not None
    assert (latest.released, latest.ready) == (True, True)


async def test_pods_of_another_owner_with_the_same_labels_do_not_count() -> None:
    world = World(raw_replica("a"), raw_replica("x", replica_set="canary-c"))
    world.client.put("replicasets", raw_replica_set("canary-c", deployment="canary"))
    await world.subscribe(A)
    assert world.names(A) == ["a"]


@pytest.mark.parametrize(("owner_uid", "counted"), [("web", ["a", "released"]), ("web-of-last-week", ["a"])])
async def test_released_pod_belongs_to_the_deployment_of_its_record(owner_uid: str, counted: list[str]) -> None:
    record = release_record(deployment_uid=owner_uid, replica_set="web-old", replica_set_uid="web-old")
    released = raw_replica("released", record=record)
    released["metadata"]["ownerReferences"][0]["uid"] = owner_uid
    world = World(raw_replica("a"), released)
    await world.subscribe(A)
    assert world.names(A) == counted


async def test_record_that_disagrees_with_the_controller_counts_for_no_owner() -> None:
    forged = raw_replica(
        "x", replica_set="job-a", annotations={"rescheduler.dev/move": release_record().to_annotation()}
    )
    world = World(raw_replica("a"), forged)
    await world.subscribe(A)
    assert world.names(A) == ["a"]


async def test_released_pod_whose_replica_set_is_gone_is_found_by_its_deployment() -> None:
    released = parse_pod(raw_replica("a", record=release_record(replica_set="web-old", replica_set_uid="web-old")))
    world = World()
    await world.subscribe(released)
    assert world.watch.owner_key(released) == PODS_OF_WEB


@pytest.mark.parametrize("owner", [None, Owner("ReplicaSet", "gone-a", "gone-a"), Owner("StatefulSet", "db", "db")])
async def test_pod_without_a_known_replica_set_has_no_workload(owner: Owner | None) -> None:
    world = World()
    await world.subscribe(A)
    assert world.workload(pod("x", owner=owner)) is None
    assert world.watch.owner_key(pod("x", owner=owner)) is None


async def test_replica_set_without_a_deployment_is_a_workload_of_its_own() -> None:
    world = World(raw_replica("x", replica_set="bare-a", app="bare"))
    world.client.put("replicasets", raw_replica_set("bare-a", deployment="", app="bare"))
    bare = parse_pod(raw_replica("x", replica_set="bare-a", app="bare"))
    await world.subscribe(bare)
    found = world.workload(bare)
    assert found is not None
    assert found.deployment is None
    assert [rs.name for rs in found.replica_sets] == ["bare-a"]


@pytest.mark.parametrize(("app", "left"), [("web", False), ("debug", True)])
async def test_pod_whose_labels_changed_has_left_its_replica_set(app: str, left: bool) -> None:
    world = World()
    await world.subscribe(A)
    assert world.watch.has_left_selector(parse_pod(raw_replica("a", app=app))) is left


async def test_replica_set_of_another_deployment_in_a_record_is_not_the_pods_replica_set() -> None:
    world = World(raw_replica("b"))
    world.client.put("replicasets", raw_replica_set("other-a", deployment="other", app="other"))
    changed = parse_pod(raw_replica("a", record=release_record(replica_set="other-a", replica_set_uid="other-a")))
    await world.subscribe(changed)
    assert not world.watch.has_left_selector(changed)
    assert world.watch.owner_key(changed) == PODS_OF_WEB
    found = world.workload(changed)
    assert found is not None
    assert found.deployment is not None
    assert found.deployment.name == "web"


@pytest.mark.parametrize(
    ("claims", "single_node"),
    [((), False), (("shared",), False), (("shared", "disk"), True), (("not-yet-listed",), True)],
)
async def test_unknown_claim_counts_as_a_volume_of_one_node(claims: tuple[str, ...], single_node: bool) -> None:
    world = World()
    world.client.put("persistentvolumeclaims", claim("shared", "ReadWriteMany"), claim("disk", "ReadWriteOnce"))
    await world.subscribe(A)
    found = world.watch.has_single_node_volume(pod("a", claims=claims))
    assert found is single_node


async def test_templates_are_watched_for_plans_beside_the_workloads_of_a_subscriber() -> None:
    world = World()
    world.watch.watch_templates("n", ["s"])
    assert not world.watch.are_templates_synced("n")
    await settle()
    assert world.watch.are_templates_synced("n")
    assert set(world.watch.templates(["s", "unknown"])) == {"web-a"}
    world.watch.subscribe("n", ())
    world.woken.clear()
    world.client.put("replicasets", raw_replica_set(revision="2"))
    await settle()
    assert world.woken == ["n"]
    world.watch.watch_templates("n", ())
    assert world.watch.templates(["s"]) == {}
