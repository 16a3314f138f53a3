"""List, then watch, for ever: how a small part of the cluster is kept in view.

A mirror must notice deletions across a re-list (Kopf's watches do not), and must say when it is not current:
what is decided on a stale view is decided wrongly.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Generic, TypeVar

from rescheduler.kube import paths
from rescheduler.kube.backoff import Backoff
from rescheduler.kube.client import SILENCE, TRANSIENT, Client, ExpiredError, Json, SilentError

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0  # seconds
_LIVED = 5.0  # seconds; a watch that stood so long has worked, though nothing happened
_AT_ONCE = 0.5  # seconds; a watch that the server ends sooner was no watch
_DOUBT = 1.0  # seconds that a new list may take before the old view counts as stale
_FRESH = 30.0
"""Seconds for which a view is current while its watch waits for a connection."""
_REVISIONS = itertools.count(1)


class _Watch:
    """List, then watch, for ever; what is done with what comes is the subclass'.

    Attributes:
        synced: the first list is in, and the watch that follows it has not broken off since.
        error: why the last list or watch failed, or what it waits for; empty after one that did not.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        silence: float = SILENCE,
        keep: bool = False,
    ) -> None:
        self._client, self._path, self._params = client, path, params or {}
        self._silence, self._keep = silence, keep
        self._worked = False
        self._opened: float | None = None
        self._doubt: asyncio.TimerHandle | None = None
        self.synced = False
        self.error = ""

    async def run(self) -> None:
        """Keep current until cancelled; back off with jitter while something fails."""
        failures = 0
        try:
            while True:
                self._worked, self._opened = False, None
                pause = await self._live()
                # A list that succeeds proves little: the watch that follows it may be refused each time.
                failures = 0 if self._has_lived() else failures + 1
                if failures or pause:
                    wait = min(_FIRST_WAIT * 2 ** min(failures, 10), _LONGEST_WAIT)
                    await asyncio.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
        finally:
            self._be_sure()

    async def _live(self) -> bool:
        """List and watch until something ends it; whether it is a failure, and not just time for a new list."""
        try:
            version = await self._list()
            self._confirm()
            await self._follow(version)
        except (ExpiredError, SilentError) as error:
            words = str(error) or type(error).__name__
            self._be_sure()
            self._doubt = asyncio.get_running_loop().call_later(_DOUBT, self._lose, words)
            return False
        except TRANSIENT as error:
            self._lose(str(error))
        except Exception as error:  # noqa: BLE001 - a bug, or what nobody thought of: it must cost no more than this
            self._lose(f"{type(error).__name__}: {error}")
            self._client.report("watch.failed", self._path, f"{type(error).__name__}: {error}")
        return True

    def _has_lived(self) -> bool:
        lived = self._opened is not None and asyncio.get_running_loop().time() - self._opened >= _LIVED
        return self._worked or lived

    async def _follow(self, version: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            lapse = loop.call_later(_FRESH, self._lapse)
            self._opened = None
            try:
                async with self._client.turns.take(keep=self._keep) as turn:
                    lapse.cancel()
                    if not self.synced:  # it has waited for too long
                        version = await self._list()
                        self._confirm()
                    self._opened = loop.time()
                    stream = self._client.watch(
                        self._path, version=version, silence=self._silence, seconds=turn.seconds, **self._params
                    )
                    async with aclosing(stream):  # its connection is free before the turn is over
                        async for kind, raw in stream:
                            self._worked = True
                            version = raw["metadata"]["resourceVersion"]
                            if kind != "BOOKMARK":
                                self._take_in(kind, raw)
            finally:
                lapse.cancel()
            if self._opened is not None and loop.time() - self._opened >= _AT_ONCE:
                self._worked = True
            elif self._opened is not None:
                await asyncio.sleep(1)  # a server that ends streams at once must not be asked in a hot loop

    def _take_in(self, kind: str, raw: Json) -> None:
        if kind == "DELETED":
            self.drop(raw)
        else:
            self.put(raw)

    async def _list(self) -> str:
        """Take in all that is there; the version to watch from."""
        raise NotImplementedError

    def put(self, raw: Json) -> None:
        """Take in an object."""
        raise NotImplementedError

    def drop(self, raw: Json) -> None:
        """An object was deleted."""
        raise NotImplementedError

    def _be_sure(self) -> None:
        if self._doubt:
            self._doubt.cancel()
            self._doubt = None

    def _confirm(self) -> None:
        self._be_sure()
        self.error = ""
        self._set_synced(synced=True)

    def _lose(self, error: str) -> None:
        self._be_sure()
        self.error = error
        self._set_synced(synced=False)

    def _lapse(self) -> None:
        self._lose(f"it waits for one of the {self._client.turns.limit} connections for watches")

    def _set_synced(self, *, synced: bool) -> None:
        """The list is in, or the watch has broken off."""
        self.synced = synced

    def _project(self, project: Callable[[Json], T], raw: Json) -> tuple[T] | str:
        """The projection, or why there is none: one bad object must cost only itself."""
        try:
            return (project(raw),)
        except Exception as error:  # noqa: BLE001 - what others write is hostile
            words = f"{type(error).__name__}: {error}"[:300]
            meta = raw["metadata"]
            key = f"{meta.get('namespace', '')}/{meta.get('name', '')}".lstrip("/")
            self._client.report("object.unreadable", f"{self._path} {key}", words)
            return words


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
        super().__init__(client, path, keep=True)
        self._listing, self._put, self._drop = listing, put, drop

    async def _list(self) -> str:
        return await self._listing()

    def put(self, raw: Json) -> None:
        """Hand it on."""
        self._project(self._put, raw)

    def drop(self, raw: Json) -> None:
        """Hand it on."""
        self._drop(raw)


class View(Generic[T]):
    """Objects, projected, by uid.

    Attributes:
        items: what is there now.
        unreadable: what is there and cannot be projected: namespace/name and the reason.
        revision: another number after every change, and in every view.
    """

    def __init__(self) -> None:
        self.items: dict[str, T] = {}
        self.unreadable: dict[str, tuple[str, str]] = {}
        self.revision = next(_REVISIONS)
        self.versions: dict[str, int] = {}

    def put(self, raw: Json, project: Callable[[Json], tuple[T] | str], known: "View[T] | None" = None) -> bool:
        """Take in an object unless it is older than what is known; whether it was news.

        `known`: what was known before: what could not be read then is not read again.
        """
        meta = raw["metadata"]
        uid, version = meta["uid"], int(meta["resourceVersion"])
        if self.versions.get(uid, -1) >= version:
            return False
        bad = known.unreadable.get(uid) if known and known.versions.get(uid) == version else None
        found = bad[1] if bad else project(raw)
        self.versions[uid] = version
        if isinstance(found, tuple):
            self.items[uid] = found[0]
            self.unreadable.pop(uid, None)
        else:
            self.items.pop(uid, None)
            self.unreadable[uid] = (f"{meta.get('namespace', '')}/{meta.get('name', '')}".lstrip("/"), found)
        self.revision = next(_REVISIONS)
        return True

    def take_later(self, other: "View[T]", version: int) -> None:
        """Take in what another view has that is later than this version."""
        for uid, seen in other.versions.items():
            if seen <= version or seen <= self.versions.get(uid, -1):
                continue
            self.drop(uid)
            self.versions[uid] = seen
            if uid in other.items:
                self.items[uid] = other.items[uid]
            else:
                self.unreadable[uid] = other.unreadable[uid]

    def drop(self, uid: str) -> None:
        """Forget an object."""
        self.items.pop(uid, None)
        self.unreadable.pop(uid, None)
        self.versions.pop(uid, None)
        self.revision = next(_REVISIONS)


def _missing(path: str, error: str) -> str:
    return f"the list {path} is not there yet" + (f" ({error})" if error else "")


class Mirror(_Watch, Generic[T]):
    """The objects under one path, projected, by uid."""

    def __init__(
        self,
        client: Client,
        path: str,
        project: Callable[[Mapping[str, Any]], T],
        changed: Callable[[], None],
        *,
        params: Mapping[str, str] | None = None,
        silence: float = SILENCE,
        keep: bool = False,
    ) -> None:
        super().__init__(client, path, params=params, silence=silence, keep=keep)
        self._view: View[T] = View()
        self._read, self._changed = partial(self._project, project), changed

    @property
    def items(self) -> dict[str, T]:
        """What is there now."""
        return self._view.items

    @property
    def revision(self) -> int:
        """Another number after every change, and in every mirror."""
        return self._view.revision

    @property
    def unreadable(self) -> Mapping[str, str]:
        """What is there and cannot be read, by namespace/name: why."""
        return dict(self._view.unreadable.values())

    @property
    def unread(self) -> frozenset[str]:
        """Uids of what is there and cannot be read."""
        return frozenset(self._view.unreadable)

    async def _list(self) -> str:
        view: View[T] = View()
        version = ""
        async for page in self._client.list(self._path, **self._params):
            version = page["metadata"]["resourceVersion"]
            for raw in page["items"]:
                view.put(raw, self._read, self._view)
        self._view = view
        self._changed()
        return version

    def drop(self, raw: Json) -> None:
        """Forget an object that was deleted."""
        self._view.drop(raw["metadata"]["uid"])
        self._changed()

    def put(self, raw: Json) -> None:
        """Take in an object: from the watch, or from the answer to a write, whose event may come later."""
        if self._view.put(raw, self._read):
            self._changed()

    def replace(self, uid: str, value: T) -> None:
        """Correct what is known of one object until the server says more."""
        self._view.items[uid] = value

    def _set_synced(self, *, synced: bool) -> None:
        if self.synced != synced:
            self.synced = synced
            self._changed()


class Mirrors(Generic[K, T]):
    """Mirrors by key, each shared by all who hold it and closed when the last lets go; nothing is polled.

    `address` gives path and parameters for a key; `changed` is told who holds what changed. `keep`: there are few, and
    they always keep their connections.
    """

    def __init__(
        self,
        client: Client,
        address: Callable[[K], tuple[str, Mapping[str, str]]],
        project: Callable[[Mapping[str, Any]], T],
        changed: Callable[[Iterable[str]], None],
        *,
        keep: bool = False,
    ) -> None:
        self._client, self._address, self._project, self._changed = client, address, project, changed
        self._keep = keep
        self._running: dict[K, tuple[Mirror[T], asyncio.Task[None]]] = {}
        self._holders: dict[K, set[str]] = {}

    def hold(self, holder: str, keys: Iterable[K]) -> None:
        """Keep these in view for this holder, and no others for it any more."""
        wanted = set(keys)
        for key in wanted:
            self._holders.setdefault(key, set()).add(holder)
            if key not in self._running:
                path, params = self._address(key)
                tell = partial(self._tell, key)
                mirror = Mirror(self._client, path, self._project, tell, params=params, keep=self._keep)
                self._running[key] = (mirror, asyncio.create_task(mirror.run(), name=f"mirror {key}"))
        for key, holders in list(self._holders.items()):
            if key not in wanted:
                holders.discard(holder)
            if not holders:
                del self._holders[key]
                self._running.pop(key)[1].cancel()

    def _tell(self, key: K) -> None:
        self._changed(tuple(self._holders.get(key, ())))

    def get(self, key: K) -> Mapping[str, T] | None:
        """What is there now, by uid; None while that is not known for sure."""
        held = self._running.get(key)
        return held[0].items if held and held[0].synced else None

    def held(self, holder: str) -> tuple[K, ...]:
        """Return what this holder keeps in view."""
        return tuple(key for key, holders in self._holders.items() if holder in holders)

    def missing(self, keys: Iterable[K]) -> str:
        """Return which view is not there, and why; empty if all are."""
        for key in keys:
            found = self._running.get(key)
            if found is None or not found[0].synced:
                return _missing(self._address(key)[0], found[0].error if found else "")
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
            held[0].replace(uid, value)


class _Space(Generic[T]):
    """One namespace of a kind.

    Attributes:
        listed: the version of its list; 0 while there is none.
        gone: uids of what was deleted while the list was under way: the list may still have them.
    """

    def __init__(self) -> None:
        self.view: View[T] = View()
        self.listed = 0
        self.gone: set[str] = set()


class _Shared(_Watch, Generic[T]):
    """One kind in some namespaces: each is listed by itself, and one watch of the whole cluster follows them all.

    What lies in other namespaces is dropped as it comes: memory does not grow with the cluster.
    """

    def __init__(
        self,
        client: Client,
        kind: tuple[str, str],
        project: Callable[[Mapping[str, Any]], T],
        changed: Callable[[str], None],
    ) -> None:
        super().__init__(client, paths.everywhere(*kind), keep=True)
        self._kind, self._read, self._changed = kind, partial(self._project, project), changed
        self._listing: dict[str, asyncio.Task[None]] = {}
        self._anchored = False  # there is a version to watch from: lists that begin from now on are later
        self.spaces: dict[str, _Space[T]] = {}
        self.errors: dict[str, str] = {}  # by namespace: why its last list failed

    def add(self, name: str) -> None:
        """Have a namespace in view too."""
        self.spaces[name] = _Space()
        if self._anchored:
            self._begin(name)

    def remove(self, name: str) -> None:
        """Have a namespace in view no more."""
        del self.spaces[name]
        self.errors.pop(name, None)
        if task := self._listing.pop(name, None):
            task.cancel()

    def close(self) -> None:
        """End what is under way."""
        for task in self._listing.values():
            task.cancel()

    async def _list(self) -> str:
        """List the first namespace, for a version to watch from, and have the others listed beside the watch.

        A version of a list of one namespace is one of the whole kind: the server counts them so.
        """
        self._anchored = False
        self.close()
        self._listing.clear()
        for space in self.spaces.values():
            space.listed = 0
        version = await self._list_space(next(iter(self.spaces)))
        self._anchored = True
        for name, space in self.spaces.items():
            if not space.listed:
                self._begin(name)
        return str(version)

    def _begin(self, name: str) -> None:
        self._listing[name] = asyncio.create_task(self._list_until_done(name), name=f"list {self._path} of {name}")

    async def _list_until_done(self, name: str) -> None:
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        while True:
            try:
                await self._list_space(name)
            except TRANSIENT as error:
                self.errors[name] = str(error)
            except Exception as error:  # noqa: BLE001 - see run
                self.errors[name] = f"{type(error).__name__}: {error}"
                self._client.report("watch.failed", f"{self._path} of {name}", self.errors[name])
            else:
                self._listing.pop(name, None)
                self.errors.pop(name, None)
                return
            await asyncio.sleep(backoff.next())

    async def _list_space(self, name: str) -> int:
        space = self.spaces[name]
        before, space.view, space.gone = space.view, View(), set()
        listed: View[T] = View()
        version = 0
        async for page in self._client.list(paths.namespaced(self._kind[0], name, self._kind[1])):
            version = int(page["metadata"]["resourceVersion"])
            for raw in page["items"]:
                listed.put(raw, self._read, before)
        for uid in space.gone:
            listed.drop(uid)
        listed.take_later(space.view, version)
        space.view, space.listed = listed, version
        self._changed(name)
        return version

    def _space(self, raw: Json) -> _Space[T] | None:
        """Of an event; None where it is nobody's, or older than the list."""
        space = self.spaces.get(raw["metadata"].get("namespace", ""))
        return space if space and int(raw["metadata"]["resourceVersion"]) > space.listed else None

    def put(self, raw: Json) -> None:
        """Take in an object."""
        if (space := self._space(raw)) and space.view.put(raw, self._read):
            self._changed(raw["metadata"]["namespace"])

    def drop(self, raw: Json) -> None:
        """Forget an object that was deleted."""
        if space := self._space(raw):
            space.gone.add(raw["metadata"]["uid"])
            space.view.drop(raw["metadata"]["uid"])
            self._changed(raw["metadata"]["namespace"])

    def _set_synced(self, *, synced: bool) -> None:
        if self.synced != synced:
            self.synced = synced
            for name in tuple(self.spaces):
                self._changed(name)


class Namespaces(Generic[T]):
    """One kind in the namespaces that somebody holds, by one watch for all of them; nothing is polled.

    `version` and `resource` as in `apps/v1` and `deployments`; `changed` is told who holds the namespace that changed.
    """

    def __init__(
        self,
        client: Client,
        version: str,
        resource: str,
        project: Callable[[Mapping[str, Any]], T],
        changed: Callable[[Iterable[str]], None],
    ) -> None:
        self._client, self._kind, self._project, self._changed = client, (version, resource), project, changed
        self._shared: _Shared[T] | None = None
        self._task: asyncio.Task[None] | None = None
        self._holders: dict[str, set[str]] = {}

    def hold(self, holder: str, namespaces: Iterable[str]) -> None:
        """Keep these in view for this holder, and no others for it any more."""
        wanted = set(namespaces)
        new = [name for name in wanted if name not in self._holders]
        for name in wanted:
            self._holders.setdefault(name, set()).add(holder)
        if new:
            shared = self._shared = self._shared or _Shared(self._client, self._kind, self._project, self._tell)
            for name in new:
                shared.add(name)
            self._task = self._task or asyncio.create_task(shared.run(), name=f"mirror {' '.join(self._kind)}")
        for name, holders in list(self._holders.items()):
            if name not in wanted:
                holders.discard(holder)
            if not holders:
                del self._holders[name]
                if self._shared:
                    self._shared.remove(name)
        if not self._holders and self._task and self._shared:
            self._task.cancel()
            self._shared.close()
            self._task = self._shared = None

    def _tell(self, namespace: str) -> None:
        self._changed(tuple(self._holders.get(namespace, ())))

    def _view(self, namespace: str) -> View[T] | None:
        space = self._shared.spaces.get(namespace) if self._shared and self._shared.synced else None
        return space.view if space and space.listed else None

    def get(self, namespace: str) -> Mapping[str, T] | None:
        """What is there now, by uid; None while that is not known for sure."""
        view = self._view(namespace)
        return view.items if view else None

    def held(self, holder: str) -> tuple[str, ...]:
        """Return what this holder keeps in view."""
        return tuple(name for name, holders in self._holders.items() if holder in holders)

    def missing(self, namespaces: Iterable[str]) -> str:
        """Return which view is not there, and why; empty if all are."""
        for name in namespaces:
            if self._view(name) is None:
                return _missing(paths.namespaced(self._kind[0], name, self._kind[1]), self._error(name))
        return ""

    def _error(self, namespace: str) -> str:
        return self._shared.error or self._shared.errors.get(namespace, "") if self._shared else ""

    def unreadable(self, namespace: str) -> Mapping[str, str]:
        """What is there and cannot be read, by namespace/name: why."""
        view = self._view(namespace)
        return dict(view.unreadable.values()) if view else {}

    def revision(self, namespace: str) -> int:
        """Another number after every change of what is in view."""
        space = self._shared.spaces.get(namespace) if self._shared else None
        return space.view.revision if space else 0

    def replace(self, namespace: str, uid: str, value: T) -> None:
        """Correct what is known of one object until the server says more."""
        if view := self._view(namespace):
            view.items[uid] = value
