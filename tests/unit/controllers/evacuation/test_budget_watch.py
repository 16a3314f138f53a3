"""The watched budgets, and their corrections after evictions."""

from collections.abc import Iterable, Mapping
from typing import Any

from rescheduler.controllers.evacuation.budget_watch import BudgetWatch
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.disruption_budgets import parse_budget as read
from rescheduler.core.model.pods import Pod
from unit.fakes import FakeClock


class Watched:
    """Watched budgets of one namespace."""

    def __init__(self) -> None:
        self.held = False
        self.number = 1
        self.items = {"b": budget(1, allowed=3)}

    def subscribe(self, subscriber: str, namespaces: Iterable[str]) -> None:
        self.held = bool(tuple(namespaces))

    def get(self, namespace: str) -> Mapping[str, DisruptionBudget] | None:
        return self.items if self.held else None

    def revision(self, namespace: str) -> int:
        return self.number if self.held else 0


class World:
    """Budgets, their watch, and a clock that the test sets."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.watched = Watched()
        self.budgets = BudgetWatch(None, lambda _: None, self.clock.monotonic)  # type: ignore[arg-type]
        self.budgets._informers = self.watched  # type: ignore[assignment]
        self.pod = Pod("s", "a", "a", ready=True, labels={"app": "web"})
        self.budgets.subscribe("drain", ["s"])

    def changes(self, now: DisruptionBudget) -> None:
        self.watched.items = {"b": now}
        self.watched.number += 1

    def seen(self) -> DisruptionBudget:
        (found,) = self.budgets.for_pod(self.pod) or ()
        return found


def budget(version: int, *, allowed: int) -> DisruptionBudget:
    meta: dict[str, Any] = {"namespace": "s", "name": "b", "uid": "b", "resourceVersion": str(version), "generation": 1}
    status = {"disruptionsAllowed": allowed, "observedGeneration": 1}
    return read({"metadata": meta, "spec": {"selector": {"matchLabels": {"app": "web"}}}, "status": status})


def test_what_was_spent_counts_until_the_watch_shows_it() -> None:
    world = World()
    world.budgets.record_eviction(world.seen())
    world.budgets.record_eviction(world.seen())
    assert world.seen().allowed == 1
    world.changes(budget(2, allowed=2))
    assert world.seen().allowed == 2


def test_a_correction_that_the_server_does_not_confirm_expires() -> None:
    world = World()
    world.budgets.mark_exhausted(world.seen())
    assert world.seen().allowed == 0
    world.clock.seconds = 9.9
    assert world.seen().allowed == 0
    world.clock.seconds = 10
    assert world.seen().allowed == 3


def test_what_was_decided_on_an_older_budget_corrects_no_newer_one() -> None:
    world = World()
    before = world.seen()
    world.changes(budget(2, allowed=2))
    world.budgets.record_eviction(before)
    assert world.seen().allowed == 2


def test_a_correction_ends_with_the_version_that_it_corrects() -> None:
    world = World()
    world.budgets.mark_exhausted(world.seen())
    world.changes(budget(2, allowed=1))
    assert world.seen().allowed == 1


def test_a_pod_whose_labels_change_is_under_another_budget() -> None:
    world = World()
    assert world.seen()
    assert world.budgets.for_pod(Pod("s", "a", "a", ready=True, labels={"app": "other"})) == ()
    assert world.seen()


def test_nothing_is_remembered_of_namespaces_that_nobody_holds() -> None:
    world = World()
    world.budgets.record_eviction(world.seen())
    world.clock.seconds = 11
    world.budgets.subscribe("drain", ())
    assert not any((world.budgets._coverage, world.budgets._known_selectors, world.budgets._corrections))
    assert world.budgets.for_pod(world.pod) is None


def test_nothing_is_remembered_of_pods_that_are_gone() -> None:
    world = World()
    assert world.seen()
    world.budgets.forget(["a"])
    assert not any(world.budgets._coverage.values())
