"""Informers of the store: kinds whose CRD may be missing."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from rescheduler.api.crds import crds
from rescheduler.controllers.store.informers import StoreInformers
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError
from unit.builders import NOW
from unit.fakes import FakeClusterClient

POLICY = {"metadata": {"name": "p", "uid": "p", "resourceVersion": "5"}, "spec": {}}


class FakeClient:
    """Client that lists one policy; `gone`: paths with a 404; `defined`: the CRD of these, None if there is none."""

    def __init__(self) -> None:
        self.gone: set[str] = set()
        self.defined: dict[str, Any] | None = None
        self.asked: list[str] = []

    async def list(self, path: str, limit: int = 0) -> AsyncIterator[dict[str, Any]]:
        if path in self.gone:
            raise ApiError("GET", path, ErrorResponse(404))
        yield {"metadata": {"resourceVersion": "7"}, "items": [POLICY] if path == paths.POLICIES else []}

    async def get(self, path: str, *, fieldSelector: str) -> dict[str, Any]:  # noqa: N803 - as the API server calls it
        self.asked.append(fieldSelector)
        return {"metadata": {"resourceVersion": "9"}, "items": [self.defined] if self.defined else []}


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def store() -> Store:
    return Store(lambda: NOW)


@pytest.fixture
def reports() -> list[bool]:
    return []


@pytest.fixture
def informers(client: FakeClient, store: Store, reports: list[bool]) -> StoreInformers:
    return StoreInformers(client, store, lambda: reports.append(ResourceKind.POLICY in store.cache.not_installed))  # type: ignore[arg-type]


async def test_a_kind_whose_crd_is_gone_has_no_objects(
    informers: StoreInformers, client: FakeClient, store: Store, reports: list[bool]
) -> None:
    await informers.list_all()
    assert store.cache.policies
    client.gone = {paths.POLICIES}
    await informers.list_all()
    assert store.cache.not_installed == {ResourceKind.POLICY}
    assert not store.cache.policies
    assert client.asked == ["metadata.name=reschedulepolicies.rescheduler.dev"]
    assert reports == [True]


async def test_a_missing_and_a_restored_kind_are_reported_once(
    informers: StoreInformers, client: FakeClient, store: Store, reports: list[bool]
) -> None:
    client.gone = {paths.POLICIES}
    await informers.list_all()
    await informers.list_all()
    assert len(client.asked) == 1
    client.gone = set()
    await informers.list_all()
    await informers.list_all()
    assert reports == [True, False]
    assert store.cache.policies


async def test_a_404_for_an_installed_kind_drops_no_object(
    informers: StoreInformers, client: FakeClient, store: Store
) -> None:
    await informers.list_all()
    client.gone, client.defined = {paths.POLICIES}, crds()["reschedulepolicies"]
    with pytest.raises(ApiError):
        await informers._list(ResourceKind.POLICY)
    assert not store.cache.not_installed
    assert not store.cache.version_not_served
    assert store.cache.policies


async def test_a_crd_without_our_version_is_reported_once_and_keeps_its_objects(
    informers: StoreInformers, client: FakeClient, store: Store
) -> None:
    """The objects exist in another version: without them, nodes would be uncordoned."""
    await informers.list_all()
    client.gone, client.defined = {paths.POLICIES}, crds()["reschedulepolicies"]
    client.defined["spec"]["versions"][0]["served"] = False
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(ApiError):
                await informers.list_all()
    (entry,) = logs
    assert (entry["event"], entry["kind"]) == ("kind.not_served", "reschedulepolicies")
    reason = "the CRDs reschedulepolicies.rescheduler.dev do not serve v1alpha1: "
    assert store.cache.version_not_served.startswith(reason)
    assert store.state_builder.is_view_stale()
    assert not store.cache.not_installed
    assert store.cache.policies
    client.gone = set()
    await informers.list_all()
    assert not store.cache.version_not_served
    assert not store.state_builder.view_failure


async def test_a_404_for_a_kubernetes_kind_is_an_error(informers: StoreInformers, client: FakeClient) -> None:
    client.gone = {paths.NODES}
    with pytest.raises(ApiError):
        await informers._list(ResourceKind.NODE)
    assert not client.asked


def _node(name: str, version: int, *, ready: str = "True") -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready}]
    meta = {"name": name, "uid": name, "resourceVersion": str(version)}
    return {"metadata": meta, "status": {"conditions": conditions}}


class TestLaterListsOfNodes:
    """Only the first list has whole nodes."""

    @pytest.fixture
    def cluster(self) -> FakeClusterClient:
        cluster = FakeClusterClient()
        cluster.put("nodes", *(_node(f"n{index}", 1) for index in range(3)))
        return cluster

    @pytest.fixture
    async def informers(self, cluster: FakeClusterClient, store: Store) -> StoreInformers:
        informers = StoreInformers(cluster, store, lambda: None)
        await informers.list_all()
        assert store.nodes.keys() == {"n0", "n1", "n2"}
        return informers

    async def test_a_node_that_the_watch_missed_is_read(
        self, informers: StoreInformers, cluster: FakeClusterClient, store: Store
    ) -> None:
        cluster.put("nodes", _node("n1", 2, ready="False"), _node("new", 1))
        cluster.remove("nodes", "n2")
        await informers.list_all()
        assert {name: node.ready_status for name, node in store.nodes.items()} == {
            "n0": "True",
            "n1": "False",
            "new": "True",
        }

    async def test_all_nodes_are_listed_if_many_are_missing(
        self, informers: StoreInformers, cluster: FakeClusterClient, store: Store
    ) -> None:
        cluster.put("nodes", *(_node(f"more{index}", 1) for index in range(paths.NODE_PAGE_SIZE + 1)))
        cluster.refuse("GET nodes", 500)
        await informers.list_all()
        assert len(store.nodes) == paths.NODE_PAGE_SIZE + 4

    async def test_a_node_that_is_gone_before_it_is_read_stays_unknown(
        self, informers: StoreInformers, cluster: FakeClusterClient, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def gone(_: str) -> None: ...

        cluster.put("nodes", _node("new", 1))
        monkeypatch.setattr(cluster, "find", gone)
        await informers.list_all()
        assert "new" not in store.nodes
