"""One lab of three real nodes, and one installation of the chart, for all scenarios."""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import workloads
from harness.observer import Observer
from harness.real import maintenance
from harness.real.installation import Installation
from harness.real.lab import Lab, real_nodes
from harness.waiting import until

RESULTS = Path(__file__).parents[2] / "bench" / "real.json"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if os.getpid() > 9:  # in a lab the test runner is one of the first processes
        pytest.skip("no lab: use `make test-real`")
    with real_nodes(3, tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture
def operator(lab: Lab) -> Iterator[Installation]:
    """Yield the installation with its defaults, settled; nothing of the test is left on the nodes afterwards."""
    installation = Installation(lab)
    installation.install()
    installation.settled()
    yield installation
    maintenance.withdraw(lab, *lab.nodes)
    until(lambda: not lab.plane.get("nodedrains")["items"], "all nodes to be restored", seconds=120)
    lab.plane.kubectl("uncordon", *lab.nodes)


@pytest.fixture
def observer(lab: Lab) -> Observer:
    return Observer(lab.plane.kubeconfig)


@pytest.fixture
def space(lab: Lab) -> Iterator[str]:
    """Yield the name of a namespace for the applications of a test, which deletes it."""
    name = f"s{secrets.token_hex(3)}"
    yield name
    lab.plane.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
    lab.plane.kubectl("delete", "pv", f"{name}-disk", "--wait=false", "--ignore-not-found")


@pytest.fixture
def quick_failure(lab: Lab) -> Iterator[None]:
    """Let a node fail after seconds, instead of after a minute."""
    failure = {"startupGrace": "0s", "recoverAfter": "2s"}
    conditions = [{"type": "Ready", "status": ["Unknown", "False"], "for": "2s"}]
    lab.plane.apply(workloads.policy("default", failure={**failure, "conditions": conditions}))
    yield
    lab.plane.apply(workloads.policy("default"))


@pytest.fixture(scope="session")
def record() -> Callable[[str, dict[str, Any]], None]:
    """Return a function that adds a result to a section of bench/real.json; a section begins empty in each run."""
    begun = set[str]()

    def add(section: str, result: dict[str, Any]) -> None:
        known = json.loads(RESULTS.read_text())
        if section not in begun:
            known[section] = []
        begun.add(section)
        known[section].append(result)
        RESULTS.write_text(json.dumps(known) + "\n")

    return add
