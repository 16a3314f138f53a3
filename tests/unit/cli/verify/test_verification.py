"""`rescheduler verify` reports each check in plain words, and fails if one fails."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rescheduler.api.crds import crds
from rescheduler.cli.verify import verification
from rescheduler.cli.verify.verification import Result
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError
from rescheduler.kube.connections import ConfigError

DENIED = "ValidatingAdmissionPolicy 'rescheduler-nodes.rescheduler.dev' denied request"


class FakeClient:
    """Client of an installation that works; tests change one fact."""

    def __init__(self, _: Any) -> None:
        self.crds, self.nodes = crds(), [{"metadata": {"name": "n1"}}]
        self.refusals = {"PATCH": DENIED}
        self.holder, self.closed = "ours", False
        self.paths: list[str] = []

    async def get(self, path: str, **params: Any) -> dict[str, Any]:
        if path == paths.NODES:
            return {"items": self.nodes}
        found = self.crds.get(params["fieldSelector"].removeprefix("metadata.name=").split(".")[0])
        return {"items": [found] if found else []}

    async def find(self, path: str) -> dict[str, Any] | None:
        return {"spec": {"holderIdentity": self.holder}} if self.holder else None

    async def create(self, path: str, body: Any) -> None:
        self._write("POST", path)

    async def patch(self, path: str, body: Any) -> None:
        self._write("PATCH", path)

    def _write(self, method: str, path: str) -> None:
        self.paths.append(path)
        if message := self.refusals.get(method):
            raise ApiError(method, path, ErrorResponse(403, message=message))

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    async def nothing(*_: Any) -> None: ...

    made = FakeClient(None)
    monkeypatch.setattr(verification, "load_config", nothing)
    monkeypatch.setattr(verification, "Client", lambda _: made)
    monkeypatch.setattr("rescheduler.cli.verify.verification.preflight.check", nothing)
    monkeypatch.setattr(verification, "_LEADER_TIMEOUT", 0.01)
    return made


def results() -> list[Result]:
    found: list[Result] = []
    passed = asyncio.run(verification.run("ours", found.append))
    assert passed == all(result.passed for result in found)
    return found


def failures() -> list[str]:
    return [result.message for result in results() if not result.passed]


def test_a_working_installation_passes_with_dry_runs_only(client: FakeClient) -> None:
    assert [result.passed for result in results()] == [True] * 5
    assert client.paths
    assert all(path.endswith("?dryRun=All") for path in client.paths)
    assert client.closed


def drop_crd(client: FakeClient) -> None:
    del client.crds["nodedrains"]


def accept_all(client: FakeClient) -> None:
    client.refusals = {}


def refuse_drain(client: FakeClient) -> None:
    client.refusals["POST"] = "a webhook"


def refuse_otherwise(client: FakeClient) -> None:
    client.refusals["PATCH"] = "another policy"


def other_leads(client: FakeClient) -> None:
    client.holder = "other"


def nobody_leads(client: FakeClient) -> None:
    client.holder = ""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (drop_crd, "the CRD nodedrains.rescheduler.dev lacks"),
        (refuse_drain, "the API server refuses a NodeDrain: "),
        (accept_all, "rescheduler-nodes.rescheduler.dev does not bound the writes"),
        (refuse_otherwise, "another policy"),
        (other_leads, "the installation in namespace other does"),
        (nobody_leads, "no operator holds it"),
    ],
)
def test_what_does_not_work_is_named(client: FakeClient, change: Callable[[FakeClient], None], named: str) -> None:
    change(client)
    (failed,) = failures()
    assert named in failed


def test_without_nodes_the_policies_are_not_checked(client: FakeClient) -> None:
    client.nodes = []
    assert failures() == []
    assert "the cluster has no node: the admission policies are not checked" in [r.message for r in results()]


def test_missing_rights_end_the_command(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any) -> None:
        raise ConfigError("RBAC does not allow this identity to patch nodes")

    monkeypatch.setattr("rescheduler.cli.verify.verification.preflight.check", refuse)
    assert results() == [Result(False, "RBAC does not allow this identity to patch nodes")]
    assert client.closed
