"""The watched budgets, and their corrections after evictions."""

from rescheduler.controllers.evacuation.budget_watch import BudgetWatch
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from unit.builders import pod, raw_budget
from unit.fakes import FakeClock, FakeClusterClient, settle


class World:
    """One budget, its watch, and a clock that the test sets."""

    def __init__(self) -> None:
        self.client, self.clock = FakeClusterClient(), FakeClock()
        self.budgets = BudgetWatch(self.client, lambda _: None, self.clock.monotonic)
        self.pod = pod("a", labels={"app": "a"})

    @classmethod
    async def watched(cls) -> "World":
        """Return a world whose budget allows three evictions and is watched."""
        world = cls()
        await world.put(allowed=3)
        world.budgets.subscribe("drain", ["s"])
        await settle()
        return world

    async def put(self, *, allowed: int) -> None:
        """Bring a new version of the budget to the watch."""
        self.client.put("poddisruptionbudgets", raw_budget(disruptionsAllowed=allowed))
        await settle()

    def seen(self) -> DisruptionBudget:
        (found,) = self.budgets.for_pod(self.pod) or ()
        return found


async def test_what_was_spent_counts_until_the_watch_shows_it() -> None:
    world = await World.watched()
    world.budgets.record_eviction(world.seen())
    world.budgets.record_eviction(world.seen())
    assert world.seen().allowed == 1
    await world.put(allowed=2)
    assert world.seen().allowed == 2


async def test_a_correction_that_the_server_does_not_confirm_expires() -> None:
    world = await World.watched()
    world.budgets.mark_exhausted(world.seen())
    assert world.seen().allowed == 0
    world.clock.seconds = 9.9
    assert world.seen().allowed == 0
    world.clock.seconds = 10
    assert world.seen().allowed == 3


async def test_what_was_decided_on_an_older_budget_corrects_no_newer_one() -> None:
    world = await World.watched()
    before = world.seen()
    await world.put(allowed=2)
    world.budgets.record_eviction(before)
    assert world.seen().allowed == 2


async def test_a_correction_ends_with_the_version_that_it_corrects() -> None:
    world = await World.watched()
    world.budgets.mark_exhausted(world.seen())
    await world.put(allowed=1)
    assert world.seen().allowed == 1


async def test_a_pod_whose_labels_change_is_under_another_budget() -> None:
    world = await World.watched()
    assert world.seen()
    assert world.budgets.for_pod(pod("a", labels={"app": "other"})) == ()
    assert world.seen()


async def test_nothing_is_remembered_of_namespaces_that_nobody_holds() -> None:
    world = await World.watched()
    world.budgets.record_eviction(world.seen())
    world.clock.seconds = 11
    world.budgets.subscribe("drain", ())
    assert not any((world.budgets._coverage, world.budgets._known_selectors, world.budgets._corrections))
    assert world.budgets.for_pod(world.pod) is None


async def test_nothing_is_remembered_of_pods_that_are_gone() -> None:
    world = await World.watched()
    assert world.seen()
    world.budgets.forget(["a"])
    assert not any(world.budgets._coverage.values())
