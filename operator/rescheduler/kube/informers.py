"""Informers: list, then watch, forever.

An informer must notice deletions across a new list; Kopf's watches do not. An informer must also report when its view
is not current, because a decision on a stale view may be wrong.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Generic, TypeVar

from rescheduler.core.model.raw import RawObject
from rescheduler.kube import messages, paths
from rescheduler.kube.backoff import Backoff, keep_cancellation
from rescheduler.kube.client import (
    TRANSIENT_ERRORS,
    WATCH_IDLE_TIMEOUT,
    Client,
    ExpiredError,
    WatchStalledError,
    resource_of,
)

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
_FIRST_DELAY, _MAX_DELAY = 0.2, 10.0  # seconds
_WATCH_WORKED_AFTER = 5.0  # seconds; a watch that was open for this long has worked, even without an event
_MIN_WATCH_SECONDS = 0.5  # seconds; a watch that the server ends sooner does not count
_RELIST_INTERVAL = 600.0
"""Seconds after which the end of a watch leads to a new list: only a list repairs the loss of an event."""
_RELIST_STALE_AFTER = 1.0  # seconds that a new list may take before the old view is stale
_WAITING_STALE_AFTER = 30.0
"""Seconds for which a view stays current while its watch waits for a connection."""
_REVISIONS = itertools.count(1)


class _Reflector:
    """List, then watch, forever; subclasses handle the objects.

    `_position` is the resourceVersion up to which the view has all changes.

    Attributes:
        synced: the list is complete, and the watch after it has not failed.
        error: why the last list or watch failed, or why the watch waits; empty after a success.
    """

    _relist_interval = _RELIST_INTERVAL

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
        self._resource = resource_of(path)
        self._idle_timeout, self._permanent = idle_timeout, permanent
        self._watch_worked = False
        self._watch_opened_at: float | None = None
        self._stale_timer: asyncio.TimerHandle | None = None
        self._position = -1
        self.synced = False
        self.error = ""

    async def run(self) -> None:
        """Keep the view current until cancelled; retry failures with back-off."""
        backoff = Backoff(_FIRST_DELAY, _MAX_DELAY)
        self._record_delivery()
        try:
            while True:
                self._watch_worked, self._watch_opened_at = False, None
                pause, worked = await keep_cancellation(self._list_and_watch()), self._has_worked()
                # A list alone must not reset the back-off: the server may refuse each watch after it.
                if worked:
                    backoff.reset()
                if pause or not worked:
                    await asyncio.sleep(backoff.next_delay())
        finally:
            self._cancel_stale_timer()
            self._client.watches.forget(self)

    def _record_delivery(self) -> None:
        self._client.watches.record(self, self._resource, asyncio.get_running_loop().time())

    async def _list_and_watch(self) -> bool:
        """List and watch until an error; whether the error is a failure, and not only a reason to list again."""
        try:
            version = await self._list()
            self._mark_synced()
            await self._watch(version, until=asyncio.get_running_loop().time() + self._relist_interval)
        except (ExpiredError, WatchStalledError) as error:
            cause = str(error) or type(error).__name__
            self._cancel_stale_timer()
            self._stale_timer = asyncio.get_running_loop().call_later(_RELIST_STALE_AFTER, self._mark_stale, cause)
            return False
        except TRANSIENT_ERRORS as error:
            self._mark_stale(str(error))
        except Exception as error:  # noqa: BLE001 - a bug must not end the informer
            self._mark_stale(f"{type(error).__name__}: {error}")
            self._client.report("watch.failed", self._path, f"{type(error).__name__}: {error}")
        else:
            return False
        return True

    def _has_worked(self) -> bool:
        stayed_open = (
            self._watch_opened_at is not None
            and asyncio.get_running_loop().time() - self._watch_opened_at >= _WATCH_WORKED_AFTER
        )
        return self._watch_worked or stayed_open

    async def _watch(self, version: str, *, until: float) -> None:
        """Watch again and again; return when a watch ends at this time or later."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            stale_timer = loop.call_later(_WAITING_STALE_AFTER, self._mark_stale_waiting)
            self._watch_opened_at = None
            try:
                async with self._client.watch_limiter.acquire(permanent=self._permanent) as connection:
                    stale_timer.cancel()
                    if not self.synced:  # the watch waited too long: its resourceVersion may be too old
                        version = await self._list()
                        self._mark_synced()
                    self._watch_opened_at = loop.time()
                    stream = self._client.watch(
                        self._path,
                        version=version,
                        idle_timeout=self._idle_timeout,
                        seconds=connection.seconds,
                        **self._params,
                    )
                    async with aclosing(stream):  # the stream must end before the limiter frees the connection
                        async for kind, raw in stream:
                            self._watch_worked = True
                            self._record_delivery()
                            version = raw["metadata"]["resourceVersion"]
                            if kind != "BOOKMARK":
                                self._apply_event(kind, raw)
                            self._position = int(version)
            finally:
                stale_timer.cancel()
            if self._watch_opened_at is not None and loop.time() - self._watch_opened_at >= _MIN_WATCH_SECONDS:
                self._watch_worked = True
            elif self._watch_opened_at is not None:
                await asyncio.sleep(1)  # without it, a server that ends each watch at once gets a hot loop

    def _apply_event(self, kind: str, raw: RawObject) -> None:
        if kind == "DELETED":
            self.drop(raw)
        else:
            self.put(raw)

    async def _list(self) -> str:
        """Replace the view by a new list; return the resourceVersion to watch from."""
        raise NotImplementedError

    def put(self, raw: RawObject) -> None:
        """Add or update an object."""
        raise NotImplementedError

    def drop(self, raw: RawObject) -> None:
        """Remove a deleted object."""
        raise NotImplementedError

    def _cancel_stale_timer(self) -> None:
        if self._stale_timer:
            self._stale_timer.cancel()
            self._stale_timer = None

    def _mark_synced(self) -> None:
        self._cancel_stale_timer()
        self._record_delivery()
        self.error = ""
        self._set_synced(synced=True)

    def _mark_stale(self, error: str) -> None:
        self._cancel_stale_timer()
        self.error = error
        self._set_synced(synced=False)

    def _mark_stale_waiting(self) -> None:
        self._mark_stale(messages.waiting_for_watch_connection(self._client.watch_limiter.limit))

    def _set_synced(self, *, synced: bool) -> None:
        """Record whether the view is current."""
        self.synced = synced

    def _project(self, project: Callable[[RawObject], T], raw: RawObject) -> tuple[T] | str:
        """Return the projection in a tuple, or the error text. A bad object must not affect other objects."""
        try:
            return (project(raw),)
        except Exception as error:  # noqa: BLE001 - other clients may write anything
            cause = f"{type(error).__name__}: {error}"[:300]
            meta = raw["metadata"]
            key = f"{meta.get('namespace', '')}/{meta.get('name', '')}".lstrip("/")
            self._client.report("object.unreadable", f"{self._path} {key}", cause)
            return cause


