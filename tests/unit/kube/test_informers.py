"""Informers: the view is current or reported as stale, despite faults of server, network and objects."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.core.model.raw import RawObject
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError, Client, ExpiredError, UnreachableError, WatchStalledError
from rescheduler.kube.connection_limits import WatchLimiter
from rescheduler.kube.informers import Feed, Informer, NamespacedInformers, SharedInformers
from simulation.clients import SimulatedClient
from simulation.server import Server
from unit.supervision import simulated


def raw(name: str, version: int, namespace: str = "", **more: Any) -> RawObject:
    meta = {"name": name, "uid": f"u-{name}", "resourceVersion": str(version), "namespace": namespace}
    return {"metadata": meta, **more}


class Scripted(Client):
    """Client that lists given objects, and watches as the test defines.

    Attributes:
        lists: when each list was asked for.
    """

    def __init__(self) -> None:
        self.items: list[RawObject] = []
        self.lists: list[float] = []
        self.refusal: Exception | None = None
        self.script: Callable[[str], AsyncIterator[tuple[str, RawObject]]] = self.rests
        self.reports: list[tuple[str, str, str]] = []
        self.report = lambda *words: self.reports.append(words)
        self.running = 0
        self.asked: list[float] = []

    async def rests(self, _: str) -> AsyncIterator[tuple[str, RawObject]]:
        await asyncio.Future()
        yield "", {}

    async def list(self, path: str, **params: str | int) -> AsyncIterator[RawObject]:
        self.lists.append(asyncio.get_running_loop().time() - 1000)
        if self.refusal:
            raise self.refusal
        yield {"metadata": {"resourceVersion": "10"}, "items": self.items}

    async def watch(
        self, path: str, *, version: str, idle_timeout: float = 0, seconds: float = 0, **params: str | int
    ) -> AsyncGenerator[tuple[str, RawObject], None]:
        self.asked.append(seconds)
        self.running += 1
        try:
            async for event in self.script(version):
                yield event
        finally:
            self.running -= 1


def name_of(found: Mapping[str, Any]) -> str:
    return str(found["metadata"]["name"])


def mirror(
    client: Client, project: Callable[[Mapping[str, Any]], Any] = name_of
) -> tuple[Informer[Any], asyncio.Task[None]]:
    made: Informer[Any] = Informer(client, paths.PODS, project, lambda: None)
    return made, asyncio.create_task(made.run())


FAILURES = [
    UnreachableError("broke off"),
    ApiError("GET", "/", ErrorResponse(403)),
    ExpiredError("too old"),
    RuntimeError("nobody thought of it"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda each: type(each).__name__)
def test_a_list_does_not_reset_the_backoff_while_its_watch_fails(failure: Exception) -> None:
    async def story() -> None:
        client = Scripted()

        async def fails(_: str) -> AsyncIterator[tuple[str, RawObject]]:
            raise failure
            yield "", {}

        client.script = fails
        _, task = mirror(client)
        await asyncio.sleep(600)
        assert 40 < len(client.lists) < 130  # 10 s apart at the end, with jitter
        assert not task.done()
        task.cancel()

    simulated(story())


def test_an_event_that_got_lost_is_repaired_by_a_list_ten_minutes_later() -> None:
    async def story() -> None:
        client = Scripted()

        async def silent(_: str) -> AsyncIterator[tuple[str, RawObject]]:
            await asyncio.sleep(300)
            return
            yield "", {}

        client.script, client.items = silent, [raw("a", 5)]
        found, task = mirror(client)
        await asyncio.sleep(10)
        client.items = [raw("b", 11)]
        await asyncio.sleep(580)
        assert list(found.items.values()) == ["a"]
        await asyncio.sleep(20)
        assert list(found.items.values()) == ["b"]
        assert found.synced
        assert len(client.lists) == 2
        task.cancel()

    simulated(story())


def test_a_watch_that_worked_is_followed_by_a_new_one_at_once() -> None:
    async def story() -> None:
        client = Scripted()

        async def lives(_: str) -> AsyncIterator[tuple[str, RawObject]]:
            await asyncio.sleep(60)
            raise UnreachableError("broke off")
            yield "", {}

        client.script = lives
        _, task = mirror(client)
        await asyncio.sleep(610)
        assert len(client.lists) == 11
        task.cancel()

    simulated(story())


def test_a_silent_watch_is_not_synced_and_is_opened_again() -> None:
    async def story() -> None:
        client = Scripted()

        async def silent(_: str) -> AsyncIterator[tuple[str, RawObject]]:
            await asyncio.sleep(75)
            raise WatchStalledError("nothing came")
            yield "", {}

        client.script = silent
        made, task = mirror(client)
        await asyncio.sleep(74)
        assert made.synced
        await asyncio.sleep(2)
        assert made.synced  # a new list is complete
        assert client.lists == [0, 75]
        client.refusal = UnreachableError("no answer")
        await asyncio.sleep(77)
        assert not made.synced
        assert "no answer" in made.error
        task.cancel()

    simulated(story())


def test_a_slow_list_after_a_stalled_watch_makes_the_view_stale() -> None:
    async def story() -> None:
        client, gate = Scripted(), asyncio.Event()
        gate.set()

        class Slow(Scripted):
            async def list(self, path: str, **params: str | int) -> AsyncIterator[RawObject]:
                await gate.wait()
                async for page in super().list(path, **params):
                    yield page

        async def silent(_: str) -> AsyncIterator[tuple[str, RawObject]]:
            await asyncio.sleep(75)
            gate.clear()
            raise WatchStalledError("nothing came")
            yield "", {}

        client = Slow()
        client.script = silent
        made, task = mirror(client)
        await asyncio.sleep(75.5)
        assert made.synced
        await asyncio.sleep(1)
        assert not made.synced
        gate.set()
        await asyncio.sleep(0.1)
        assert made.synced
        assert not made.error
        task.cancel()

    simulated(story())


@pytest.mark.parametrize("after", ["the list", "the deletion"])
def test_a_late_response_to_a_write_does_not_bring_a_deleted_object_back(after: str) -> None:
    async def story() -> None:
        client = Scripted()
        client.items = [raw("stays", 3), *([raw("deleted", 8)] if after == "the deletion" else [])]

        async def deletes(_: str) -> AsyncIterator[tuple[str, RawObject]]:
            if after == "the deletion":
                yield "DELETED", raw("deleted", 12)
            await asyncio.Future()

        client.script = deletes
        informer, task = mirror(client)
        await asyncio.sleep(1)
        response = raw("deleted", 11 if after == "the deletion" else 9)
        informer.put(response)
        informer.override("u-deleted", "deleted")
        assert set(informer.items.values()) == {"stays"}
        informer.put(raw("new", 13))
        assert set(informer.items.values()) == {"stays", "new"}
        task.cancel()

    simulated(story())


def test_an_unexpected_error_ends_no_informer_and_is_reported() -> None:
    async def story() -> None:
        client = Scripted()
        client.items = [{"metadata": {"name": "no uid"}}]
        made, task = mirror(client)
        await asyncio.sleep(1)
        assert not task.done()
        assert not made.synced
        assert "KeyError" in made.error
        assert {event for event, *_ in client.reports} == {"watch.failed"}
        client.items = [raw("a", 5)]
        await asyncio.sleep(30)
        assert made.synced
        assert made.items == {"u-a": "a"}
        task.cancel()

    simulated(story())


def hates(bad: str) -> Callable[[Mapping[str, Any]], str]:
    def project(found: Mapping[str, Any]) -> str:
        if found.get(bad):
            raise OverflowError("cannot convert float infinity to integer")
        return name_of(found)

    return project


def test_an_unreadable_object_affects_no_other_object() -> None:
    async def story() -> None:
        client, events = Scripted(), asyncio.Queue[tuple[str, RawObject]]()

        async def follows(_: str) -> AsyncIterator[tuple[str, RawObject]]:
            while True:
                yield await events.get()

        client.script = follows
        client.items = [raw("a", 1), raw("b", 2, "ns", bad=True)]
        made, task = mirror(client, hates("bad"))
        await asyncio.sleep(1)
        assert made.synced
        assert made.items == {"u-a": "a"}
        assert made.unreadable == {"ns/b": "OverflowError: cannot convert float infinity to integer"}
        # From the watch: a good object becomes bad, a bad object becomes good, and an object is deleted.
        for event in (("MODIFIED", raw("a", 11, bad=True)), ("MODIFIED", raw("b", 12, "ns"))):
            events.put_nowait(event)
        await asyncio.sleep(1)
        assert made.items == {"u-b": "b"}
        assert list(made.unreadable) == ["a"]
        assert made.unreadable_uids == {"u-a"}
        events.put_nowait(("DELETED", raw("a", 13, bad=True)))
        await asyncio.sleep(1)
        assert not made.unreadable
        assert client.lists == [0]
        task.cancel()

    simulated(story())


@pytest.mark.parametrize("failure", FAILURES, ids=lambda each: type(each).__name__)
def test_a_cancelled_informer_ends_although_its_watch_fails_to_close(failure: Exception) -> None:
    async def story() -> None:
        client = Scripted()

        async def fails_to_close(_: str) -> AsyncIterator[tuple[str, RawObject]]:
            try:
                await asyncio.Future()
                yield "", {}
            except asyncio.CancelledError:
                raise failures.pop() if failures else asyncio.CancelledError from None

        failures = [failure]  # only once: otherwise a failed test would never end
        client.script = fails_to_close
        _, task = mirror(client)
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait({task}, timeout=60)
        assert task.cancelled()

    simulated(story())


def test_an_unreadable_object_is_reported_once_per_version() -> None:
    async def story() -> None:
        client = Scripted()

        async def breaks(_: str) -> AsyncIterator[tuple[str, RawObject]]:
            yield "BOOKMARK", raw("", 10)
            raise UnreachableError("broke off")

        client.script, client.items = breaks, [raw("a", 1, bad=True)]
        made, task = mirror(client, hates("bad"))
        await asyncio.sleep(60)
        assert len(client.lists) > 10
        assert [event for event, *_ in client.reports] == ["object.unreadable"]
        client.items = [raw("a", 11, bad=True)]
        await asyncio.sleep(60)
        assert len(client.reports) == 2
        assert list(made.unreadable) == ["a"]
        task.cancel()

    simulated(story())


def test_an_object_that_a_feed_cannot_put_affects_no_other_object() -> None:
    async def story() -> None:
        client, taken = Scripted(), list[str]()

        async def follows(_: str) -> AsyncIterator[tuple[str, RawObject]]:
            yield "ADDED", raw("a", 11, bad=True)
            yield "ADDED", raw("b", 12)
            await asyncio.Future()

        async def listing() -> str:
            return "10"

        client.script = follows
        project = hates("bad")
        feed = Feed(client, paths.NODES, listing, lambda found: taken.append(project(found)), lambda _: None)
        task = asyncio.create_task(feed.run())
        await asyncio.sleep(1)
        assert taken == ["b"]
        assert [event for event, *_ in client.reports] == ["object.unreadable"]
        task.cancel()

    simulated(story())


# -- more watches than connections ------------------------------------------------------------------------------------


def many(client: Scripted, count: int) -> tuple[SharedInformers[str, str], dict[str, int]]:
    lapses = dict.fromkeys(map(str, range(count)), 0)
    made: SharedInformers[str, str] = SharedInformers(
        client, lambda key: (f"/api/v1/namespaces/{key}/pods", {}), name_of, lambda _: None
    )
    made.subscribe("n1", lapses)
    return made, lapses


def test_many_watches_share_the_connections_and_all_stay_current() -> None:
    async def story() -> None:
        client = Scripted()
        client.watch_limiter = WatchLimiter(10, 1.0)
        mirrors, lapses = many(client, 200)
        for _ in range(600):
            await asyncio.sleep(0.5)
            assert client.running <= 10
            for key in lapses:
                lapses[key] += mirrors.get(key) is None
        # 20 turns of 2 s at most (they have to be cut off): no watch waits longer than its view stays current.
        assert sum(lapses.values()) / 600 / 200 < 0.3
        assert len(client.lists) < 200 * 15
        mirrors.subscribe("n1", ())

    simulated(story())


def test_a_view_whose_watch_waits_too_long_is_stale_with_a_cause() -> None:
    async def story() -> None:
        client = Scripted()
        client.watch_limiter = WatchLimiter(1, 1.0)
        async with client.watch_limiter.acquire(permanent=True):
            made, task = mirror(client)
            await asyncio.sleep(29)
            assert made.synced
            await asyncio.sleep(2)
            assert not made.synced
            assert "waits for one of the 1 connections" in made.error
            assert client.lists == [0]
            assert client.watch_limiter.waiting == 1
        await asyncio.sleep(1)
        assert made.synced
        assert client.lists == [0, 31]  # the missed changes come from a new list
        task.cancel()

    simulated(story())


def test_an_expired_version_of_a_shared_watch_is_no_failure() -> None:
    """Short watches get no bookmarks, so the resourceVersions of quiet namespaces expire."""

    async def story() -> None:
        client = Scripted()
        client.watch_limiter = WatchLimiter(2, 1.0)

        async def ends(version: str) -> AsyncIterator[tuple[str, RawObject]]:
            if asyncio.get_running_loop().time() - 1000 - client.lists[-1] > 60:
                raise ExpiredError("too old")
            await asyncio.sleep(1)
            if version == "never":
                yield "", {}

        client.script = ends
        mirrors, lapses = many(client, 6)
        await asyncio.sleep(3000)
        for _ in range(200):
            await asyncio.sleep(1)
            for key in lapses:
                lapses[key] += mirrors.get(key) is None
        assert sum(lapses.values()) == 0
        mirrors.subscribe("n1", ())

    simulated(story())


# -- one watch for many namespaces ------------------------------------------------------------------------------------


def test_many_namespaces_share_one_watch_without_other_namespaces() -> None:
    async def story() -> None:
        server = Server(lambda: datetime(2026, 1, 1, tzinfo=UTC))
        client = watched(server)
        for space in range(200):
            server.make("replicasets", {"metadata": {"namespace": f"n{space}", "name": "r"}})
        notified: set[str] = set()
        kept: NamespacedInformers[str] = NamespacedInformers(client, "apps/v1", "replicasets", name_of, notified.update)
        kept.subscribe("n1", [f"n{space}" for space in range(100)])
        kept.subscribe("n2", ["n1"])
        await asyncio.sleep(5)
        assert len(server._streams) == 1
        assert all(kept.get(f"n{space}") for space in range(100))
        assert kept.get("n150") is None
        notified.clear()
        server.make("replicasets", {"metadata": {"namespace": "n150", "name": "other"}})
        await asyncio.sleep(1)
        assert not notified
        server.make("replicasets", {"metadata": {"namespace": "n1", "name": "more"}})
        await asyncio.sleep(1)
        assert notified == {"n1", "n2"}
        kept.subscribe("n1", ())
        await asyncio.sleep(1)
        assert kept.get("n0") is None
        assert sorted((kept.get("n1") or {}).values()) == ["more", "r"]
        kept.subscribe("n2", ())
        await asyncio.sleep(1)
        assert not server._streams

    simulated(story())


def watched(server: Server, chance: random.Random | None = None) -> SimulatedClient:
    return SimulatedClient(server, "operator", chance or random.Random(1), guard=lambda: True, count=lambda *_: None)


class World:
    """Random changes of objects in some namespaces, of which some have subscribers."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.server = Server(lambda: datetime(2026, 1, 1, tzinfo=UTC))
        self.client = watched(self.server, random.Random(seed))
        self.kept: NamespacedInformers[tuple[str, str]] = NamespacedInformers(
            self.client, "apps/v1", "replicasets", lambda o: (o["metadata"]["uid"], o["metadata"]["resourceVersion"]),
            lambda _: self.look(),
        )  # fmt: skip
        self.spaces = [f"n{number}" for number in range(6)]
        self.held: dict[str, list[str]] = {"a": [], "b": []}
        self.deleted: dict[str, float] = {}
        self.seen: dict[str, int] = {}

    def look(self) -> None:
        """While the view is current, no deleted object returns and no object becomes older."""
        for space in {space for spaces in self.held.values() for space in spaces}:
            for uid, version in (self.kept.get(space) or {}).values():
                late = asyncio.get_running_loop().time() - self.deleted.get(uid, float("inf"))
                assert late < 3, f"{uid} is gone for {late} s"
                assert int(version) >= self.seen.get(uid, 0), f"{uid} has become older"
                self.seen[uid] = int(version)

    def act(self) -> None:
        space, objects = self.chance.choice(self.spaces), self.server.all("replicasets")
        match self.chance.randrange(10):
            case 0 | 1 | 2:
                body = {"metadata": {"namespace": space, "name": f"r{self.chance.randrange(10**9)}"}}
                self.server.make("replicasets", body)
            case 3 | 4 | 5 if objects:
                mark = str(self.chance.random())
                self.server.edit(
                    "replicasets", self.chance.choice(objects), lambda raw: raw.update(spec={"mark": mark})
                )
            case 6 | 7 if objects:
                gone = self.chance.choice(objects)
                self.server.remove("replicasets", gone)
                self.deleted[gone["metadata"]["uid"]] = asyncio.get_running_loop().time()
            case 8:
                holder = self.chance.choice("ab")
                self.held[holder] = self.chance.sample(self.spaces, self.chance.randrange(7))
                self.kept.subscribe(holder, self.held[holder])
            case 9 if self.chance.random() < 0.1:
                self.server._history.clear()  # older resourceVersions expire
                self.server._history.append(_nothing(self.server))

    def truth(self, space: str) -> dict[str, tuple[str, str]]:
        return {
            o["metadata"]["uid"]: (o["metadata"]["uid"], o["metadata"]["resourceVersion"])
            for o in self.server.all("replicasets", space)
        }


