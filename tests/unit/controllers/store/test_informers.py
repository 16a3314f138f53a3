"""Informers of the store: kinds whose CRD may be missing."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from rescheduler.controllers.store.informers import StoreInformers
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError
from unit.builders import NOW

POLICY = {"metadata": {"name": "p", "uid": "p", "resourceVersion": "5"}, "spec": {}}


class FakeClient:
    """Client that lists one policy; `gone`: paths with a 404; `defined`: whether the CRDs exist anyway."""

    def __init__(self) -> None:
        self.gone: set[str] = set()
        self.defined = False
        self.asked: list[str] = []

    async def list(self, path: str) -> AsyncIterator[dict[str, Any]]:
        if path in self.gone:
            raise ApiError("GET", path, ErrorResponse(404))
        yield {"metadata": {"resourceVersion": "7"}, "items": [POLICY] if path == paths.POLICIES else []}

    async def get(self, path: str, *, fieldSelector: str) -> dict[str, Any]:  # noqa: N803 - as the API server calls it
        self.asked.append(fieldSelector)
        return {"metadata": {"resourceVersion": "9"}, "items": [{}] if self.defined else []}


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
    client.gone, client.defined = {paths.POLICIES}, True
    with pytest.raises(ApiError):
        await informers._list(ResourceKind.POLICY)
    assert not store.cache.not_installed
    assert store.cache.policies


async def test_a_404_for_a_kubernetes_kind_is_an_error(informers: StoreInformers, client: FakeClient) -> None:
    client.gone = {paths.NODES}
    with pytest.raises(ApiError):
        await informers._list(ResourceKind.NODE)
    assert not client.asked
