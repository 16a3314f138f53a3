"""One control plane with a record of all revisions for the faults of this folder, and a seed for what is random."""

import os
import random
from collections.abc import Iterator

import pytest

from harness.fault_lab import FaultLab, fault_lab

SEED = int(os.environ.get("CHAOS_SEED") or 1)


def pytest_report_header() -> str:
    return f"CHAOS_SEED={SEED}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Allow connections that nobody closed: their servers were killed."""
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))
        item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))


@pytest.fixture
def chance() -> random.Random:
    """Return a source of random numbers by the seed of this run."""
    return random.Random(SEED)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultLab]:
    with fault_lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture
def quiet(lab: FaultLab) -> Iterator[FaultLab]:
    """Yield the lab without any operator; each test starts its own."""
    yield lab
    lab.end_operators()
