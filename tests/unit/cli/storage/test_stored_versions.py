"""`rescheduler migrate-storage` stores every object in the storage version, whatever changes meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from rescheduler.cli.storage import stored_versions
from rescheduler.cli.storage.stored_versions import RESOURCES, Result
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError, UnreachableError
from rescheduler.kube.connections import ConfigError

NAME = "nodedrains.rescheduler.dev"
DRAINS = "/apis/rescheduler.dev/v1beta1/nodedrains"
OLD = {"manager": "me", "operation": "Apply", "apiVersion": "rescheduler.dev/v1alpha1", "fieldsV1": {"f:spec": {}}}
NEW = {**OLD, "apiVersion": "rescheduler.dev/v1beta1"}
OTHER = {**NEW, "manager": "other"}


class FakeServer:
    """API server with three CRDs whose storage version is v1beta1, and with NodeDrains that are stored as v1alpha1.

    `on_write` is called before each write, with its path.
    """

    def __init__(self) -> None:
        versions = [{"name": "v1alpha1", "storage": False}, {"name": "v1beta1", "storage": True}]
        self.crds: dict[str, dict[str, Any]] = {
            paths.crd_name(resource): {
                "metadata": {"resourceVersion": "1"},
                "spec": {"versions": [dict(version) for version in versions]},
                "status": {"storedVersions": ["v1beta1"]},
            }
            for resource in RESOURCES
        }
        self.stored = {f"n{number}": "v1alpha1" for number in range(3)}
        self.managers: dict[str, list[dict[str, Any]]] = {}
        self.revisions = dict.fromkeys(self.stored, 1)
        self.crds[NAME]["status"] = {"storedVersions": ["v1alpha1", "v1beta1"]}
        self.on_write: Callable[[str], None] = lambda _: None
        self.closed = False

    @property
    def drains(self) -> dict[str, Any]:
        return self.crds[NAME]

    def switch_storage(self, version: str) -> None:
        """Make another version the storage version, as an upgrade or a downgrade does."""
        for each in self.drains["spec"]["versions"]:
            each["storage"] = each["name"] == version
        self.drains["metadata"]["resourceVersion"] += "1"

    async def find(self, path: str) -> dict[str, Any] | None:
        found = self.crds.get(path.rpartition("/")[2])
        return found and {**found, "metadata": dict(found["metadata"])}

    async def list_metadata(self, path: str, *, fieldSelector: str = "") -> AsyncIterator[dict[str, Any]]:  # noqa: N803 - as the API server calls it
        yield {"metadata": {}, "items": []}
        for name in list(self.stored) if path.endswith("/nodedrains") else ():
            if fieldSelector in ("", f"metadata.name={name}"):
                yield {"metadata": {}, "items": [{"metadata": self._metadata(name)}]}

    def _metadata(self, name: str) -> dict[str, Any]:
        found = {"name": name, "uid": name, "resourceVersion": str(self.revisions[name])}
        return found | ({"managedFields": self.managers[name]} if name in self.managers else {})

    def _storage(self) -> str:
        return next(str(v["name"]) for v in self.drains["spec"]["versions"] if v["storage"])

    async def patch(self, path: str, body: dict[str, Any]) -> None:
        self.on_write(path)
        if path.endswith("/status"):
            if body["metadata"]["resourceVersion"] != self.drains["metadata"]["resourceVersion"]:
                raise ApiError("PATCH", path, ErrorResponse(409, "Conflict"))
            self.drains["status"] = body["status"]
            return
        name = path.rpartition("/")[2]
        metadata = body["metadata"]
        assert body.keys() == {"metadata"}
        assert metadata["uid"] == name
        if name not in self.stored:
            raise ApiError("PATCH", path, ErrorResponse(404, "NotFound"))
        if metadata.get("resourceVersion") not in (None, str(self.revisions[name])):
            raise ApiError("PATCH", path, ErrorResponse(409, "Conflict"))
        if "managedFields" in metadata:
            assert "resourceVersion" in metadata
            self.managers[name] = metadata["managedFields"]
        self.stored[name] = self._storage()

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    async def nothing() -> None: ...

    made = FakeServer()
    monkeypatch.setattr(stored_versions, "load_config", nothing)
    monkeypatch.setattr(stored_versions, "Client", lambda _: made)
    return made


def run() -> list[Result]:
    found: list[Result] = []
    assert asyncio.run(stored_versions.run(found.append)) == all(result.succeeded for result in found)
    return found


def test_all_objects_are_written_and_no_other_version_is_left_in_the_crd(server: FakeServer) -> None:
    messages = [result.message for result in run()]
    assert messages[2] == f"{NAME}: all objects are stored as v1beta1 now (3 written)"
    assert messages[0] == "reschedulepolicies.rescheduler.dev: all objects are stored as v1beta1"
    assert set(server.stored.values()) == {"v1beta1"}
    assert server.drains["status"] == {"storedVersions": ["v1beta1"]}
    assert server.closed


def test_a_second_run_writes_nothing(server: FakeServer) -> None:
    run()
    written: list[str] = []
    server.on_write = written.append
    assert all(result.succeeded for result in run())
    assert written == []


def test_after_a_downgrade_the_objects_go_back(server: FakeServer) -> None:
    run()
    server.switch_storage("v1alpha1")
    server.drains["status"] = {"storedVersions": ["v1beta1", "v1alpha1"]}
    assert all(result.succeeded for result in run())
    assert set(server.stored.values()) == {"v1alpha1"}
    assert server.drains["status"] == {"storedVersions": ["v1alpha1"]}


def test_an_object_that_is_deleted_or_written_meanwhile_needs_nothing(server: FakeServer) -> None:
    def disturb(path: str) -> None:
        if path.endswith("n0"):
            server.stored.pop("n0", None)
        if path.endswith("n1"):
            server.stored["n1"] = "v1beta1"
            raise ApiError("PATCH", path, ErrorResponse(409, "Conflict"))

    server.on_write = disturb
    assert run()[2].message.endswith("(1 written)")
    assert server.stored == {"n1": "v1beta1", "n2": "v1beta1"}


def test_a_crd_that_changes_meanwhile_gets_another_attempt(server: FakeServer) -> None:
    """Without its precondition the CRD would say v1beta1, although the objects are stored as v1alpha1 again."""

    def downgrade(path: str) -> None:
        if path.endswith("/status"):
            server.on_write = lambda _: None
            server.switch_storage("v1alpha1")

    server.on_write = downgrade
    assert all(result.succeeded for result in run())
    assert set(server.stored.values()) == {"v1alpha1"}
    assert server.drains["status"] == {"storedVersions": ["v1alpha1"]}


def test_a_crd_that_never_stops_changing_ends_the_command(server: FakeServer) -> None:
    server.on_write = lambda path: server.switch_storage("v1beta1") if path.endswith("/status") else None
    (failed,) = [result.message for result in run() if not result.succeeded]
    assert "keeps changing the CRD" in failed
    assert server.drains["status"] == {"storedVersions": ["v1alpha1", "v1beta1"]}


def test_an_invalid_object_is_named_and_the_crd_keeps_both_versions(server: FakeServer) -> None:
    def refuse(path: str) -> None:
        if path.endswith("n1"):
            raise ApiError("PATCH", path, ErrorResponse(422, "Invalid", "spec.x: bad"))

    server.on_write = refuse
    (failed,) = [result.message for result in run() if not result.succeeded]
    assert failed.startswith("nodedrains: n1 cannot be written: ")
    assert server.stored == {"n0": "v1beta1", "n1": "v1alpha1", "n2": "v1beta1"}
    assert server.drains["status"] == {"storedVersions": ["v1alpha1", "v1beta1"]}


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (ApiError("PATCH", DRAINS, ErrorResponse(403, "Forbidden", "no")), "the rights do not suffice: PATCH"),
        (ApiError("PATCH", DRAINS, ErrorResponse(500)), "a request failed: PATCH"),
        (UnreachableError("no answer"), "a request failed: no answer. Run the command again"),
    ],
)
def test_a_request_that_fails_ends_the_command_with_its_cause(server: FakeServer, error: Exception, named: str) -> None:
    def fail(_: str) -> None:
        raise error

    server.on_write = fail
    failed = run()[-1]
    assert not failed.succeeded
    assert failed.message.startswith(named)
    assert server.closed


def test_field_managers_move_to_the_version_too_also_if_nothing_else_must_be_written(server: FakeServer) -> None:
    """Otherwise the API server refuses server-side applies when the other version ends."""
    run()
    server.managers["n1"] = [OLD]
    assert run()[2].message.endswith("(1 written)")
    assert server.managers == {"n1": [NEW]}
    assert run()[2].message.endswith("all objects are stored as v1beta1")


def test_field_managers_of_an_object_that_changes_meanwhile_are_read_again(server: FakeServer) -> None:
    server.managers["n1"] = [OLD]

    def change(path: str) -> None:
        if path.endswith("n1") and server.revisions["n1"] == 1:
            server.revisions["n1"], server.managers["n1"] = 2, [OLD, OTHER]

    server.on_write = change
    assert all(result.succeeded for result in run())
    assert server.managers["n1"] == [NEW, OTHER]
    assert server.stored["n1"] == "v1beta1"


def test_an_object_that_goes_while_its_field_managers_move_needs_nothing(server: FakeServer) -> None:
    server.managers["n1"] = [OLD]

    def delete(path: str) -> None:
        if path.endswith("n1"):
            server.stored.pop("n1", None)

    server.on_write = delete
    assert all(result.succeeded for result in run())


def test_an_object_that_never_stops_changing_ends_the_command(server: FakeServer) -> None:
    server.managers["n1"] = [OLD]

    def change(path: str) -> None:
        if path.endswith("n1"):
            server.revisions["n1"] += 1

    server.on_write = change
    assert run()[-1].message.startswith("a request failed: PATCH")
    assert server.drains["status"] == {"storedVersions": ["v1alpha1", "v1beta1"]}


def test_a_crd_that_is_not_installed_needs_nothing(server: FakeServer) -> None:
    server.crds.clear()
    assert run() == [Result(True, f"{resource}.rescheduler.dev: not installed") for resource in RESOURCES]


def test_missing_credentials_end_the_command(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse() -> None:
        raise ConfigError("no KUBECONFIG")

    monkeypatch.setattr(stored_versions, "load_config", refuse)
    assert run() == [Result(False, "no KUBECONFIG")]
