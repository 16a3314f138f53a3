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
from rescheduler.controllers.runtime.store import Kind, Store
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError, Client, Json
from rescheduler.kube.informers import Feed

log = structlog.get_logger("rescheduler.sources")

_PATHS = {
    Kind.POLICY: paths.POLICIES,
    Kind.DRAIN: paths.DRAINS,
    Kind.NODE: paths.NODES,
    Kind.POOL: paths.POOLS,
    Kind.NAMESPACE: paths.NAMESPACES,
}
_OURS = (Kind.POLICY, Kind.DRAIN, Kind.POOL)
_WATCHED = (*_OURS, Kind.NAMESPACE)


class AbsentError(ApiError):
    """The CRD of a kind of ours is not installed."""


class Sources:
    """Feeds the store; `changed` is told when a kind of ours is there or gone."""

    def __init__(self, client: Client, store: Store, changed: Callable[[], None]) -> None:
        self._client, self._store, self._changed = client, store, changed

    async def list_all(self) -> None:
        """Take in all that is there, and forget what is not."""
        for kind in _PATHS:
            await self._list_if_there(kind)

    async def follow(self, supervisor: Supervisor) -> None:
        """Keep all but nodes current, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind in _WATCHED:
                put, drop = partial(self._store.put, kind), partial(self._drop, kind)
                feed = Feed(self._client, _PATHS[kind], partial(self._list, kind), put, drop)
                group.create_task(supervisor.keep("watch", feed.run, subject=kind, vital=True))

    def _drop(self, kind: Kind, raw: Json) -> None:
        meta = raw["metadata"]
        self._store.drop(kind, meta["name"], not_after=int(meta["resourceVersion"]))

    async def _list_if_there(self, kind: Kind) -> None:
        try:
            await self._list(kind)
        except AbsentError:
            return

    async def _list(self, kind: Kind) -> str:
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
            if error.code == 404 and kind in _OURS:
                await self._note_absent(kind, error)
            raise
        self._store.resync(kind, found, int(version))
        if kind in self._store.absent:
            self._store.absent.discard(kind)
            log.info("kind.installed", kind=kind)
            self._changed()
        return version

    async def _note_absent(self, kind: Kind, error: ApiError) -> None:
        """A 404 alone proves nothing (a proxy, a server that starts): that the list of CRDs does not have it does."""
        if kind not in self._store.absent:
            definitions = await self._client.get(paths.DEFINITIONS, fieldSelector=f"metadata.name={paths.crd(kind)}")
            if definitions["items"]:
                return
            self._forget(kind, int(definitions["metadata"]["resourceVersion"]))
        raise AbsentError("GET", _PATHS[kind], error.refusal) from error

    def _forget(self, kind: Kind, version: int) -> None:
        if kind in self._store.absent:
            return  # another list was as fast
        self._store.absent.add(kind)
        log.error("kind.not_installed", kind=kind, crd=paths.crd(kind), hint=names.INSTALL)
        self._store.resync(kind, (), version)
        self._changed()