class Feed(_Reflector):
    """Feed a store: call `put` for each changed object and `drop` for each deleted object.

    `list_all` lists into the store and returns the resourceVersion to watch from. A watch of Kopf could feed the store
    too, but Kopf keeps 5 kB of each object in memory.
    """

    _relist_interval = float("inf")  # the resync of the store lists each minute

    def __init__(
        self,
        client: Client,
        path: str,
        list_all: Callable[[], Awaitable[str]],
        put: Callable[[RawObject], None],
        drop: Callable[[RawObject], None],
    ) -> None:
        super().__init__(client, path, permanent=True)
        self._list_all, self._put, self._drop = list_all, put, drop

    async def _list(self) -> str:
        return await self._list_all()

    def put(self, raw: RawObject) -> None:
        """Pass a changed object to the store."""
        self._project(self._put, raw)

    def drop(self, raw: RawObject) -> None:
        """Pass a deleted object to the store."""
        self._drop(raw)


class ObjectCache(Generic[T]):
    """Projected objects by uid.

    Attributes:
        items: projected objects by uid.
        unreadable: namespace/name and error text by uid, for objects whose projection fails.
        revision: a number that changes with each change, and that no two caches share.
        resource_versions: resourceVersion by uid, for all objects.
    """

    def __init__(self) -> None:
        self.items: dict[str, T] = {}
        self.unreadable: dict[str, tuple[str, str]] = {}
        self.revision = next(_REVISIONS)
        self.resource_versions: dict[str, int] = {}

    def put(
        self, raw: RawObject, project: Callable[[RawObject], tuple[T] | str], previous: "ObjectCache[T] | None" = None
    ) -> bool:
        """Add or update an object; whether it is newer than the known version.

        `previous`: the cache of the previous list. Objects that were unreadable there, and have not changed since, are
        not parsed and reported again.
        """
        meta = raw["metadata"]
        uid, version = meta["uid"], int(meta["resourceVersion"])
        if self.resource_versions.get(uid, -1) >= version:
            return False
        known_error = (
            previous.unreadable.get(uid) if previous and previous.resource_versions.get(uid) == version else None
        )
        projection = known_error[1] if known_error else project(raw)
        self.resource_versions[uid] = version
        if isinstance(projection, tuple):
            self.items[uid] = projection[0]
            self.unreadable.pop(uid, None)
        else:
            self.items.pop(uid, None)
            self.unreadable[uid] = (f"{meta.get('namespace', '')}/{meta.get('name', '')}".lstrip("/"), projection)
        self.revision = next(_REVISIONS)
        return True

    def merge_newer(self, other: "ObjectCache[T]", version: int) -> None:
        """Take the objects of another cache that are newer than this resourceVersion."""
        for uid, newest in other.resource_versions.items():
            if newest <= version or newest <= self.resource_versions.get(uid, -1):
                continue
            self.drop(uid)
            self.resource_versions[uid] = newest
            if uid in other.items:
                self.items[uid] = other.items[uid]
            else:
                self.unreadable[uid] = other.unreadable[uid]

    def drop(self, uid: str) -> None:
        """Remove an object."""
        self.items.pop(uid, None)
        self.unreadable.pop(uid, None)
        self.resource_versions.pop(uid, None)
        self.revision = next(_REVISIONS)


