"""How many pods of one owner may be released together."""

from datetime import timedelta

from rescheduler.core.replacement.move_history import WAVE_DURATION
from rescheduler.core.replacement.slow_start import SlowStart
from unit.builders import NOW


def uids(*numbers: int) -> frozenset[str]:
    return frozenset(map(str, numbers))


def test_each_new_pod_with_a_place_doubles_the_number() -> None:
    owners, numbers = SlowStart(), []
    for count in range(4):
        owners.record_placed("web", uids(*range(count)), NOW)
        numbers.append(owners.max_released("web", NOW))
    assert numbers == [1, 2, 4, 8]
    assert owners.max_released("other", NOW) == 1


def test_a_new_pod_counts_once_however_often_it_is_seen() -> None:
    owners = SlowStart()
    for _ in range(5):
        owners.record_placed("web", uids(1), NOW)
    assert owners.max_released("web", NOW) == 2


def test_setback_allows_one_pod_again() -> None:
    owners = SlowStart()
    owners.record_placed("web", uids(1, 2, 3), NOW)
    owners.record_setback("web")
    owners.record_placed("web", uids(1, 2, 3), NOW)
    assert owners.max_released("web", NOW) == 1
    owners.record_placed("web", uids(1, 2, 3, 4), NOW)
    assert owners.max_released("web", NOW) == 2


def test_success_is_forgotten_after_the_wave() -> None:
    owners = SlowStart()
    owners.record_placed("web", uids(1, 2), NOW)
    assert owners.max_released("web", NOW + WAVE_DURATION) == 4
    late = NOW + WAVE_DURATION + timedelta(seconds=1)
    owners.record_placed("web", uids(1, 2), late)
    assert owners.max_released("web", late) == 1
    owners.record_placed("web", uids(3), late)
    assert owners.max_released("web", late) == 2


def test_number_and_memory_are_bounded() -> None:
    owners = SlowStart()
    owners.record_placed("web", uids(*range(100)), NOW)
    assert owners.max_released("web", NOW) == 2**20
    for index in range(10_000):
        owners.record_placed(str(index), uids(1), NOW)
    assert owners.max_released("web", NOW) == 1