def _nothing(server: Server) -> Any:
    from invariants.records import Call, Change, Place

    place = Place("events", "x", "y")
    server.version += 1
    return Change(server.version, 0.0, place, None, None, Call("kube", "create", place))


@pytest.mark.parametrize("seed", range(12))
def test_a_current_view_matches_the_server(seed: int) -> None:
    """Subscribers and objects change at random, the network breaks, and resourceVersions expire."""

    async def story() -> None:
        world = World(seed)
        for round_ in range(12):
            for _ in range(60):
                world.act()
                await asyncio.sleep(world.chance.choice((0, 0.001, 0.01, 0.05, 0.3)))
            if round_ % 4 == 3:
                world.client.cut = True
                await asyncio.sleep(world.chance.uniform(0, 8))
                world.client.cut = False
            await asyncio.sleep(40)
            for space in world.spaces:
                wanted = world.truth(space) if any(space in held for held in world.held.values()) else None
                assert world.kept.get(space) == wanted, space
            for holder, held in world.held.items():
                assert sorted(world.kept.subscribed(holder)) == sorted(held)
                assert not world.kept.why_not_synced(held)

    simulated(story())


class Slow(Scripted):
    """Client that answers the list of each namespace at the time, and with the state, that the test defines."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []
        self.answers: dict[str, asyncio.Future[tuple[int, list[RawObject]]]] = {}
        self.events: asyncio.Queue[tuple[str, RawObject]] = asyncio.Queue()
        self.script = self.follows

    async def follows(self, _: str) -> AsyncIterator[tuple[str, RawObject]]:
        while True:
            yield await self.events.get()

    async def list(self, path: str, **params: str | int) -> AsyncIterator[RawObject]:
        space = path.split("/")[5]
        self.begun.append(space)
        version, items = await self.answers.setdefault(space, asyncio.get_running_loop().create_future())
        yield {"metadata": {"resourceVersion": str(version)}, "items": items}

    def answer(self, space: str, version: int, *items: RawObject) -> None:
        future = self.answers.setdefault(space, asyncio.get_running_loop().create_future())
        future.set_result((version, list(items)))


def two_spaces(client: Slow) -> NamespacedInformers[str]:
    kept: NamespacedInformers[str] = NamespacedInformers(client, "apps/v1", "replicasets", name_of, lambda _: None)
    kept.subscribe("n1", ["a"])
    return kept


def test_an_added_namespace_is_listed_after_the_watch_version() -> None:
    """Otherwise its list could be older than the watch, and the changes in between would be lost."""

    async def story() -> None:
        client = Slow()
        kept = two_spaces(client)
        await asyncio.sleep(1)
        kept.subscribe("n2", ["b"])
        await asyncio.sleep(1)
        assert client.begun == ["a"]
        client.answer("a", 10)
        await asyncio.sleep(1)
        assert client.begun == ["a", "b"]
        assert kept.get("a") == {}
        assert kept.get("b") is None
        assert kept.why_not_synced(["a", "b"]) == "the list /apis/apps/v1/namespaces/b/replicasets is not available yet"
        client.answer("b", 11, raw("x", 5, "b"))
        await asyncio.sleep(1)
        assert kept.get("b") == {"u-x": "x"}
        kept.subscribe("n1", ())
        kept.subscribe("n2", ())

    simulated(story())


def test_a_list_and_the_events_during_it_become_one_view() -> None:
    async def story() -> None:
        client = Slow()
        client.answer("a", 10)
        kept = two_spaces(client)
        await asyncio.sleep(1)
        kept.subscribe("n2", ["b"])
        await asyncio.sleep(1)
        gone, changed, older = raw("gone", 5, "b"), raw("changed", 6, "b"), raw("older", 7, "b")
        for event in (
            ("DELETED", raw("gone", 22, "b")),
            ("MODIFIED", raw("changed", 23, "b", new=True)),
            ("ADDED", raw("new", 24, "b")),
            ("MODIFIED", raw("older", 15, "b")),
            ("ADDED", raw("was", 16, "b")),  # deleted in 18, before the list; its event arrives later
        ):
            client.events.put_nowait(event)
        await asyncio.sleep(1)
        client.answer("b", 20, gone, changed, older)
        await asyncio.sleep(1)
        assert sorted((kept.get("b") or {}).values()) == ["changed", "new", "older"]
        client.events.put_nowait(("DELETED", raw("was", 18, "b")))
        client.events.put_nowait(("ADDED", raw("late", 17, "b")))  # deleted in 19
        await asyncio.sleep(1)
        assert sorted((kept.get("b") or {}).values()) == ["changed", "new", "older"]
        kept.subscribe("n1", ())
        kept.subscribe("n2", ())

    simulated(story())
