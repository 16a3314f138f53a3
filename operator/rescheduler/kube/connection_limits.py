"""Limits on the connections to the API server, and on open files.

The client uses HTTP/1.1, so each watch and each request in flight needs its own connection. Without a limit a drain
over 100 namespaces opens 800 connections, and the process runs out of open files. Each kind of traffic has its own
share: a Lease renewal never waits for evictions, and a request never waits for a watch.
"""

import asyncio
import resource
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

MAX_CONNECTIONS = 64
"""Open connections to the API server: the sum of all shares."""
ELECTION_CONNECTIONS = 2
KOPF_CONNECTIONS = 2  # the watch of nodes, and one request
EVICTION_CONNECTIONS = 20  # an admission webhook may occupy each connection for 30 s
EVICTION_CONNECTIONS_PER_NAMESPACE = 14
"""Concurrent evictions in one namespace: a slow webhook of one namespace must not use the share of all others."""
REQUEST_CONNECTIONS = 10
WATCH_CONNECTIONS = (
    MAX_CONNECTIONS - ELECTION_CONNECTIONS - KOPF_CONNECTIONS - EVICTION_CONNECTIONS - REQUEST_CONNECTIONS
)

_SHARED_WATCH_SECONDS = 1.0  # seconds that a watch keeps its connection while others wait for one
RECOMMENDED_OPEN_FILES = 4096
_MAX_OPEN_FILES = 65536


class RequestLimiter:
    """Limit the requests in flight, with one share for each kind of request."""

    def __init__(self) -> None:
        self._election, self._requests = asyncio.Semaphore(ELECTION_CONNECTIONS), asyncio.Semaphore(REQUEST_CONNECTIONS)
        self._evictions = asyncio.Semaphore(EVICTION_CONNECTIONS)
        self._in_use: dict[str, tuple[int, asyncio.Semaphore]] = {}  # by namespace: number of requests, and its share

    @asynccontextmanager
    async def acquire(self, path: str, *, election: bool = False) -> AsyncIterator[None]:
        """Hold a connection of the share that the path belongs to; `election`: the share of the election."""
        plain_path = path.partition("?")[0]
        if plain_path.endswith("/eviction"):
            async with self._namespace_share(plain_path.split("/")[4]), self._evictions:
                yield
        else:
            async with self._election if election else self._requests:
                yield

    @asynccontextmanager
    async def _namespace_share(self, name: str) -> AsyncIterator[None]:
        users, semaphore = self._in_use.get(name) or (0, asyncio.Semaphore(EVICTION_CONNECTIONS_PER_NAMESPACE))
        self._in_use[name] = (users + 1, semaphore)
        try:
            async with semaphore:
                yield
        finally:
            users, _ = self._in_use[name]
            if users > 1:
                self._in_use[name] = (users - 1, semaphore)
            else:
                del self._in_use[name]


class WatchConnection:
    """Connection that a watch holds.

    Attributes:
        permanent: the watch keeps its connection even if others wait.
        seconds: seconds that the watch asks the server to keep it open.
        is_short: `seconds` is no longer than the watch may hold the connection.
        started_at: time of the event loop at which the watch got the connection.
        deadline: timeout that ends the watch if others wait.
        ending: the deadline is set.
    """

    def __init__(self, *, permanent: bool, seconds: float, is_short: bool) -> None:
        self.permanent, self.seconds, self.is_short = permanent, seconds, is_short
        self.started_at = asyncio.get_running_loop().time()
        self.deadline = asyncio.timeout(None)
        self.ending = False


class WatchLimiter:
    """Limit the connections for watches.

    Up to the limit each watch keeps its connection. Above the limit the watches take turns. The watch with the oldest
    connection releases it, waits in line, and continues from its last resourceVersion. So no watch starves.
    """

    def __init__(self, limit: int = WATCH_CONNECTIONS, shared_seconds: float = _SHARED_WATCH_SECONDS) -> None:
        self.limit, self._shared_seconds = limit, shared_seconds
        self._free = limit
        self._running: dict[WatchConnection, None] = {}  # oldest first
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Number of watches that wait for a connection."""
        return len(self._waiting)

    @asynccontextmanager
    async def acquire(self, *, permanent: bool = False, seconds: float = 300.0) -> AsyncIterator[WatchConnection]:
        """Hold a connection. If other watches wait, the body is cancelled without an error.

        `permanent`: the watch is first in line and keeps its connection. There must be fewer permanent watches than
        connections. `seconds`: how long the watch stays open if no other watch waits.
        """
        await self._wait_for_connection(first=permanent)
        # The server ends a short watch, so the next watch reuses the connection without a TLS handshake.
        short = bool(self._waiting) and not permanent
        watch = WatchConnection(permanent=permanent, seconds=self._shared_seconds if short else seconds, is_short=short)
        try:
            async with watch.deadline:
                self._running[watch] = None
                self._end_oldest()
                yield watch
        except TimeoutError:
            if not watch.deadline.expired():
                raise
        finally:
            self._running.pop(watch, None)
            self._release_connection()

    async def _wait_for_connection(self, *, first: bool) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if first:
            self._waiting.appendleft(waiter)
        else:
            self._waiting.append(waiter)
        self._end_oldest()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            else:
                self._release_connection()
            raise

    def _release_connection(self) -> None:
        """Hand the connection to the next watch in line."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    def _end_oldest(self) -> None:
        """Set a deadline for as many watches as wait for a connection, oldest first."""
        missing = len(self._waiting) - sum(watch.ending for watch in self._running)
        now = asyncio.get_running_loop().time()
        for watch in self._running:
            if missing <= 0:
                return
            if not watch.permanent and not watch.ending:
                watch.ending = True
                watch.deadline.reschedule(
                    max(now, watch.started_at + self._shared_seconds * (2 if watch.is_short else 1))
                )
                missing -= 1


def raise_file_limit() -> int:
    """Raise the soft limit of open files, up to 65,536 or the hard limit; return the limit after that.

    Container runtimes set 1,024. Python, unlike Go, does not raise the limit by itself.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a sandbox may forbid the change
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
