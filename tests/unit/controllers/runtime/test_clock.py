"""Clock of the operator: it follows the API server and never goes back."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from rescheduler.controllers.runtime.clock import Clock, seconds_since_boot

THEN = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """Machine with a wrong wall clock, and API server with a correct clock that a test can set."""

    def __init__(self, *, wrong: float = 0.0) -> None:
        self.passed, self.set, self.rate = 100.0, 0.0, 1.0
        self.clock = Clock(wall=lambda: THEN.timestamp() + wrong, monotonic=lambda: 5000.0 + self.passed * self.rate)

    @property
    def server_time(self) -> datetime:
        return THEN + timedelta(seconds=self.passed + self.set)

    def receive_response(self) -> float | None:
        return self.clock.compare_with_server(format_datetime(self.server_time.replace(microsecond=0), usegmt=True))

    @property
    def error(self) -> float:
        return abs((self.clock.now() - self.server_time).total_seconds())

    def run(self, seconds: int, every: int = 5) -> float | None:
        """Let time pass with a response every few seconds; return the detected step."""
        for _ in range(seconds // every):
            before = self.clock.now()
            self.passed += every
            if (step := self.receive_response()) is not None:
                return step
            assert self.clock.now() >= before
        return None


@pytest.mark.parametrize("wrong", [-1e8, -3600.0, 0.0, 3600.0, 1e8])
def test_a_wall_clock_that_is_wrong_at_the_start_does_not_matter(wrong: float) -> None:
    world = World(wrong=wrong)
    assert world.receive_response() is None
    assert world.error <= 0.5
    assert world.run(3600) is None
    assert world.error <= 1.5


def test_a_stopped_or_set_clock_is_detected_after_a_while() -> None:
    for step in (60.0, -60.0, 3600.0):
        world = World()
        world.receive_response()
        world.set = step
        assert world.run(25) is None
        noticed = world.run(60)
        assert noticed == pytest.approx(step, abs=1.5)


def test_a_slow_answer_is_no_step() -> None:
    world = World()
    world.receive_response()
    world.set = -20
    assert world.run(20) is None
    world.set = 0
    assert world.run(600) is None
    assert world.error <= 1.5


@pytest.mark.parametrize("rate", [1 - 5e-4, 1 + 5e-4])
def test_a_drift_is_corrected_before_it_adds_up(rate: float) -> None:
    world = World()
    world.rate = rate
    world.receive_response()
    assert world.run(100_000) is None
    assert world.error <= 2.5


def test_a_for_is_not_shortened_by_a_correction() -> None:
    world = World()
    world.receive_response()
    world.set = 9.0  # below the limit for a step
    world.run(5)
    before = world.clock.now()
    world.run(60)
    assert (world.clock.now() - before).total_seconds() <= 60.1


@pytest.mark.parametrize(
    "date",
    ["", "x", "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "2026-01-01T00:00:00Z", "9" * 99],
)
def test_an_implausible_date_is_ignored(date: str) -> None:
    world = World()
    assert world.clock.compare_with_server(date) is None
    before = world.clock.now()
    assert world.receive_response() is None  # the first valid date starts the clock
    assert world.clock.now() - before < timedelta(days=1)


def test_the_time_since_boot_goes_on() -> None:
    first = seconds_since_boot()
    assert seconds_since_boot() >= first
