"""The checks before the start: a process that lacks a permission names it and does not start."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.kube import preflight
from rescheduler.kube.client import ApiError, Client, UnreachableError
from rescheduler.kube.connections import ConfigError


class ReviewingClient(Client):
    """A client of an API server that grants everything but `denied`: verb, resource, subresource and namespace."""

    server = "https://cluster"

    def __init__(self, *denied: tuple[str, str, str, str], error: Exception | None = None) -> None:
        self.denied, self.error = denied, error

    async def get(self, path: str, *, election: bool = False, **params: str | int) -> dict[str, Any]:
        if self.error:
            raise self.error
        return {}

    async def review(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        asked = body["spec"]["resourceAttributes"]
        key = (asked["verb"], asked["resource"], asked["subresource"], asked["namespace"])
        return {"status": {"allowed": key not in self.denied}}


async def test_process_with_all_permissions_may_start() -> None:
    await preflight.check(ReviewingClient(), "rescheduler-system", scaled_deployment="rescheduler")


@pytest.mark.parametrize(
    ("denied", "named"),
    [
        (("create", "pods", "eviction", ""), "create pods/eviction"),
        (("update", "leases", "", "rescheduler-system"), "update leases.coordination.k8s.io in namespace rescheduler"),
        (("create", "leases", "", "kube-system"), "create leases.coordination.k8s.io in namespace kube-system"),
        (("watch", "leases", "", "kube-node-lease"), "watch leases.coordination.k8s.io in namespace kube-node-lease"),
    ],
)
async def test_missing_permission_is_named(denied: tuple[str, str, str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=f"RBAC does not allow .*{re.escape(named)}"):
        await preflight.check(ReviewingClient(denied), "rescheduler-system")


@pytest.mark.parametrize("cleanup", [False, True])
async def test_only_the_cleanup_must_be_able_to_stop_the_operator(cleanup: bool) -> None:
    client = ReviewingClient(("patch", "deployments", "scale", "rescheduler-system"))
    if not cleanup:
        await preflight.check(client, "rescheduler-system")
        return
    with pytest.raises(ConfigError, match=r"patch deployments/scale\.apps"):
        await preflight.check(client, "rescheduler-system", scaled_deployment="rescheduler")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UnreachableError("connection refused"), "https://cluster does not answer: connection refused"),
        (ApiError("GET", "/apis", ErrorResponse(401, message="expired")), "does not accept the credentials: expired"),
        (ApiError("GET", "/apis", ErrorResponse(503, message="busy")), "https://cluster refused: .*503.*busy"),
    ],
    ids=["no answer", "credentials", "refused"],
)
async def test_api_server_that_does_not_serve_is_named_with_the_cause(error: Exception, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await preflight.check(ReviewingClient(error=error), "rescheduler-system")
