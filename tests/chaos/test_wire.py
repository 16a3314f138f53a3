"""Bad connections to the API server: a drain ends Drained and restored, in one process, and no invariant breaks."""

import random
import time
from collections.abc import Iterator

import pytest

from harness.fault_lab import FaultLab
from harness.operators import Operator
from harness.proxy import Proxy
from harness.wire_faults import FAULTS

_LATE = {"half-open streams": 75.0, "lost events": 620.0, "partition": 30.0, "half-open requests": 30.0}
"""Seconds by which the view may be late: a silent watch is noticed after 75 s, and a lost event at the next list."""
_PATIENCE = 240.0  # seconds for a drain and for its restore, in addition to those


@pytest.fixture(scope="module")
def proxy(lab: FaultLab) -> Proxy:
    return lab.proxy(seed=1)


@pytest.fixture(scope="module")
def operator(lab: FaultLab, proxy: Proxy) -> Iterator[Operator]:
    """Yield the one process that lives through all faults."""
    made = lab.operator(proxy)
    lab.leads(made)
    yield made
    lab.end_operators()


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_drain_ends_despite(name: str, lab: FaultLab, proxy: Proxy, operator: Operator) -> None:
    lab.late = _LATE.get(name, 0.0)
    with lab.judged(operator):
        lab.drain_during(proxy.fault(FAULTS[name]), lasts=6, seconds=_PATIENCE + lab.late, harms=proxy)


@pytest.mark.parametrize("number", range(6))
def test_a_drain_ends_despite_two_faults_at_once(
    number: int, lab: FaultLab, proxy: Proxy, operator: Operator, chance: random.Random
) -> None:
    names = [chance.sample(sorted(FAULTS), 2) for _ in range(number + 1)][-1]
    print(f"faults: {names}")
    lab.late = sum(_LATE.get(name, 0.0) for name in names)
    with lab.judged(operator):
        lab.drain_during(
            proxy.fault(*(FAULTS[name] for name in names)),
            lasts=chance.choice((2, 5, 12)),
            seconds=_PATIENCE + lab.late,
        )


def test_refused_requests_are_no_busy_loop(lab: FaultLab, proxy: Proxy, operator: Operator) -> None:
    """All requests get 429 with `Retry-After: 2`: within 10 s, fewer than 20 a second are sent."""
    node = lab.busiest()
    with lab.judged(operator):
        before = proxy.requests
        with proxy.fault(FAULTS["429 for all"]):
            lab.annotate(node)
            time.sleep(10)
            sent = proxy.requests - before
        assert sent < 200, sent
        lab.drained(node)
        lab.restored(node)
