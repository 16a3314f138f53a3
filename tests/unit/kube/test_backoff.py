"""Delays of retries."""

import pytest

from rescheduler.kube.backoff import Backoff


@pytest.mark.parametrize("times", [1, 5, 5000])
def test_waits_grow_to_a_limit_and_no_further(times: int) -> None:
    backoff = Backoff(0.2, 60.0)
    waits = [backoff.next_delay() for _ in range(times)]
    assert waits[0] <= 0.3
    assert max(waits) <= 90
    backoff.reset()
    assert backoff.next_delay() <= 0.3
