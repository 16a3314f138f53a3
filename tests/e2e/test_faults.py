"""A short selection of the faults of `make chaos`: bad connections while a node is drained, in one process.

`CHAOS_SEED` selects others; the default is always the same selection.
"""

import os
import random
from collections.abc import Iterator

import pytest

from harness.fault_lab import FaultLab, fault_lab
from harness.wire_faults import FAULTS

SEED = int(os.environ.get("CHAOS_SEED") or 1)
_SLOW = {"half-open streams", "half-open requests", "lost events", "partition"}
"""Faults after which the operator takes a minute or more, by its timeouts."""
SELECTION = random.Random(SEED).sample(sorted(FAULTS.keys() - _SLOW), 4)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultLab]:
    with fault_lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


def test_drains_end_despite_bad_connections_and_break_no_invariant(lab: FaultLab) -> None:
    print(f"CHAOS_SEED={SEED}: {SELECTION}")
    proxy = lab.proxy(seed=SEED)
    operator = lab.operator(proxy)
    lab.leads(operator)
    with lab.judged(operator):
        for first, second in zip(SELECTION[::2], SELECTION[1::2], strict=True):
            lab.drain_during(proxy.fault(FAULTS[first], FAULTS[second]), lasts=4, harms=proxy)
