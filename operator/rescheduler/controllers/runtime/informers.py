"""Where the facts come from: full lists of all kinds, and watches of all but nodes, which Kopf brings.

Our own kinds may come after us and go before us: a kind whose CRD is gone has no objects, and no process may end by
that. Kopf's would: it ends where what it watches is answered with 404. And of thousands of namespaces it would keep
more than all the rest.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from rescheduler.api import names
from rescheduler.controllers.runtime.store import ResourceKind, Store
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError, Client, Json
from rescheduler.kube.informers import Feed

log = structlog.get_logger("rescheduler.sources")

_PATHS = {
    ResourceKind.POLICY: paths.POLICIES,
    ResourceKind.DRAIN: paths.DRAINS,
    ResourceKind.NODE: paths.NODES,
    ResourceKind.POOL: paths.POOLS,
    ResourceKind.NAMESPACE: paths.NAMESPACES,
}
_OWN_KINDS = (ResourceKind.POLICY, ResourceKind.DRAIN, ResourceKind.POOL)
_WATCHED_KINDS = (*_OWN_KINDS, ResourceKind.NAMESPACE)


class CRDNotInstalledError(ApiError):
    """The CRD of a kind of ours is not installed."""


class StoreInformers:
    """Feeds the store; `changed` is told when a kind of ours is there or gone."""

    def __init__(self, client: Client, store: Store, on_kinds_changed: Callable[[], None]) -> None:
        self._client, self._store, self._on_kinds_changed = client, store, on_kinds_changed

    async def list_all(self) -> None:
        """Take in all that is there, and forget what is not."""
        for kind in _PATHS:
            await self._list_if_installed(kind)

    async def watch(self, supervisor: Supervisor) -> None:
        """Keep all but nodes current, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind in _WATCHED_KINDS:
                put, drop = partial(self._store.put, kind), partial(self._drop, kind)
                feed = Feed(self._client, _PATHS[kind], partial(self._list, kind), put, drop)
                group.create_task(supervisor.run_forever("watch", feed.run, subject=kind, vital=True))

    def _drop(self, kind: ResourceKind, raw: Json) -> None:
        meta = raw["metadata"]
        self._store.drop(kind, meta["name"], not_after=int(meta["resourceVersion"]))

    async def _list_if_installed(self, kind: ResourceKind) -> None:
        try:
            await self._list(kind)
        except CRDNotInstalledError:
            return

    async def _list(self, kind: ResourceKind) -> str:
        """All objects of a kind; the version to watch from.

        Raises AbsentError where the kind is not installed: then it is known that it has none.
        """
        found: list[str] = []
        version = ""
        try:
            async for page in self._client.list(_PATHS[kind]):
                version = version or page["metadata"]["resourceVersion"]
                for raw in page["items"]:
                    found.append(raw["metadata"]["name"])
                    self._store.put(kind, raw)
        except ApiError as error:
            if error.code == 404 and kind in _OWN_KINDS:
                await self._verify_not_installed(kind, error)
            raise
        self._store.resync(kind, found, int(version))
        if kind in self._store.not_installed:
            self._store.not_installed.discard(kind)
            log.info("kind.installed", kind=kind)
            self._on_kinds_changed()
        return version

    async def _verify_not_installed(self, kind: ResourceKind, error: ApiError) -> None:
        """A 404 alone proves nothing (a proxy, a server that starts): that the list of CRDs does not have it does."""
        if kind not in self._store.not_installed:
            definitions = await self._client.get(
                paths.CUSTOM_RESOURCE_DEFINITIONS, fieldSelector=f"metadata.name={paths.crd_name(kind)}"
            )
            if definitions["items"]:
                return
            self._record_not_installed(kind, int(definitions["metadata"]["resourceVersion"]))
        raise CRDNotInstalledError("GET", _PATHS[kind], error.response) from error

    def _record_not_installed(self, kind: ResourceKind, version: int) -> None:
        if kind in self._store.not_installed:
            return  # another list was as fast
        self._store.not_installed.add(kind)
        log.error("kind.not_installed", kind=kind, crd=paths.crd_name(kind), hint=names.INSTALL_HINT)
        self._store.resync(kind, (), version)
        self._on_kinds_changed()
