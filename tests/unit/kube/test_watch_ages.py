"""The age of watches."""

from rescheduler.kube.watch_ages import WatchAges


def test_the_oldest_watch_of_a_resource_counts() -> None:
    ages, first, second = WatchAges(), object(), object()
    ages.record(first, "pods", 10.0)
    ages.record(second, "pods", 40.0)
    assert ages.ages(50.0) == {"pods": 40.0}
    ages.record(first, "pods", 45.0)
    assert ages.ages(50.0) == {"pods": 10.0}
    ages.forget(second)
    ages.forget(second)
    assert ages.ages(50.0) == {"pods": 5.0}
