"""Metrics: what they are named, and that names of others do not make them grow."""

from prometheus_client.exposition import generate_latest

from rescheduler.api.drains import BlockerClass
from rescheduler.controllers.runtime.metrics import OTHER_NAMES, Metrics


def test_the_process_and_the_build_are_there() -> None:
    text = generate_latest(Metrics().registry).decode()
    for name in ("rescheduler_build_info{", "process_resident_memory_bytes ", "process_open_fds ", "python_gc_"):
        assert f"\n{name}" in text


def test_names_beyond_the_limit_share_a_value() -> None:
    metrics = Metrics()
    labels = {metrics.bounded_name(f"pool-{number}") for number in range(10_000)}
    assert len(labels) == 101
    assert OTHER_NAMES in labels
    assert metrics.bounded_name("pool-0") == "pool-0"


def test_a_blocker_class_that_does_not_exist_makes_no_series() -> None:
    metrics = Metrics()
    metrics.count_blocked("x" * 60, 5)
    metrics.count_blocked(BlockerClass.THROTTLED, 7)
    (family,) = metrics.blocked_seconds.collect()
    totals = {sample.labels["class"]: sample.value for sample in family.samples if sample.name.endswith("_total")}
    assert totals == {"Throttled": 7}
