"""List, then watch, for ever: how a small part of the cluster is kept in view.

A mirror must notice deletions across a re-list (Kopf's watches do not), and must say when it is not current:
what is decided on a stale view is decided wrongly.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from rescheduler.kube.client import TRANSIENT, Client, ExpiredError, Json

T = TypeVar("T")
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0  # seconds


class Mirror(Generic[T]):
    """The objects under one path, projected, by uid.

    Attributes:
        items: what is there now.
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
        self.items: dict[str, T] = {}
        self.synced = False
        self._client, self._path, self._project = client, path, project
        self._changed, self._params = changed, params

    async def run(self) -> None:
        """Keep the mirror current until cancelled; back off with jitter while the server refuses."""
        wait = _FIRST_WAIT
        while True:
            try:
                version = await self._list()
                wait = _FIRST_WAIT
                await self._follow(version)
            except ExpiredError:
                continue
            except TRANSIENT:
                self._set_synced(synced=False)
                await asyncio.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
                wait = min(wait * 2, _LONGEST_WAIT)

    async def _list(self) -> str:
        items: dict[str, T] = {}
        version = ""
        async for page in self._client.list(self._path, **self._params):
            version = page["metadata"]["resourceVersion"]
            items |= {raw["metadata"]["uid"]: self._project(raw) for raw in page["items"]}
        self.items = items
        self._set_synced(synced=True)
        self._changed()
        return version

    async def _follow(self, version: str) -> None:
        while True:
            opened = asyncio.get_running_loop().time()
            async for kind, raw in self._client.watch(self._path, version=version, **self._params):
                version = raw["metadata"]["resourceVersion"]
                if kind != "BOOKMARK":
                    self._take(kind, raw)
            if asyncio.get_running_loop().time() - opened < 1:
                await asyncio.sleep(1)  # a server that ends streams at once must not be asked in a hot loop

    def _take(self, kind: str, raw: Json) -> None:
        uid = raw["metadata"]["uid"]
        if kind == "DELETED":
            self.items.pop(uid, None)
        else:
            self.items[uid] = self._project(raw)
        self._changed()

    def _set_synced(self, *, synced: bool) -> None:
        if self.synced != synced:
            self.synced = synced
            self._changed()
