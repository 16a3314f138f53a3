"""Informers of the store: lists of all kinds, and watches of all kinds except nodes, which Kopf watches.

Users may install the CRDs after the operator, and may delete them before it. A kind without a CRD has no objects. Kopf
cannot watch these kinds, because a 404 ends its process. For thousands of namespaces Kopf would also need most of the
memory.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from rescheduler.api import names
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.model.crd_fields import is_served
from rescheduler.core.model.raw import RawObject
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError, Client
from rescheduler.kube.informers import Feed

log = structlog.get_logger("rescheduler.store.informers")

_PATHS = {
    ResourceKind.POLICY: paths.POLICIES,
    ResourceKind.DRAIN: paths.DRAINS,
    ResourceKind.NODE: paths.NODES,
    ResourceKind.POOL: paths.POOLS,
    ResourceKind.NAMESPACE: paths.NAMESPACES,
}
OWN_KINDS = (ResourceKind.POLICY, ResourceKind.DRAIN, ResourceKind.POOL)
"""The kinds of this operator."""
_WATCHED_KINDS = (*OWN_KINDS, ResourceKind.NAMESPACE)


class CRDNotInstalledError(ApiError):
    """The CRD of a kind of this operator is not installed."""


class StoreInformers:
    """Feed the store; `on_kinds_changed` is called when a CRD of this operator is installed or deleted."""

    def __init__(self, client: Client, store: Store, on_kinds_changed: Callable[[], None]) -> None:
        self._client, self._store, self._on_kinds_changed = client, store, on_kinds_changed

    async def list_all(self) -> None:
        """List all kinds into the store, and drop objects that no longer exist."""
        for kind in _PATHS:
            if kind is not ResourceKind.NODE or not await self._list_changed_nodes():
                await self._list_if_installed(kind)

    async def watch(self, supervisor: Supervisor) -> None:
        """Watch all kinds except nodes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind in _WATCHED_KINDS:
                put, drop = partial(self._store.put, kind), partial(self._drop, kind)
                feed = Feed(self._client, _PATHS[kind], partial(self._list, kind), put, drop)
                group.create_task(supervisor.run_forever("watch", feed.run, subject=kind, vital=True))

    def _drop(self, kind: ResourceKind, raw: RawObject) -> None:
        meta = raw["metadata"]
        self._store.drop(kind, meta["name"], not_after=int(meta["resourceVersion"]))

    async def _list_if_installed(self, kind: ResourceKind) -> None:
        try:
            await self._list(kind)
        except CRDNotInstalledError:
            return

    async def _list_changed_nodes(self) -> bool:
        """List the metadata of all nodes, and read the nodes that the watch has not delivered.

        Most of a Node are its images and conditions: the list of 5,000 nodes has 60 MB. Return False, without a change of
        the store, if so many nodes are missing that a full list is better.
        """
        if not self._store.nodes:
            return False
        listed_names: list[str] = []
        changed: list[str] = []
        version = ""
        async for page in self._client.list_metadata(paths.NODES):
            version = version or page["metadata"]["resourceVersion"]
            for raw in page["items"]:
                meta = raw["metadata"]
                listed_names.append(meta["name"])
                if not self._store.cache.has_version(ResourceKind.NODE, meta["name"], int(meta["resourceVersion"])):
                    changed.append(meta["name"])
        if len(changed) > paths.NODE_PAGE_SIZE:
            return False
        for name in changed:
            if found := await self._client.find(f"{paths.NODES}/{name}"):
                self._store.put(ResourceKind.NODE, found)
        self._store.resync(ResourceKind.NODE, listed_names, int(version))
        return True

    async def _list(self, kind: ResourceKind) -> str:
        """List all objects of a kind into the store; return the resourceVersion to watch from.

        Raises CRDNotInstalledError if the CRD is not installed: the store then has no objects of the kind.
        """
        listed_names: list[str] = []
        version = ""
        try:
            page_size = {"limit": paths.NODE_PAGE_SIZE} if kind is ResourceKind.NODE else {}
            async for page in self._client.list(_PATHS[kind], **page_size):
                version = version or page["metadata"]["resourceVersion"]
                for raw in page["items"]:
                    listed_names.append(raw["metadata"]["name"])
                    self._store.put(kind, raw)
        except ApiError as error:
            if error.code == 404 and kind in OWN_KINDS:
                await self._verify_not_installed(kind, error)
            raise
        self._store.set_served(kind, served=True)
        self._store.resync(kind, listed_names, int(version))
        if self._store.cache.set_installed(kind, installed=True):
            log.info("kind.installed", kind=kind)
            self._on_kinds_changed()
        return version

    async def _verify_not_installed(self, kind: ResourceKind, error: ApiError) -> None:
        """Raise CRDNotInstalledError if the list of CRDs lacks the kind; a 404 may come from a proxy or a starting server."""
        if kind not in self._store.cache.not_installed:
            definitions = await self._client.get(
                paths.CUSTOM_RESOURCE_DEFINITIONS, fieldSelector=f"metadata.name={paths.crd_name(kind)}"
            )
            if definitions["items"]:
                self._store.set_served(kind, served=is_served(definitions["items"][0]))
                return
            self._store.set_served(kind, served=True)
            self._record_not_installed(kind, int(definitions["metadata"]["resourceVersion"]))
        raise CRDNotInstalledError("GET", _PATHS[kind], error.response) from error

    def _record_not_installed(self, kind: ResourceKind, version: int) -> None:
        if not self._store.cache.set_installed(kind, installed=False):
            return  # a concurrent list has recorded it
        log.error("kind.not_installed", kind=kind, crd=paths.crd_name(kind), hint=names.INSTALL_HINT)
        self._store.resync(kind, (), version)
        self._on_kinds_changed()
