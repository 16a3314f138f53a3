"""Bring all objects of the kinds into the storage version of their CRD, after an upgrade or a downgrade.

The API server stores an object in the storage version only when it writes the object. `status.storedVersions` of a CRD
has each version in which objects may still be stored. The API server refuses a CRD that lacks one of them. So a version
of a kind can end only after this migration.

Kubernetes has a StorageVersionMigration for this, which API servers before 1.37 do not serve by default. It leaves the
field managers as they are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from rescheduler.api import GROUP
from rescheduler.cli.storage import messages
from rescheduler.cli.storage.managed_fields import moved
from rescheduler.core.model.raw import RawObject
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client
from rescheduler.kube.connections import ConfigError, load_config

RESOURCES = ("reschedulepolicies", "namespacepools", "nodedrains")
_MAX_ATTEMPTS = 5
_GONE = (404, 409)
"""Codes for an object that is deleted, or that somebody else writes. Such a write is in the storage version too."""
_INVALID = (400, 422)
_NO_RIGHTS = (401, 403)


class Result(NamedTuple):
    """Result for one CRD, or for one object that could not be written."""

    succeeded: bool
    message: str


async def migrate(client: Client, resource: str) -> list[Result]:
    """Write all objects of a resource, then say in the CRD that no other version is stored. Raises TRANSIENT_ERRORS."""
    name = paths.crd_name(resource)
    path = f"{paths.CUSTOM_RESOURCE_DEFINITIONS}/{name}"
    for _ in range(_MAX_ATTEMPTS):
        crd = await client.find(path)
        if crd is None:
            return [Result(True, messages.not_installed(name))]
        version = _storage_version(crd)
        all_stored = crd["status"]["storedVersions"] == [version]
        count, refused = await _write_all(client, resource, version, only_managers=all_stored)
        if refused:
            return refused
        if all_stored:
            return [Result(True, messages.stored(name, version, count))]
        # With another resourceVersion, the CRD may have another storage version. Then the objects are written again.
        stored = {"metadata": {"resourceVersion": crd["metadata"]["resourceVersion"]}}
        try:
            await client.patch(f"{path}/status", stored | {"status": {"storedVersions": [version]}})
        except ApiError as error:
            if error.code != 409:
                raise
        else:
            return [Result(True, messages.stored(name, version, count))]
    return [Result(False, messages.crd_keeps_changing(name))]


def _storage_version(crd: RawObject) -> str:
    return next(str(version["name"]) for version in crd["spec"]["versions"] if version["storage"])


async def _write_all(client: Client, resource: str, version: str, *, only_managers: bool) -> tuple[int, list[Result]]:
    """Write each object in the storage version. Return how many were written, and those that the API server refuses.

    `only_managers`: all objects are stored in this version, so write only those with a field manager of another one.
    """
    path = f"/apis/{GROUP}/{version}/{resource}"
    count, refused = 0, []
    async for page in client.list_metadata(path):
        for item in page["items"]:
            try:
                count += await _write(client, path, item["metadata"], version, only_managers=only_managers)
            except ApiError as error:
                if error.code not in _INVALID:
                    raise
                refused.append(Result(False, messages.object_refused(resource, item["metadata"]["name"], error)))
    return count, refused


async def _write(client: Client, path: str, metadata: RawObject, version: str, *, only_managers: bool) -> bool:
    """Write an object without a change of its fields. Return whether it was written.

    The API server writes an object without a change only if it is stored in another version. A patch that has only the
    UID cannot undo the write of somebody else. A patch of the field managers has the resourceVersion too.
    """
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        patch: dict[str, Any] = {"uid": metadata["uid"]}
        before = metadata.get("managedFields") or []
        if (managers := moved(before, version)) != before:
            patch |= {"resourceVersion": metadata["resourceVersion"], "managedFields": managers}
        elif only_managers:
            return False
        try:
            await client.patch(f"{path}/{paths.segment(metadata['name'])}", {"metadata": patch})
        except ApiError as error:
            if error.code not in _GONE:
                raise
            if "managedFields" not in patch:
                return False
            if attempt == _MAX_ATTEMPTS:
                raise
        else:
            return True
        # A list needs no other right than the list of all.
        pages = client.list_metadata(path, fieldSelector=f"metadata.name={metadata['name']}")
        found = [item["metadata"] async for page in pages for item in page["items"]]
        if not found:
            break
        metadata = found[0]
    return False


async def run(report: Callable[[Result], None]) -> bool:
    """Migrate all kinds, and report each result. Return whether all objects are in the storage version."""
    succeeded = True
    try:
        client = Client(await load_config())
    except ConfigError as error:
        report(Result(False, str(error)))
        return False
    try:
        for resource in RESOURCES:
            for result in await migrate(client, resource):
                succeeded &= result.succeeded
                report(result)
    except TRANSIENT_ERRORS as error:
        lacks_rights = isinstance(error, ApiError) and error.code in _NO_RIGHTS
        report(Result(False, messages.rights_missing(error) if lacks_rights else messages.request_failed(error)))
        return False
    finally:
        await client.close()
    return succeeded
