"""Limits on connections and on open files."""

import asyncio
import resource
from collections import Counter

import pytest

from rescheduler.kube import connection_limits
from rescheduler.kube.connection_limits import RequestLimiter, WatchLimiter
from unit.supervision import simulated


class Crowd:
    """Watches that share connections, with counts; `ends`: the server ends each watch after its requested time."""

    def __init__(self, turns: WatchLimiter, *, ends: bool = False) -> None:
        self._turns, self.ends, self.running, self.most = turns, ends, 0, 0
        self.had: Counter[str] = Counter()

    async def watch(self, name: str, *, keep: bool = False) -> None:
        while True:
            async with self._turns.acquire(permanent=keep) as turn:
                self.running += 1
                self.most = max(self.most, self.running)
                self.had[name] += 1
                try:
                    await asyncio.sleep(turn.seconds if self.ends else 10_000)
                finally:
                    self.running -= 1


def test_permanent_watches_leave_most_connections_to_others() -> None:
    shares = (
        connection_limits.ELECTION_CONNECTIONS
        + connection_limits.KOPF_CONNECTIONS
        + connection_limits.EVICTION_CONNECTIONS
        + connection_limits.REQUEST_CONNECTIONS
        + connection_limits.WATCH_CONNECTIONS
    )
    assert shares == connection_limits.MAX_CONNECTIONS == 64
    # Feeds and Leases 5; PDBs, Deployments, ReplicaSets, claims twice, DaemonSets, Jobs 7; labels of namespaces,
    # volumes, attachments 3.
    assert connection_limits.WATCH_CONNECTIONS >= 2 * (5 + 7 + 3)


def test_no_watch_releases_its_connection_within_the_limit() -> None:
    async def story() -> None:
        crowd = Crowd(WatchLimiter(3, 1.0))
        tasks = [asyncio.create_task(crowd.watch(str(n))) for n in range(3)]
        await asyncio.sleep(100)
        assert crowd.had == {"0": 1, "1": 1, "2": 1}
        for task in tasks:
            task.cancel()

    simulated(story())


@pytest.mark.parametrize("ends", [True, False])
def test_watches_above_the_limit_take_turns_except_permanent_ones(*, ends: bool) -> None:
    async def story() -> None:
        turns = WatchLimiter(4, 1.0)
        crowd = Crowd(turns, ends=ends)
        tasks = [asyncio.create_task(crowd.watch(str(n))) for n in range(12)]
        await asyncio.sleep(0.1)
        tasks.append(asyncio.create_task(crowd.watch("kept", keep=True)))
        await asyncio.sleep(121)
        assert crowd.most == 4
        assert crowd.had.pop("kept") == 1
        # 3 connections, turns of 1 s: 120 s are 360 turns, 30 each; half of that if the limiter must end each watch.
        assert max(crowd.had.values()) - min(crowd.had.values()) <= 1
        assert min(crowd.had.values()) >= (29 if ends else 14)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert turns.waiting == 0
        for _ in range(4):  # all connections are free again
            await asyncio.wait_for(turns.acquire().__aenter__(), 0.1)

    simulated(story())


def test_a_cancelled_waiter_loses_no_connection() -> None:
    async def story() -> None:
        turns = WatchLimiter(1, 1.0)
        crowd = Crowd(turns)
        first, second, third = (asyncio.create_task(crowd.watch(name)) for name in "abc")
        await asyncio.sleep(0.5)
        second.cancel()
        await asyncio.sleep(0.1)
        assert crowd.running == 1
        # The third waiter gets the connection at the moment of its cancellation.
        asyncio.get_running_loop().call_at(1001.0, third.cancel)
        await asyncio.sleep(5)
        third.cancel()
        await asyncio.sleep(1)
        assert crowd.running == 1
        first.cancel()
        await asyncio.gather(first, second, third, return_exceptions=True)
        async with asyncio.timeout(0.1), turns.acquire():
            pass

    simulated(story())


def test_an_error_of_the_watch_is_raised_to_the_caller() -> None:
    async def story() -> None:
        turns = WatchLimiter(1, 1.0)
        with pytest.raises(TimeoutError, match="of its own"):
            async with turns.acquire():
                raise TimeoutError("of its own")
        async with asyncio.timeout(0.1), turns.acquire():
            pass

    simulated(story())


def test_each_share_is_independent_and_limited_per_namespace() -> None:
    async def story() -> None:
        lanes, held = RequestLimiter(), Counter[str]()

        async def ask(name: str, path: str) -> None:
            async with lanes.acquire(path):
                held[name] += 1
                await asyncio.Future()

        pods = "/api/v1/namespaces/{}/pods/p/eviction{}"
        asked = [("read", "/api/v1/nodes")] * 30 + [("slow", pods.format("slow", "?dryRun=All"))] * 30
        tasks = [asyncio.create_task(ask(*each)) for each in asked]
        await asyncio.sleep(1)
        assert held == {
            "read": connection_limits.REQUEST_CONNECTIONS,
            "slow": connection_limits.EVICTION_CONNECTIONS_PER_NAMESPACE,
        }
        async with asyncio.timeout(0.1), lanes.acquire("/apis/coordination.k8s.io/v1/leases", election=True):
            pass
        async with asyncio.timeout(0.1), lanes.acquire(pods.format("other", "")):
            pass
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(0.1), lanes.acquire("/api/v1/nodes"), lanes.acquire(pods.format("slow", "")):
            pass

    simulated(story())


@pytest.mark.parametrize(
    ("soft", "hard", "now"),
    [
        (1024, 524_288, 65_536),
        (1024, 4096, 4096),
        (1024, resource.RLIM_INFINITY, 65_536),
        (1_048_576, 1_048_576, 1_048_576),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    ],
)
def test_the_limit_of_open_files_is_raised_and_never_lowered(
    soft: int, hard: int, now: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (soft, hard)

    def setrlimit(which: int, wanted: tuple[int, int]) -> None:
        nonlocal given
        given = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _: given)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    assert connection_limits.raise_file_limit() == now
    assert given[1] == hard


def test_a_limit_that_may_not_be_raised_is_reported_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def setrlimit(*_: object) -> None:
        raise ValueError("not allowed")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    assert connection_limits.raise_file_limit() == 1024
