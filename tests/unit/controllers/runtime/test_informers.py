"""Our own kinds come and go; everything else is always there."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from rescheduler.controllers.runtime.informers import StoreInformers
from rescheduler.controllers.runtime.store import ResourceKind, Store
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = {"metadata": {"name": "p", "uid": "p", "resourceVersion": "5"}, "spec": {}}


class FakeClient:
    """Serves lists of one policy; `gone`: what is answered with 404, `defined`: whether the CRDs are there all the same."""

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
def told() -> list[bool]:
    return []


@pytest.fixture
def here(client: FakeClient, store: Store, told: list[bool]) -> StoreInformers:
    return StoreInformers(client, store, lambda: told.append(ResourceKind.POLICY in store.not_installed))  # type: ignore[arg-type]


async def test_a_kind_whose_crd_is_gone_has_no_objects(
    here: StoreInformers, client: FakeClient, store: Store, told: list[bool]
) -> None:
    await here.list_all()
    assert store._policies
    client.gone = {paths.POLICIES}
    await here.list_all()
    assert store.not_installed == {ResourceKind.POLICY}
    assert not store._policies
    assert client.asked == ["metadata.name=reschedulepolicies.rescheduler.dev"]
    assert told == [True]


async def test_it_is_told_once_that_a_kind_is_gone_and_once_that_it_is_back(
    here: StoreInformers, client: FakeClient, store: Store, told: list[bool]
) -> None:
    client.gone = {paths.POLICIES}
    await here.list_all()
    await here.list_all()
    assert len(client.asked) == 1
    client.gone = set()
    await here.list_all()
    await here.list_all()
    assert told == [True, False]
    assert store._policies


async def test_a_404_for_a_kind_that_is_defined_takes_nothing_away(
    here: StoreInformers, client: FakeClient, store: Store
) -> None:
    await here.list_all()
    client.gone, client.defined = {paths.POLICIES}, True
    with pytest.raises(ApiError):
        await here._list(ResourceKind.POLICY)
    assert not store.not_installed
    assert store._policies


async def test_a_404_for_a_kind_of_kubernetes_is_an_error_like_any_other(
    here: StoreInformers, client: FakeClient
) -> None:
    client.gone = {paths.NODES}
    with pytest.raises(ApiError):
        await here._list(ResourceKind.NODE)
    assert not client.asked
