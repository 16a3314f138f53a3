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
from rescheduler.kube.client import TRANSIENT_ERRORS, WATCH_IDLE_TIMEOUT, Client, ExpiredError, Json, WatchStalledError

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
_FIRST_DELAY, _MAX_DELAY = 0.2, 10.0  # seconds
_WATCH_WORKED_AFTER = 5.0  # seconds; a watch that stood so long has worked, though nothing happened
_MIN_WATCH_SECONDS = 0.5  # seconds; a watch that the server ends sooner was no watch
_RELIST_STALE_AFTER = 1.0  # seconds that a new list may take before the old view counts as stale
_WAITING_STALE_AFTER = 30.0
"""Seconds for which a view is current while its watch waits for a connection."""
_REVISIONS = itertools.count(1)


class _Reflector:
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
        idle_timeout: float = WATCH_IDLE_TIMEOUT,
        permanent: bool = False,
    ) -> None:
        self._client, self._path, self._params = client, path, params or {}
        self._idle_timeout, self._permanent = idle_timeout, permanent
        self._watch_worked = False
        self._watch_opened_at: float | None = None
        self._stale_timer: asyncio.TimerHandle | None = None
        self.synced = False
        self.error = ""

    async def run(self) -> None:
        """Keep current until cancelled; back off with jitter while something fails."""
        failures = 0
        try:
            while True:
                self._watch_worked, self._watch_opened_at = False, None
                pause = await self._list_and_watch()
                # A list that succeeds proves little: the watch that follows it may be refused each time.
                failures = 0 if self._has_worked() else failures + 1
                if failures or pause:
                    wait = min(_FIRST_DELAY * 2 ** min(failures, 10), _MAX_DELAY)
                    await asyncio.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
        finally:
            self._cancel_stale_timer()

    async def _list_and_watch(self) -> bool:
        """List and watch until something ends it; whether it is a failure, and not just time for a new list."""
        try:
            version = await self._list()
            self._mark_synced()
            await self._watch(version)
        except (ExpiredError, WatchStalledError) as error:
            words = str(error) or type(error).__name__
            self._cancel_stale_timer()
            self._stale_timer = asyncio.get_running_loop().call_later(_RELIST_STALE_AFTER, self._mark_stale, words)
            return False
        except TRANSIENT_ERRORS as error:
            self._mark_stale(str(error))
        except Exception as error:  # noqa: BLE001 - a bug, or what nobody thought of: it must cost no more than this
            self._mark_stale(f"{type(error).__name__}: {error}")
            self._client.report("watch.failed", self._path, f"{type(error).__name__}: {error}")
        return True

    def _has_worked(self) -> bool:
        lived = (
            self._watch_opened_at is not None
            and asyncio.get_running_loop().time() - self._watch_opened_at >= _WATCH_WORKED_AFTER
        )
        return self._watch_worked or lived

    async def _watch(self, version: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            lapse = loop.call_later(_WAITING_STALE_AFTER, self._mark_stale_waiting)
            self._watch_opened_at = None
            try:
                async with self._client.watch_limiter.acquire(permanent=self._permanent) as turn:
                    lapse.cancel()
                    if not self.synced:  # it has waited for too long
                        version = await self._list()
                        self._mark_synced()
                    self._watch_opened_at = loop.time()
                    stream = self._client.watch(
                        self._path,
                        version=version,
                        idle_timeout=self._idle_timeout,
                        seconds=turn.seconds,
                        **self._params,
                    )
                    async with aclosing(stream):  # its connection is free before the turn is over
                        async for kind, raw in stream:
                            self._watch_worked = True
                            version = raw["metadata"]["resourceVersion"]
                            if kind != "BOOKMARK":
                                self._apply_event(kind, raw)
            finally:
                lapse.cancel()
            if self._watch_opened_at is not None and loop.time() - self._watch_opened_at >= _MIN_WATCH_SECONDS:
                self._watch_worked = True
            elif self._watch_opened_at is not None:
                await asyncio.sleep(1)  # a server that ends streams at once must not be asked in a hot loop

    def _apply_event(self, kind: str, raw: Json) -> None:
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

    def _cancel_stale_timer(self) -> None:
        if self._stale_timer:
            self._stale_timer.cancel()
            self._stale_timer = None

    def _mark_synced(self) -> None:
        self._cancel_stale_timer()
        self.error = ""
        self._set_synced(synced=True)

    def _mark_stale(self, error: str) -> None:
        self._cancel_stale_timer()
        self.error = error
        self._set_synced(synced=False)

    def _mark_stale_waiting(self) -> None:
        self._mark_stale(f"it waits for one of the {self._client.watch_limiter.limit} connections for watches")

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


class Feed(_Reflector):
    """Hands objects on to whoever keeps them: each as it is now, and each that was deleted.

    `listing` takes in all that is there, and answers with the version to watch from. Kopf would do it too, but keeps
    some 5 kB of each object.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        list_all: Callable[[], Awaitable[str]],
        put: Callable[[Json], None],
        drop: Callable[[Json], None],
    ) -> None:
        super().__init__(client, path, permanent=True)
        self._list_all, self._put, self._drop = list_all, put, drop

    async def _list(self) -> str:
        return await self._list_all()

    def put(self, raw: Json) -> None:
        """Hand it on."""
        self._project(self._put, raw)

    def drop(self, raw: Json) -> None:
        """Hand it on."""
        self._drop(raw)


class ObjectCache(Generic[T]):
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
        self.resource_versions: dict[str, int] = {}

    def put(
        self, raw: Json, project: Callable[[Json], tuple[T] | str], previous: "ObjectCache[T] | None" = None
    ) -> bool:
        """Take in an object unless it is older than what is known; whether it was news.

        `known`: what was known before: what could not be read then is not read again.
        """
        meta = raw["metadata"]
        uid, version = meta["uid"], int(meta["resourceVersion"])
        if self.resource_versions.get(uid, -1) >= version:
            return False
        bad = previous.unreadable.get(uid) if previous and previous.resource_versions.get(uid) == version else None
        found = bad[1] if bad else project(raw)
        self.resource_versions[uid] = version
        if isinstance(found, tuple):
            self.items[uid] = found[0]
            self.unreadable.pop(uid, None)
        else:
            self.items.pop(uid, None)
            self.unreadable[uid] = (f"{meta.get('namespace', '')}/{meta.get('name', '')}".lstrip("/"), found)
        self.revision = next(_REVISIONS)
        return True

    def merge_newer(self, other: "ObjectCache[T]", version: int) -> None:
        """Take in what another view has that is later than this version."""
        for uid, seen in other.resource_versions.items():
            if seen <= version or seen <= self.resource_versions.get(uid, -1):
                continue
            self.drop(uid)
            self.resource_versions[uid] = seen
            if uid in other.items:
                self.items[uid] = other.items[uid]
            else:
                self.unreadable[uid] = other.unreadable[uid]

    def drop(self, uid: str) -> None:
        """Forget an object."""
        self.items.pop(uid, None)
        self.unreadable.pop(uid, None)
        self.resource_versions.pop(uid, None)
        self.revision = next(_REVISIONS)


def _not_synced_message(path: str, error: str) -> str:
    return f"the list {path} is not there yet" + (f" ({error})" if error else "")


class Informer(_Reflector, Generic[T]):
    """The objects under one path, projected, by uid."""

    def __init__(
        self,
        client: Client,
        path: str,
        project: Callable[[Mapping[str, Any]], T],
        on_change: Callable[[], None],
        *,
        params: Mapping[str, str] | None = None,
        idle_timeout: float = WATCH_IDLE_TIMEOUT,
        permanent: bool = False,
    ) -> None:
        super().__init__(client, path, params=params, idle_timeout=idle_timeout, permanent=permanent)
        self._cache: ObjectCache[T] = ObjectCache()
        self._try_project, self._on_change = partial(self._project, project), on_change

    @property
    def items(self) -> dict[str, T]:
        """What is there now."""
        return self._cache.items

    @property
    def revision(self) -> int:
        """Another number after every change, and in every mirror."""
        return self._cache.revision

    @property
    def unreadable(self) -> Mapping[str, str]:
        """What is there and cannot be read, by namespace/name: why."""
        return dict(self._cache.unreadable.values())

    @property
    def unreadable_uids(self) -> frozenset[str]:
        """Uids of what is there and cannot be read."""
        return frozenset(self._cache.unreadable)

    async def _list(self) -> str:
        view: ObjectCache[T] = ObjectCache()
        version = ""
        async for page in self._client.list(self._path, **self._params):
            version = page["metadata"]["resourceVersion"]
            for raw in page["items"]:
                view.put(raw, self._try_project, self._cache)
        self._cache = view
        self._on_change()
        return version

    def drop(self, raw: Json) -> None:
        """Forget an object that was deleted."""
        self._cache.drop(raw["metadata"]["uid"])
        self._on_change()

    def put(self, raw: Json) -> None:
        """Take in an object: from the watch, or from the answer to a write, whose event may come later."""
        if self._cache.put(raw, self._try_project):
            self._on_change()

    def override(self, uid: str, value: T) -> None:
        """Correct what is known of one object until the server says more."""
        self._cache.items[uid] = value

    def _set_synced(self, *, synced: bool) -> None:
        if self.synced != synced:
            self.synced = synced
            self._on_change()


class SharedInformers(Generic[K, T]):
    """Mirrors by key, each shared by all who hold it and closed when the last lets go; nothing is polled.

    `address` gives path and parameters for a key; `changed` is told who holds what changed. `keep`: there are few, and
    they always keep their connections.
    """

    def __init__(
        self,
        client: Client,
        path_for: Callable[[K], tuple[str, Mapping[str, str]]],
        project: Callable[[Mapping[str, Any]], T],
        on_change: Callable[[Iterable[str]], None],
        *,
        permanent: bool = False,
    ) -> None:
        self._client, self._path_for, self._project, self._on_change = client, path_for, project, on_change
        self._permanent = permanent
        self._running: dict[K, tuple[Informer[T], asyncio.Task[None]]] = {}
        self._subscribers: dict[K, set[str]] = {}

    def subscribe(self, subscriber: str, keys: Iterable[K]) -> None:
        """Keep these in view for this holder, and no others for it any more."""
        wanted = set(keys)
        for key in wanted:
            self._subscribers.setdefault(key, set()).add(subscriber)
            if key not in self._running:
                path, params = self._path_for(key)
                tell = partial(self._notify, key)
                mirror = Informer(self._client, path, self._project, tell, params=params, permanent=self._permanent)
                self._running[key] = (mirror, asyncio.create_task(mirror.run(), name=f"mirror {key}"))
        for key, holders in list(self._subscribers.items()):
            if key not in wanted:
                holders.discard(subscriber)
            if not holders:
                del self._subscribers[key]
                self._running.pop(key)[1].cancel()

    def _notify(self, key: K) -> None:
        self._on_change(tuple(self._subscribers.get(key, ())))

    def get(self, key: K) -> Mapping[str, T] | None:
        """What is there now, by uid; None while that is not known for sure."""
        held = self._running.get(key)
        return held[0].items if held and held[0].synced else None

    def subscribed(self, subscriber: str) -> tuple[K, ...]:
        """Return what this holder keeps in view."""
        return tuple(key for key, holders in self._subscribers.items() if subscriber in holders)

    def why_not_synced(self, keys: Iterable[K]) -> str:
        """Return which view is not there, and why; empty if all are."""
        for key in keys:
            found = self._running.get(key)
            if found is None or not found[0].synced:
                return _not_synced_message(self._path_for(key)[0], found[0].error if found else "")
        return ""

    def revision(self, key: K) -> int:
        """Another number after every change of what is in view."""
        held = self._running.get(key)
        return held[0].revision if held else 0

    def put(self, key: K, raw: Json) -> None:
        """Take in the answer to a write."""
        if held := self._running.get(key):
            held[0].put(raw)

    def override(self, key: K, uid: str, value: T) -> None:
        """Correct what is known of one object until the server says more."""
        if held := self._running.get(key):
            held[0].override(uid, value)


class _NamespaceCache(Generic[T]):
    """One namespace of a kind.

    Attributes:
        listed: the version of its list; 0 while there is none.
        gone: uids of what was deleted while the list was under way: the list may still have them.
    """

    def __init__(self) -> None:
        self.cache: ObjectCache[T] = ObjectCache()
        self.list_version = 0
        self.deleted_during_list: set[str] = set()


class _NamespacedReflector(_Reflector, Generic[T]):
    """One kind in some namespaces: each is listed by itself, and one watch of the whole cluster follows them all.

    What lies in other namespaces is dropped as it comes: memory does not grow with the cluster.
    """

    def __init__(
        self,
        client: Client,
        kind: tuple[str, str],
        project: Callable[[Mapping[str, Any]], T],
        on_change: Callable[[str], None],
    ) -> None:
        super().__init__(client, paths.in_all_namespaces(*kind), permanent=True)
        self._kind, self._try_project, self._on_change = kind, partial(self._project, project), on_change
        self._list_tasks: dict[str, asyncio.Task[None]] = {}
        self._has_start_version = False  # there is a version to watch from: lists that begin from now on are later
        self.namespaces: dict[str, _NamespaceCache[T]] = {}
        self.errors: dict[str, str] = {}  # by namespace: why its last list failed

    def add(self, name: str) -> None:
        """Have a namespace in view too."""
        self.namespaces[name] = _NamespaceCache()
        if self._has_start_version:
            self._start_list(name)

    def remove(self, name: str) -> None:
        """Have a namespace in view no more."""
        del self.namespaces[name]
        self.errors.pop(name, None)
        if task := self._list_tasks.pop(name, None):
            task.cancel()

    def close(self) -> None:
        """End what is under way."""
        for task in self._list_tasks.values():
            task.cancel()

    async def _list(self) -> str:
        """List the first namespace, for a version to watch from, and have the others listed beside the watch.

        A version of a list of one namespace is one of the whole kind: the server counts them so.
        """
        self._has_start_version = False
        self.close()
        self._list_tasks.clear()
        for space in self.namespaces.values():
            space.list_version = 0
        version = await self._list_namespace(next(iter(self.namespaces)))
        self._has_start_version = True
        for name, space in self.namespaces.items():
            if not space.list_version:
                self._start_list(name)
        return str(version)

    def _start_list(self, name: str) -> None:
        self._list_tasks[name] = asyncio.create_task(self._list_with_retries(name), name=f"list {self._path} of {name}")

    async def _list_with_retries(self, name: str) -> None:
        backoff = Backoff(_FIRST_DELAY, _MAX_DELAY)
        while True:
            try:
                await self._list_namespace(name)
            except TRANSIENT_ERRORS as error:
                self.errors[name] = str(error)
            except Exception as error:  # noqa: BLE001 - see run
                self.errors[name] = f"{type(error).__name__}: {error}"
                self._client.report("watch.failed", f"{self._path} of {name}", self.errors[name])
            else:
                self._list_tasks.pop(name, None)
                self.errors.pop(name, None)
                return
            await asyncio.sleep(backoff.next_delay())

    async def _list_namespace(self, name: str) -> int:
        space = self.namespaces[name]
        before, space.cache, space.deleted_during_list = space.cache, ObjectCache(), set()
        listed: ObjectCache[T] = ObjectCache()
        version = 0
        async for page in self._client.list(paths.in_namespace(self._kind[0], name, self._kind[1])):
            version = int(page["metadata"]["resourceVersion"])
            for raw in page["items"]:
                listed.put(raw, self._try_project, before)
        for uid in space.deleted_during_list:
            listed.drop(uid)
        listed.merge_newer(space.cache, version)
        space.cache, space.list_version = listed, version
        self._on_change(name)
        return version

    def _namespace_of(self, raw: Json) -> _NamespaceCache[T] | None:
        """Of an event; None where it is nobody's, or older than the list."""
        space = self.namespaces.get(raw["metadata"].get("namespace", ""))
        return space if space and int(raw["metadata"]["resourceVersion"]) > space.list_version else None

    def put(self, raw: Json) -> None:
        """Take in an object."""
        if (space := self._namespace_of(raw)) and space.cache.put(raw, self._try_project):
            self._on_change(raw["metadata"]["namespace"])

    def drop(self, raw: Json) -> None:
        """Forget an object that was deleted."""
        if space := self._namespace_of(raw):
            space.deleted_during_list.add(raw["metadata"]["uid"])
            space.cache.drop(raw["metadata"]["uid"])
            self._on_change(raw["metadata"]["namespace"])

    def _set_synced(self, *, synced: bool) -> None:
        if self.synced != synced:
            self.synced = synced
            for name in tuple(self.namespaces):
                self._on_change(name)


class NamespacedInformers(Generic[T]):
    """One kind in the namespaces that somebody holds, by one watch for all of them; nothing is polled.

    `version` and `resource` as in `apps/v1` and `deployments`; `changed` is told who holds the namespace that changed.
    """

    def __init__(
        self,
        client: Client,
        version: str,
        resource: str,
        project: Callable[[Mapping[str, Any]], T],
        on_change: Callable[[Iterable[str]], None],
    ) -> None:
        self._client, self._kind, self._project, self._on_change = client, (version, resource), project, on_change
        self._reflector: _NamespacedReflector[T] | None = None
        self._task: asyncio.Task[None] | None = None
        self._subscribers: dict[str, set[str]] = {}

    def subscribe(self, subscriber: str, namespaces: Iterable[str]) -> None:
        """Keep these in view for this holder, and no others for it any more."""
        wanted = set(namespaces)
        new = [name for name in wanted if name not in self._subscribers]
        for name in wanted:
            self._subscribers.setdefault(name, set()).add(subscriber)
        if new:
            shared = self._reflector = self._reflector or _NamespacedReflector(
                self._client, self._kind, self._project, self._notify
            )
            for name in new:
                shared.add(name)
            self._task = self._task or asyncio.create_task(shared.run(), name=f"mirror {' '.join(self._kind)}")
        for name, holders in list(self._subscribers.items()):
            if name not in wanted:
                holders.discard(subscriber)
            if not holders:
                del self._subscribers[name]
                if self._reflector:
                    self._reflector.remove(name)
        if not self._subscribers and self._task and self._reflector:
            self._task.cancel()
            self._reflector.close()
            self._task = self._reflector = None

    def _notify(self, namespace: str) -> None:
        self._on_change(tuple(self._subscribers.get(namespace, ())))

    def _cache_of(self, namespace: str) -> ObjectCache[T] | None:
        space = self._reflector.namespaces.get(namespace) if self._reflector and self._reflector.synced else None
        return space.cache if space and space.list_version else None

    def get(self, namespace: str) -> Mapping[str, T] | None:
        """What is there now, by uid; None while that is not known for sure."""
        view = self._cache_of(namespace)
        return view.items if view else None

    def subscribed(self, subscriber: str) -> tuple[str, ...]:
        """Return what this holder keeps in view."""
        return tuple(name for name, holders in self._subscribers.items() if subscriber in holders)

    def why_not_synced(self, namespaces: Iterable[str]) -> str:
        """Return which view is not there, and why; empty if all are."""
        for name in namespaces:
            if self._cache_of(name) is None:
                return _not_synced_message(paths.in_namespace(self._kind[0], name, self._kind[1]), self._error_of(name))
        return ""

    def _error_of(self, namespace: str) -> str:
        return self._reflector.error or self._reflector.errors.get(namespace, "") if self._reflector else ""

    def unreadable(self, namespace: str) -> Mapping[str, str]:
        """What is there and cannot be read, by namespace/name: why."""
        view = self._cache_of(namespace)
        return dict(view.unreadable.values()) if view else {}

    def revision(self, namespace: str) -> int:
        """Another number after every change of what is in view."""
        space = self._reflector.namespaces.get(namespace) if self._reflector else None
        return space.cache.revision if space else 0

    def override(self, namespace: str, uid: str, value: T) -> None:
        """Correct what is known of one object until the server says more."""
        if view := self._cache_of(namespace):
            view.items[uid] = value
