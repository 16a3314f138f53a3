"""List, then watch, for ever: how a small part of the cluster is kept in view.

A mirror must notice deletions across a re-list (Kopf's watches do not), and must say when it is not current:
what is decided on a stale view is decided wrongly.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

from rescheduler.kube.client import TRANSIENT, Client, ExpiredError, Json

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0  # seconds
_REVISIONS = itertools.count(1)


class _Watch:
    """List, then watch, for ever; what is done with what comes is the subclass'.

    Attributes:
        error: why the last list or watch failed; empty after one that did not.
    """

    def __init__(self, client: Client, path: str, **params: str) -> None:
        self._client, self._path, self._params = client, path, params
        self.error = ""

    async def run(self) -> None:
        """Keep current until cancelled; back off with jitter while the server refuses."""
        wait = _FIRST_WAIT
        while True:
            try:
                version = await self._list()
                self.error = ""
                wait = _FIRST_WAIT
                await self._follow(version)
            except ExpiredError:
                continue
            except TRANSIENT as error:
                self.error = str(error)
                self._set_synced(synced=False)
                await asyncio.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
                wait = min(wait * 2, _LONGEST_WAIT)

    async def _follow(self, version: str) -> None:
        while True:
            opened = asyncio.get_running_loop().time()
            async for kind, raw in self._client.watch(self._path, version=version, **self._params):
                version = raw["metadata"]["resourceVersion"]
                if kind == "DELETED":
                    self.drop(raw)
                elif kind != "BOOKMARK":
                    self.put(raw)
            if asyncio.get_running_loop().time() - opened < 1:
                await asyncio.sleep(1)  # a server that ends streams at once must not be asked in a hot loop

    async def _list(self) -> str:
        """Take in all that is there; the version to watch from."""
        raise NotImplementedError

    def put(self, raw: Json) -> None:
        """Take in an object."""
        raise NotImplementedError

    def drop(self, raw: Json) -> None:
        """An object was deleted."""
        raise NotImplementedError

    def _set_synced(self, *, synced: bool) -> None:
        """The first list is in, or the watch has broken off."""


class Feed(_Watch):
    """Hands objects on to whoever keeps them: each as it is now, and each that was deleted.

    `listing` takes in all that is there, and answers with the version to watch from. Kopf would do it too, but keeps
    some 5 kB of each object.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        listing: Callable[[], Awaitable[str]],
        put: Callable[[Json], None],
        drop: Callable[[Json], None],
    ) -> None:
        super().__init__(client, path)
        self._listing, self._put, self._drop = listing, put, drop

    async def _list(self) -> str:
        return await self._listing()

    def put(self, raw: Json) -> None:
        """Hand it on."""
        self._put(raw)

    def drop(self, raw: Json) -> None:
        """Hand it on."""
        self._drop(raw)


class Mirror(_Watch, Generic[T]):
    """The objects under one path, projected, by uid.

    Attributes:
        items: what is there now.
        revision: another number after every change, and in every mirror.
        synced: the first list is in, and the watch that follows it has not broken off since.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        project: Callable[[Mapping[str, Any]], T],
        changed: Callable[[], None],
        **params: str,
    ) -> None:
        super().__init__(client, path, **params)
        self.items: dict[str, T] = {}
        self.revision = next(_REVISIONS)
        self.synced = False
        self._versions: dict[str, int] = {}
        self._project, self._changed = project, changed

    async def _list(self) -> str:
        items: dict[str, T] = {}
        versions: dict[str, int] = {}
        version = ""
        async for page in self._client.list(self._path, **self._params):
            version = page["metadata"]["resourceVersion"]
            for raw in page["items"]:
                uid = raw["metadata"]["uid"]
                items[uid], versions[uid] = self._project(raw), int(raw["metadata"]["resourceVersion"])
        self.items, self._versions = items, versions
        self.revision = next(_REVISIONS)
        self._set_synced(synced=True)
        self._changed()
        return version

    def drop(self, raw: Json) -> None:
        """Forget an object that was deleted."""
        self.items.pop(raw["metadata"]["uid"], None)
        self.revision = next(_REVISIONS)
        self._versions.pop(raw["metadata"]["uid"], None)
        self._changed()

    def put(self, raw: Json) -> None:
        """Take in an object: from the watch, or from the answer to a write, whose event may come later."""
        uid, version = raw["metadata"]["uid"], int(raw["metadata"]["resourceVersion"])
        if self._versions.get(uid, -1) >= version:
            return
        self._versions[uid] = version
        self.items[uid] = self._project(raw)
        self.revision = next(_REVISIONS)
        self._changed()

    def _set_synced(self, *, synced: bool) -> None:
        if self.synced != synced:
            self.synced = synced
            self._changed()


class Mirrors(Generic[K, T]):
    """Mirrors by key, each shared by all who hold it and closed when the last lets go; nothing is polled.

    `address` gives path and parameters for a key; `changed` is told who holds what changed.
    """

    def __init__(
        self,
        client: Client,
        address: Callable[[K], tuple[str, Mapping[str, str]]],
        project: Callable[[Mapping[str, Any]], T],
        changed: Callable[[Iterable[str]], None],
    ) -> None:
        self._client, self._address, self._project, self._changed = client, address, project, changed
        self._running: dict[K, tuple[Mirror[T], asyncio.Task[None]]] = {}
        self._holders: dict[K, set[str]] = {}

    def hold(self, holder: str, keys: Iterable[K]) -> None:
        """Keep these in view for this holder, and no others for it any more."""
        wanted = set(keys)
        for key in wanted:
            self._holders.setdefault(key, set()).add(holder)
            if key not in self._running:
                path, params = self._address(key)
                mirror = Mirror(self._client, path, self._project, partial(self._tell, key), **params)
                self._running[key] = (mirror, asyncio.create_task(mirror.run(), name=f"mirror {key}"))
        for key, holders in list(self._holders.items()):
            if key not in wanted:
                holders.discard(holder)
            if not holders:
                del self._holders[key]
                self._running.pop(key)[1].cancel()

    def held(self, holder: str) -> tuple[K, ...]:
        """Return what this holder keeps in view."""
        return tuple(key for key, holders in self._holders.items() if holder in holders)

    def _tell(self, key: K) -> None:
        self._changed(tuple(self._holders.get(key, ())))

    def get(self, key: K) -> Mapping[str, T] | None:
        """What is there now, by uid; None while that is not known for sure."""
        held = self._running.get(key)
        return held[0].items if held and held[0].synced else None

    def missing(self, keys: Iterable[K]) -> str:
        """Return which view is not there, and why; empty if all are."""
        for key in keys:
            held = self._running.get(key)
            if held is None or not held[0].synced:
                why = f" ({held[0].error})" if held and held[0].error else ""
                return f"the list {self._address(key)[0]} is not there yet{why}"
        return ""

    def revision(self, key: K) -> int:
        """Another number after every change of what is in view."""
        held = self._running.get(key)
        return held[0].revision if held else 0

    def put(self, key: K, raw: Json) -> None:
        """Take in the answer to a write."""
        if held := self._running.get(key):
            held[0].put(raw)

    def replace(self, key: K, uid: str, value: T) -> None:
        """Correct what is known of one object until the server says more."""
        if held := self._running.get(key):
            held[0].items[uid] = value
