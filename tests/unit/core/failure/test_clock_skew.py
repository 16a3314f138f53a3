"""Compare the operator's clock with the API server's."""

from hypothesis import given
from hypothesis import strategies as st

from rescheduler.core.failure.clock_skew import (
    MAX_SLEW_RATE,
    MIN_STEP,
    STEP_CONFIRMED_AFTER,
    ClockStep,
    is_confirmed,
    observe,
    slew_correction,
)

OFFSETS = st.floats(-1e9, 1e9)


def after(*offsets: float, every: float = 5.0) -> tuple[ClockStep | None, float]:
    """Return the step after these offsets, one every few seconds, and the time."""
    step, at = None, 0.0
    for number, offset in enumerate(offsets):
        at = number * every
        step = observe(step, offset, at)
    return step, at


def test_lasting_offset_is_a_step() -> None:
    assert is_confirmed(*after(*[3600.0] * 8))
    assert is_confirmed(*after(*[-3600.0, -3601.5] * 4))


def test_passing_offset_is_no_step() -> None:
    assert not is_confirmed(*after(*[3600.0] * 6))
    assert not is_confirmed(*after(*[3600.0] * 6, 0.0, 3600.0))
    assert not is_confirmed(*after(*[15.0, 25.0] * 20))  # two servers that differ


def test_small_offset_is_never_a_step() -> None:
    assert not is_confirmed(*after(*[MIN_STEP] * 100))


@given(st.lists(OFFSETS, max_size=30))
def test_confirmed_step_has_lasted_with_equal_offsets(offsets: list[float]) -> None:
    step, at = after(*offsets)
    if is_confirmed(step, at):
        recent = offsets[-int(STEP_CONFIRMED_AFTER / 5) :]
        assert all(abs(offset) > MIN_STEP for offset in recent)
        assert max(recent) - min(recent) <= 3


@given(OFFSETS, st.floats(0, 1e6))
def test_correction_is_bounded_and_time_never_goes_back(offset: float, elapsed: float) -> None:
    found = slew_correction(offset, elapsed)
    assert abs(found) <= MAX_SLEW_RATE * elapsed
    assert abs(found) <= abs(offset)
    assert found * offset >= 0


def test_small_offset_is_not_corrected() -> None:
    assert slew_correction(1.4, 1000.0) == 0.0
    assert slew_correction(2.0, 1000.0) == 1.0
    assert slew_correction(-2.0, 10_000.0) == -2.0
