"""The objects on which decisions for pods depend: which lists are needed, and what the context holds."""

from collections.abc import Iterable

import pytest

from rescheduler.api.policies import DrainSettings
from rescheduler.controllers.evacuation.related_objects import RelatedObjects
from rescheduler.core.eviction.pod_actions import EvictionContext
from rescheduler.core.model.pods import Owner, Pod
from rescheduler.core.model.raw import RawObject
from unit.builders import NOW, pod
from unit.fakes import FakeClusterClient, settle

BY_NAMESPACE = DrainSettings.model_validate(
    {"rules": [{"namespaceSelector": {"matchLabels": {"team": "a"}}, "action": "Skip"}]}
)
DAEMON = pod("d", owner=Owner("DaemonSet", "agent", "agent"))
OF_JOB = pod("j", owner=Owner("Job", "report", "report"))
WITH_DISK = pod("a", claims=("data",))
FAILING, UNREACHABLE = EvictionContext(NOW, node_failing=True), EvictionContext(NOW, node_unreachable=True)


class World:
    """One namespace with a DaemonSet, a Job, a claim and its volume, which is attached to node `n1`."""

    def __init__(self) -> None:
        self.client = FakeClusterClient()
        self.client.put("namespaces", named("s", labels={"team": "a"}))
        self.client.put("daemonsets", named("agent", namespace="s"))
        self.client.put(
            "jobs",
            named("report", namespace="s"),
            {**named("slow", namespace="s"), "spec": {"podReplacementPolicy": "Failed"}},
        )
        self.client.put(
            "persistentvolumeclaims",
            {**named("data", namespace="s"), "spec": {"volumeName": "v", "accessModes": ["ReadWriteOnce"]}},
        )
        self.client.put("persistentvolumes", {**named("v"), "spec": {"local": {}}}, {**named("other"), "spec": {}})
        self.client.put("volumeattachments", attachment("v", "n1"), attachment("other", "n2"))
        self.woken: list[str] = []
        self.related = RelatedObjects(self.client, self._wake)

    def _wake(self, subscribers: Iterable[str]) -> None:
        self.woken += subscribers

    def ask(
        self,
        *pods: Pod,
        context: EvictionContext | None = None,
        settings: DrainSettings | None = None,
        attachments: bool = False,
    ) -> EvictionContext | None:
        return self.related.complete_context(
            "drain",
            "n1",
            context or EvictionContext(NOW),
            settings or DrainSettings(),
            pods,
            needs_attachments=attachments,
        )

    async def complete(
        self,
        *pods: Pod,
        context: EvictionContext | None = None,
        settings: DrainSettings | None = None,
        attachments: bool = False,
    ) -> EvictionContext:
        """Return the context once all its lists are there."""
        self.ask(*pods, context=context, settings=settings, attachments=attachments)
        await settle()
        completed = self.ask(*pods, context=context, settings=settings, attachments=attachments)
        assert completed is not None
        return completed

    @property
    def listed(self) -> set[str]:
        return {path.rpartition("/")[2] for path, _ in self.client.listed}


def named(name: str, **meta: object) -> RawObject:
    return {"metadata": {"name": name, "uid": name, **meta}}


def attachment(volume: str, node: str) -> RawObject:
    spec = {"nodeName": node, "source": {"persistentVolumeName": volume}}
    return {**named(f"{volume}-{node}"), "spec": spec}


async def test_context_that_needs_no_object_is_complete_at_once() -> None:
    world = World()
    assert world.ask(pod("a"), OF_JOB) == EvictionContext(NOW)
    await settle()
    assert world.client.listed == []


@pytest.mark.parametrize(
    ("pods", "context", "settings", "needed"),
    [
        ((pod("a"),), None, BY_NAMESPACE, {"namespaces"}),
        ((DAEMON,), None, None, {"daemonsets"}),
        ((OF_JOB,), FAILING, None, {"jobs"}),
        ((OF_JOB,), UNREACHABLE, None, {"jobs"}),
        ((WITH_DISK,), None, None, {"persistentvolumeclaims", "persistentvolumes", "volumeattachments"}),
    ],
    ids=["rule", "DaemonSet", "failing", "unreachable", "claim"],
)
async def test_only_the_kinds_that_the_context_needs_are_listed(
    pods: tuple[Pod, ...], context: EvictionContext | None, settings: DrainSettings | None, needed: set[str]
) -> None:
    world = World()
    await world.complete(*pods, context=context, settings=settings)
    assert world.listed == needed


@pytest.mark.parametrize(
    "missing",
    ["namespaces", "daemonsets", "jobs", "persistentvolumeclaims", "persistentvolumes", "volumeattachments"],
)
async def test_context_is_missing_until_every_needed_list_is_there(missing: str) -> None:
    world = World()
    world.client.refuse(f"LIST {missing}", 403, "not allowed")
    for _ in range(2):
        assert world.ask(DAEMON, OF_JOB, WITH_DISK, context=FAILING, settings=BY_NAMESPACE) is None
        await settle()
    why = world.related.why_not_synced("drain")
    assert f"/{missing}" in why
    assert "not allowed" in why


async def test_nothing_is_missing_for_a_subscriber_without_subscriptions() -> None:
    world = World()
    world.client.refuse("LIST daemonsets", 403)
    world.ask(DAEMON)
    await settle()
    assert world.related.why_not_synced("drain")
    assert world.related.why_not_synced("another drain") == ""


async def test_context_has_labels_daemon_sets_and_jobs() -> None:
    found = await World().complete(DAEMON, OF_JOB, context=FAILING, settings=BY_NAMESPACE)
    assert found.namespace_labels == {"s": {"team": "a"}}
    assert found.daemon_set_uids == {"s": frozenset({"agent"})}
    assert found.node_failing


async def test_job_that_waits_for_the_end_of_a_pod_does_not_replace_it_at_once() -> None:
    found = await World().complete(OF_JOB, context=UNREACHABLE)
    assert found.replacing_jobs == {"report"}


async def test_volumes_are_those_of_this_node() -> None:
    found = (await World().complete(WITH_DISK)).volumes
    assert found.attached_volumes == {"v"}
    assert found.local_volumes == {"v"}
    assert found.topologies.keys() == {"v"}
    assert found.has_volume_to_detach(WITH_DISK)


async def test_volume_counts_after_its_last_pod_is_gone() -> None:
    world = World()
    await world.complete(WITH_DISK)
    found = world.ask()
    assert found is not None
    assert found.volumes.awaiting_detach(()) == {"v"}


async def test_attachments_of_a_node_without_claims_are_listed_on_demand() -> None:
    world = World()
    found = await world.complete(attachments=True)
    assert found.volumes.attached_volumes == {"v"}
    assert world.listed == {"volumeattachments"}


async def test_changed_object_wakes_its_subscribers() -> None:
    world = World()
    await world.complete(DAEMON, WITH_DISK)
    world.woken.clear()
    world.client.remove("volumeattachments", "v-n1")
    await settle()
    assert world.woken == ["drain"]
    found = world.ask(DAEMON, WITH_DISK)
    assert found is not None
    assert found.volumes.attached_volumes == frozenset()


async def test_nothing_is_watched_after_the_last_subscriber_leaves() -> None:
    world = World()
    await world.complete(DAEMON, WITH_DISK)
    world.related.unsubscribe("drain")
    await settle()
    world.woken.clear()
    world.client.put("daemonsets", named("new", namespace="s"))
    world.client.remove("volumeattachments", "v-n1")
    await settle()
    assert world.woken == []
    assert world.ask() == EvictionContext(NOW)
