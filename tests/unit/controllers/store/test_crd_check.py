"""CRDs that are older than the operator are reported: log, metric, and the text of the condition."""

from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from rescheduler.api.crds import crds
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.store.crd_check import CrdCheck
from rescheduler.controllers.store.store import Store
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.kube.client import ApiError
from unit.builders import NOW

GAUGE = "rescheduler_crd_missing_fields"


class FakeClient:
    """Client of a cluster with these CRDs by resource; without `serves`, the API server has no such kind."""

    def __init__(self) -> None:
        self.crds, self.serves = crds(), True

    async def get(self, path: str, *, fieldSelector: str) -> dict[str, Any]:  # noqa: N803 - as the API server calls it
        if not self.serves:
            raise ApiError("GET", path, ErrorResponse(404))
        found = self.crds.get(fieldSelector.removeprefix("metadata.name=").split(".")[0])
        return {"items": [found] if found else []}

    def drop(self, resource: str, field: str) -> None:
        schema = self.crds[resource]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        del schema["properties"]["status"]["properties"][field]


class World:
    def __init__(self) -> None:
        self.client, self.store, self.metrics = FakeClient(), Store(lambda: NOW), Metrics()
        self.changes = 0
        self.check = CrdCheck(self.client, self.store, self.metrics, self._count_change)  # type: ignore[arg-type]

    def _count_change(self) -> None:
        self.changes += 1

    def gauge(self, resource: str) -> float | None:
        return self.metrics.registry.get_sample_value(GAUGE, {"crd": f"{resource}.rescheduler.dev"})


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    with capture_logs() as entries:
        yield entries


async def test_current_crds_are_not_reported(world: World, logged: list[EventDict]) -> None:
    assert world.store.cache.outdated_crds is None
    assert await world.check.step() == 600
    assert world.store.cache.outdated_crds == ""
    assert world.gauge("nodedrains") == 0
    assert not logged


async def test_an_older_crd_is_reported_once_with_its_fields_and_the_next_step(
    world: World, logged: list[EventDict]
) -> None:
    world.client.drop("nodedrains", "cameBack")
    assert [await world.check.step(), await world.check.step()] == [60, 60]
    (entry,) = logged
    assert (entry["event"], entry["log_level"]) == ("crd.outdated", "error")
    assert (entry["crd"], entry["missing"]) == ("nodedrains.rescheduler.dev", (".status.cameBack",))
    assert "kubectl apply -f manifests/crds" in entry["hint"]
    assert world.gauge("nodedrains") == 1
    assert world.gauge("namespacepools") == 0
    text = world.store.cache.outdated_crds or ""
    assert text.startswith("the CRD nodedrains.rescheduler.dev lacks .status.cameBack: ")
    assert world.changes == 1
    world.client.crds = crds()
    assert await world.check.step() == 600
    assert [entry["event"] for entry in logged] == ["crd.outdated", "crd.current"]
    assert world.store.cache.outdated_crds == ""
    assert world.gauge("nodedrains") == 0
    assert world.changes == 2


@pytest.mark.parametrize("serves", [True, False])
async def test_a_missing_crd_is_not_old(world: World, logged: list[EventDict], serves: bool) -> None:
    world.client.crds, world.client.serves = {}, serves
    await world.check.step()
    assert world.store.cache.outdated_crds == ""
    assert not logged


async def test_another_failure_is_retried_and_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(path: str, **_: Any) -> dict[str, Any]:
        raise ApiError("GET", path, ErrorResponse(500))

    monkeypatch.setattr(world.client, "get", refuse)
    with pytest.raises(ApiError):
        await world.check.step()
    assert world.store.cache.outdated_crds is None