class Informer(_Reflector, Generic[T]):
    """Keep the objects under one path, projected, by uid."""

    def __init__(
        self,
        client: Client,
        path: str,
        project: Callable[[RawObject], T],
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
        """Projected objects by uid."""
        return self._cache.items

    @property
    def revision(self) -> int:
        """Number that changes with each change, and that no two informers share."""
        return self._cache.revision

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Error text by namespace/name, for unreadable objects."""
        return dict(self._cache.unreadable.values())

    @property
    def unreadable_uids(self) -> frozenset[str]:
        """Uids of unreadable objects."""
        return frozenset(self._cache.unreadable)

    async def _list(self) -> str:
        view: ObjectCache[T] = ObjectCache()
        version = ""
        async for page in self._client.list(self._path, **self._params):
            version = page["metadata"]["resourceVersion"]
            for raw in page["items"]:
                view.put(raw, self._try_project, self._cache)
        self._cache, self._position = view, int(version or -1)
        self._on_change()
        return version

    def drop(self, raw: RawObject) -> None:
        """Remove a deleted object."""
        self._cache.drop(raw["metadata"]["uid"])
        self._on_change()

    def put(self, raw: RawObject) -> None:
        """Add or update an object: from the watch, or from the response to a write before its event arrives."""
        meta = raw["metadata"]
        if meta["uid"] not in self._cache.resource_versions and int(meta["resourceVersion"]) <= self._position:
            return  # the response is late: the watch has brought the deletion already
        if self._cache.put(raw, self._try_project):
            self._on_change()

    def override(self, uid: str, value: T) -> None:
        """Replace one object until the server sends a newer version; nothing if the object is gone."""
        if uid in self._cache.items:
            self._cache.items[uid] = value

    def _set_synced(self, *, synced: bool) -> None:
        if self.synced != synced:
            self.synced = synced
            self._on_change()


class SharedInformers(Generic[K, T]):
    """Informers by key, shared by their subscribers; an informer stops with its last subscriber.

    `path_for` returns path and query parameters of a key. `on_change` gets the subscribers of each changed informer.
    `permanent`: the informers always keep their connections, so there must be few of them.
    """

    def __init__(
        self,
        client: Client,
        path_for: Callable[[K], tuple[str, Mapping[str, str]]],
        project: Callable[[RawObject], T],
        on_change: Callable[[Iterable[str]], None],
        *,
        permanent: bool = False,
    ) -> None:
        self._client, self._path_for, self._project, self._on_change = client, path_for, project, on_change
        self._permanent = permanent
        self._running: dict[K, tuple[Informer[T], asyncio.Task[None]]] = {}
        self._subscribers: dict[K, set[str]] = {}

    def subscribe(self, subscriber: str, keys: Iterable[K]) -> None:
        """Set the keys of a subscriber: start informers for new keys, release all other keys."""
        wanted = set(keys)
        for key in wanted:
            self._subscribers.setdefault(key, set()).add(subscriber)
            if key not in self._running:
                path, params = self._path_for(key)
                notify = partial(self._notify, key)
                informer = Informer(self._client, path, self._project, notify, params=params, permanent=self._permanent)
                self._running[key] = (informer, asyncio.create_task(informer.run(), name=f"informer {key}"))
        for key, subscribers in list(self._subscribers.items()):
            if key not in wanted:
                subscribers.discard(subscriber)
            if not subscribers:
                del self._subscribers[key]
                self._running.pop(key)[1].cancel()

    def _notify(self, key: K) -> None:
        self._on_change(tuple(self._subscribers.get(key, ())))

    def get(self, key: K) -> Mapping[str, T] | None:
        """Return the objects by uid; None while the view is not current."""
        running = self._running.get(key)
        return running[0].items if running and running[0].synced else None

    def subscribed(self, subscriber: str) -> tuple[K, ...]:
        """Return the keys of a subscriber."""
        return tuple(key for key, subscribers in self._subscribers.items() if subscriber in subscribers)

    def why_not_synced(self, keys: Iterable[K]) -> str:
        """Return which list is not available, and why; empty if all are."""
        for key in keys:
            running = self._running.get(key)
            if running is None or not running[0].synced:
                return messages.list_not_synced(self._path_for(key)[0], running[0].error if running else "")
        return ""

    def revision(self, key: K) -> int:
        """Return a number that changes with each change; 0 without an informer."""
        running = self._running.get(key)
        return running[0].revision if running else 0

    def put(self, key: K, raw: RawObject) -> None:
        """Add or update an object from the response to a write."""
        if running := self._running.get(key):
            running[0].put(raw)

    def override(self, key: K, uid: str, value: T) -> None:
        """Replace one object until the server sends a newer version."""
        if running := self._running.get(key):
            running[0].override(uid, value)


class _NamespaceCache(Generic[T]):
    """Objects of one kind in one namespace.

    Attributes:
        cache: the objects.
        list_version: resourceVersion of the list; 0 before the first list.
        deleted_during_list: uids of objects that were deleted during the list. The list may still contain them.
    """

    def __init__(self) -> None:
        self.cache: ObjectCache[T] = ObjectCache()
        self.list_version = 0
        self.deleted_during_list: set[str] = set()


class _NamespacedReflector(_Reflector, Generic[T]):
    """List each subscribed namespace of a kind separately, and watch all of them with one cluster-wide watch.

    Objects of other namespaces are dropped on arrival, so memory does not grow with the cluster.

    Attributes:
        namespaces: subscribed namespaces by name.
        errors: why the last list of a namespace failed, by namespace.
    """

    def __init__(
        self,
        client: Client,
        kind: tuple[str, str],
        project: Callable[[RawObject], T],
        on_change: Callable[[str], None],
    ) -> None:
        super().__init__(client, paths.in_all_namespaces(*kind), permanent=True)
        self._kind, self._try_project, self._on_change = kind, partial(self._project, project), on_change
        self._list_tasks: dict[str, asyncio.Task[None]] = {}
        self._has_start_version = False  # the version to watch from is known: a list that starts now is newer
        self.namespaces: dict[str, _NamespaceCache[T]] = {}
        self.errors: dict[str, str] = {}

    def add(self, name: str) -> None:
        """Add a namespace to the view."""
        self.namespaces[name] = _NamespaceCache()
        if self._has_start_version:
            self._start_list(name)

    def remove(self, name: str) -> None:
        """Remove a namespace from the view."""
        del self.namespaces[name]
        self.errors.pop(name, None)
        if task := self._list_tasks.pop(name, None):
            task.cancel()

    def close(self) -> None:
        """Cancel the running lists."""
        for task in self._list_tasks.values():
            task.cancel()

    async def _list(self) -> str:
        """List the first namespace, and start the lists of the others in parallel with the watch.

        The resourceVersion of a list of one namespace is valid for a watch of the whole kind.
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
        self._list_tasks[name] = asyncio.create_task(
            self._list_with_retries(name), name=f"list {self._path} of namespace {name}"
        )

    async def _list_with_retries(self, name: str) -> None:
        backoff = Backoff(_FIRST_DELAY, _MAX_DELAY)
        while True:
            try:
                await keep_cancellation(self._list_namespace(name))
            except TRANSIENT_ERRORS as error:
                self.errors[name] = str(error)
            except Exception as error:  # noqa: BLE001 - a bug must not end the informer
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

    def _namespace_of(self, raw: RawObject) -> _NamespaceCache[T] | None:
        """Return the namespace of an event; None if no subscriber needs it, or if the list is newer."""
        space = self.namespaces.get(raw["metadata"].get("namespace", ""))
        return space if space and int(raw["metadata"]["resourceVersion"]) > space.list_version else None

    def put(self, raw: RawObject) -> None:
        """Add or update an object."""
        if (space := self._namespace_of(raw)) and space.cache.put(raw, self._try_project):
            self._on_change(raw["metadata"]["namespace"])

    def drop(self, raw: RawObject) -> None:
        """Remove a deleted object."""
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
    """Keep one kind of object in the subscribed namespaces, with one watch for all of them.

    `version` and `resource` as in `apps/v1` and `deployments`. `on_change` gets the subscribers of each changed
    namespace.
    """

    def __init__(
        self,
        client: Client,
        version: str,
        resource: str,
        project: Callable[[RawObject], T],
        on_change: Callable[[Iterable[str]], None],
    ) -> None:
        self._client, self._kind, self._project, self._on_change = client, (version, resource), project, on_change
        self._reflector: _NamespacedReflector[T] | None = None
        self._task: asyncio.Task[None] | None = None
        self._subscribers: dict[str, set[str]] = {}

    def subscribe(self, subscriber: str, namespaces: Iterable[str]) -> None:
        """Set the keys of a subscriber: start informers for new keys, release all other keys."""
        wanted = set(namespaces)
        new = [name for name in wanted if name not in self._subscribers]
        for name in wanted:
            self._subscribers.setdefault(name, set()).add(subscriber)
        if new:
            reflector = self._reflector = self._reflector or _NamespacedReflector(
                self._client, self._kind, self._project, self._notify
            )
            for name in new:
                reflector.add(name)
            self._task = self._task or asyncio.create_task(reflector.run(), name=f"informer {' '.join(self._kind)}")
        for name, subscribers in list(self._subscribers.items()):
            if name not in wanted:
                subscribers.discard(subscriber)
            if not subscribers:
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
        """Return the objects by uid; None while the view is not current."""
        view = self._cache_of(namespace)
        return view.items if view else None

    def subscribed(self, subscriber: str) -> tuple[str, ...]:
        """Return the keys of a subscriber."""
        return tuple(name for name, subscribers in self._subscribers.items() if subscriber in subscribers)

    def why_not_synced(self, namespaces: Iterable[str]) -> str:
        """Return which list is not available, and why; empty if all are."""
        for name in namespaces:
            if self._cache_of(name) is None:
                path = paths.in_namespace(self._kind[0], name, self._kind[1])
                return messages.list_not_synced(path, self._error_of(name))
        return ""

    def _error_of(self, namespace: str) -> str:
        return self._reflector.error or self._reflector.errors.get(namespace, "") if self._reflector else ""

    def unreadable(self, namespace: str) -> Mapping[str, str]:
        """Error text by namespace/name, for unreadable objects."""
        view = self._cache_of(namespace)
        return dict(view.unreadable.values()) if view else {}

    def revision(self, namespace: str) -> int:
        """Return a number that changes with each change; 0 without an informer."""
        space = self._reflector.namespaces.get(namespace) if self._reflector else None
        return space.cache.revision if space else 0

    def override(self, namespace: str, uid: str, value: T) -> None:
        """Replace one object until the server sends a newer version; nothing if the object is gone."""
        if (view := self._cache_of(namespace)) and uid in view.items:
            view.items[uid] = value
