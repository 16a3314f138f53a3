"""A live read after a conflict drops only what the API server says to be gone."""

import pytest

from rescheduler.controllers.store.conflicts import reread
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError, UnreachableError
from unit.builders import NOW
from unit.fakes import FakeClusterClient

DRAIN = {
    "metadata": {"name": "n", "uid": "u", "resourceVersion": "1"},
    "spec": {"nodeName": "n", "requests": [{"reason": "Manual"}]},
}


@pytest.fixture
def client() -> FakeClusterClient:
    return FakeClusterClient()


@pytest.fixture
def store() -> Store:
    made = Store(lambda: NOW)
    made.put(ResourceKind.DRAIN, DRAIN)
    return made


async def test_an_object_that_is_gone_is_dropped(client: FakeClusterClient, store: Store) -> None:
    await reread(client, store, ResourceKind.DRAIN, paths.drain("n"))
    assert store.drain("n") is None


async def test_an_object_that_changed_is_stored(client: FakeClusterClient, store: Store) -> None:
    client.put("nodedrains", {**DRAIN, "status": {"phase": "Waiting"}})
    await reread(client, store, ResourceKind.DRAIN, paths.drain("n"))
    drain = store.drain("n")
    assert drain
    assert drain.status.phase == "Waiting"


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ApiError("GET", "", ErrorResponse(404)), id="the kind is not served"),
        ApiError("GET", "", ErrorResponse(403, "Forbidden")),
        UnreachableError("no answer"),
    ],
    ids=str,
)
async def test_an_answer_about_something_else_keeps_the_object(
    client: FakeClusterClient, store: Store, error: Exception
) -> None:
    client.refused["GET nodedrains"] = error
    await reread(client, store, ResourceKind.DRAIN, paths.drain("n"))
    assert store.drain("n")
