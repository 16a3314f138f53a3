"""How many pods of one owner may be released together."""

from datetime import timedelta

from rescheduler.core.replacement.move_history import WAVE_DURATION
from rescheduler.core.replacement.slow_start import SlowStart
from unit.builders import NOW


def test_each_success_doubles_the_number() -> None:
    owners, numbers = SlowStart(), []
    for _ in range(4):
        numbers.append(owners.max_released("web", NOW))
        owners.record_success("web", NOW)
    assert numbers == [1, 2, 4, 8]
    assert owners.max_released("other", NOW) == 1


def test_setback_allows_one_pod_again() -> None:
    owners = SlowStart()
    for _ in range(3):
        owners.record_success("web", NOW)
    owners.record_setback("web")
    assert owners.max_released("web", NOW) == 1
    owners.record_success("web", NOW)
    assert owners.max_released("web", NOW) == 2


def test_success_is_forgotten_after_the_wave() -> None:
    owners = SlowStart()
    owners.record_success("web", NOW)
    owners.record_success("web", NOW)
    assert owners.max_released("web", NOW + WAVE_DURATION) == 4
    late = NOW + WAVE_DURATION + timedelta(seconds=1)
    assert owners.max_released("web", late) == 1
    owners.record_success("web", late)
    assert owners.max_released("web", late) == 2


def test_number_and_memory_are_bounded() -> None:
    owners = SlowStart()
    for _ in range(100):
        owners.record_success("web", NOW)
    assert owners.max_released("web", NOW) == 2**20
    for index in range(10_000):
        owners.record_success(str(index), NOW)
    assert owners.max_released("web", NOW) == 1
