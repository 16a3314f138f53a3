"""Check an installation with the operator's own identity: rights, CRDs, admission policies and the leader.

Every write is a dry run. The chart runs this as `helm test`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from rescheduler.api import API_VERSION, GROUP, crds, names
from rescheduler.cli.verify import messages
from rescheduler.core.model.crd_fields import missing_fields, stored_fields
from rescheduler.core.model.messages import outdated_crds
from rescheduler.kube import paths, preflight
from rescheduler.kube.client import ApiError, Client
from rescheduler.kube.connections import ConfigError, load_config
from rescheduler.kube.leader_election import SHARED_LEASE_NAME

_DRY_RUN = "?dryRun=All"
_NODE_POLICY = "rescheduler-nodes.rescheduler.dev"
_LEADER_TIMEOUT, _LEADER_INTERVAL = 60.0, 2.0  # seconds


class Result(NamedTuple):
    """Result of one check."""

    passed: bool
    message: str


async def verify(namespace: str) -> AsyncIterator[Result]:
    """Check the installation in this namespace. Raises ConfigError if the API server or a right is missing."""
    client = Client(await load_config())
    try:
        await preflight.check(client, namespace)
        yield Result(True, messages.HAS_RIGHTS)
        for check in (_check_crds, _check_drain, _check_policy):
            yield await check(client)
        yield await _check_leader(client, namespace)
    finally:
        await client.close()


async def _check_crds(client: Client) -> Result:
    missing = {}
    for resource, crd in crds.crds().items():
        name = paths.crd_name(resource)
        found = await client.get(paths.CUSTOM_RESOURCE_DEFINITIONS, fieldSelector=f"metadata.name={name}")
        stored = stored_fields(found["items"][0]) if found["items"] else frozenset[str]()
        if fields := missing_fields(stored_fields(crd), stored):
            missing[name] = fields
    if missing:
        return Result(False, outdated_crds(missing, names.UPGRADE_HINT))
    return Result(True, messages.CRDS_CURRENT)


async def _check_drain(client: Client) -> Result:
    name = f"verify.{GROUP}"
    body = {"apiVersion": API_VERSION, "kind": "NodeDrain", "metadata": {"name": name}}
    body |= {
        "spec": {"nodeName": name, "requests": [{"reason": "Manual", "message": "a dry run of rescheduler verify"}]}
    }
    try:
        await client.create(paths.DRAINS + _DRY_RUN, body)
    except ApiError as error:
        return Result(False, messages.drain_refused(error))
    return Result(True, messages.DRAIN_ACCEPTED)


async def _check_policy(client: Client) -> Result:
    """Whether a write that the operator must not make is refused."""
    page = await client.get(paths.NODES, limit=1)
    if not page["items"]:
        return Result(True, messages.NO_NODE)
    node = page["items"][0]["metadata"]["name"]
    try:
        await client.patch(paths.node(node) + _DRY_RUN, {"metadata": {"labels": {f"{GROUP}/verify": "true"}}})
    except ApiError as error:
        refused = _NODE_POLICY in error.response.message
        return Result(refused, messages.writes_bounded(_NODE_POLICY) if refused else messages.refused_otherwise(error))
    return Result(False, messages.writes_not_bounded(_NODE_POLICY))


async def _check_leader(client: Client, namespace: str) -> Result:
    """Whether this installation leads the cluster; a new one may need some seconds."""
    path, holder = f"{paths.leases(paths.SYSTEM_NAMESPACE)}/{SHARED_LEASE_NAME}", ""
    try:
        async with asyncio.timeout(_LEADER_TIMEOUT):
            while True:
                lease = await client.find(path)
                holder = (lease or {}).get("spec", {}).get("holderIdentity") or ""
                if holder == namespace:
                    return Result(True, messages.leads(namespace))
                await asyncio.sleep(_LEADER_INTERVAL)
    except TimeoutError:
        lease_name = f"{paths.SYSTEM_NAMESPACE}/{SHARED_LEASE_NAME}"
        return Result(False, messages.does_not_lead(namespace, holder, lease_name))


async def run(namespace: str, report: Callable[[Result], None]) -> bool:
    """Run all checks, and report each result. Return whether all passed."""
    passed = True
    try:
        async for result in verify(namespace):
            passed &= result.passed
            report(result)
    except ConfigError as error:
        report(Result(False, str(error)))
        return False
    return passed
