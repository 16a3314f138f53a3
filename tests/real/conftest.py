"""One lab of real nodes, and one operator, for all scenarios."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import workloads
from harness.operators import Operator, install
from harness.real.lab import Lab, real_nodes


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if os.getpid() > 9:  # in a lab the test runner is one of the first processes
        pytest.skip("no lab: use `make test-real`")
    with real_nodes(2, tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture(scope="session")
def operator(lab: Lab) -> Iterator[Operator]:
    identity = install(lab.plane)
    lab.plane.apply(workloads.policy("default"))
    with Operator(identity, lab.plane.workdir / "operator.log") as process:
        yield process


@pytest.fixture(scope="session")
def results() -> Path:
    return Path(__file__).parents[2] / "bench" / "real.json"
