"""How many connections the process has, and who gets them.

The client speaks HTTP/1.1: each watch and each request in flight has a connection to itself. Without a limit a drain over
100 namespaces opens 800 of them, and the process runs out of open files. So each kind of traffic has its share, and none
waits for another: the Lease does not wait for evictions, and no request waits for a watch.
"""

import asyncio
import resource
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

MAX_CONNECTIONS = 64
"""Open to the API server at most, the sum of all shares."""
ELECTION_CONNECTIONS = 2
KOPF_CONNECTIONS = 2  # its watch of nodes, and one request
EVICTION_CONNECTIONS = 20  # an admission webhook may hold each of them for 30 s
EVICTION_CONNECTIONS_PER_NAMESPACE = 14
"""Evictions at once in one namespace: a slow webhook of one namespace must not take the share of all others."""
REQUEST_CONNECTIONS = 10
WATCH_CONNECTIONS = (
    MAX_CONNECTIONS - ELECTION_CONNECTIONS - KOPF_CONNECTIONS - EVICTION_CONNECTIONS - REQUEST_CONNECTIONS
)

_SHARED_WATCH_SECONDS = 1.0  # seconds that a watch keeps its connection while others wait for one
RECOMMENDED_OPEN_FILES = 4096
_MAX_OPEN_FILES = 65536


class RequestLimiter:
    """Shares of the connections for requests."""

    def __init__(self) -> None:
        self._election, self._requests = asyncio.Semaphore(ELECTION_CONNECTIONS), asyncio.Semaphore(REQUEST_CONNECTIONS)
        self._evictions = asyncio.Semaphore(EVICTION_CONNECTIONS)
        self._in_use: dict[str, tuple[int, asyncio.Semaphore]] = {}  # by namespace: by how many, and its share

    @asynccontextmanager
    async def acquire(self, path: str, *, election: bool = False) -> AsyncIterator[None]:
        """Hold a connection of the path's share."""
        place = path.partition("?")[0]
        if place.endswith("/eviction"):
            async with self._namespace_share(place.split("/")[4]), self._evictions:
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
    """One watch's hold on a connection.

    Attributes:
        keep: it does not end for others.
        seconds: how long the watch is to ask the server to keep it open.
        short: that is no longer than its turn.
    """

    def __init__(self, *, permanent: bool, seconds: float, is_short: bool) -> None:
        self.permanent, self.seconds, self.is_short = permanent, seconds, is_short
        self.started_at = asyncio.get_running_loop().time()
        self.deadline = asyncio.timeout(None)
        self.ending = False


class WatchLimiter:
    """Connections for watches.

    Up to the limit each watch keeps its own. Beyond that they take turns: the one that has had its connection for longest
    lets go of it, waits in line, and goes on from the version that it has seen. So no watch starves, whoever holds others.
    """

    def __init__(self, limit: int = WATCH_CONNECTIONS, shared_seconds: float = _SHARED_WATCH_SECONDS) -> None:
        self.limit, self._shared_seconds = limit, shared_seconds
        self._free = limit
        self._running: dict[WatchConnection, None] = {}  # the oldest first
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many watches wait for a connection."""
        return len(self._waiting)

    @asynccontextmanager
    async def acquire(self, *, permanent: bool = False, seconds: float = 300.0) -> AsyncIterator[WatchConnection]:
        """Hold a connection; the body is cancelled, without an error, when the turn is over.

        `keep`: first in line, and held until it is let go of. There must be fewer such watches than connections.
        """
        await self._wait_for_connection(first=permanent)
        # The server ends a short watch itself, so that the next one has the same connection and needs no handshake.
        short = bool(self._waiting) and not permanent
        turn = WatchConnection(permanent=permanent, seconds=self._shared_seconds if short else seconds, is_short=short)
        try:
            async with turn.deadline:
                self._running[turn] = None
                self._end_oldest()
                yield turn
        except TimeoutError:
            if not turn.deadline.expired():
                raise
        finally:
            self._running.pop(turn, None)
            self._release_connection()

    async def _wait_for_connection(self, *, first: bool) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if first:
            self._waiting.appendleft(place)
        else:
            self._waiting.append(place)
        self._end_oldest()
        try:
            await place
        except asyncio.CancelledError:
            if place in self._waiting:
                self._waiting.remove(place)
            else:
                self._release_connection()
            raise

    def _release_connection(self) -> None:
        """The connection is the next one's."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1

    def _end_oldest(self) -> None:
        """End as many turns as watches wait."""
        missing = len(self._waiting) - sum(turn.ending for turn in self._running)
        now = asyncio.get_running_loop().time()
        for turn in self._running:
            if missing <= 0:
                return
            if not turn.permanent and not turn.ending:
                turn.ending = True
                turn.deadline.reschedule(max(now, turn.started_at + self._shared_seconds * (2 if turn.is_short else 1)))
                missing -= 1


def raise_file_limit() -> int:
    """Raise the soft limit of open files as far as is useful and allowed; the limit as it is now.

    Container runtimes give 1,024, and Python, unlike Go, leaves it at that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
