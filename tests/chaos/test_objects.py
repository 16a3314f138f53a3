"""Objects that vanish, and others who write them, in the middle of a drain."""

import json
from collections.abc import Iterator

import pytest

from harness import workloads
from harness.fault_lab import SPACE, FaultLab
from harness.operators import Operator
from harness.waiting import repeated, until


@pytest.fixture(scope="module")
def operator(lab: FaultLab) -> Iterator[Operator]:
    made = lab.operator(name="objects")
    lab.leads(made)
    yield made
    lab.end_operators()


def test_a_writer_of_fifty_changes_a_second_starves_nothing(lab: FaultLab, operator: Operator) -> None:
    """It writes the node, the budget and the NodeDrain; refused writes are repeated with what is there now."""
    node, count = lab.busiest(), iter(range(10**6))
    session = lab.observer.api.session

    def write() -> None:
        body = json.dumps({"metadata": {"annotations": {"example.com/count": str(next(count))}}})
        for path in (
            f"/api/v1/nodes/{node}",
            f"/apis/policy/v1/namespaces/{SPACE}/poddisruptionbudgets/web",
            f"/apis/rescheduler.dev/v1alpha1/nodedrains/{node}",
        ):
            session.patch(lab.plane.server + path, data=body, headers={"Content-Type": "application/merge-patch+json"})

    with lab.judged(operator):
        lab.drain_during(repeated(write, every=0.02), lasts=10, seconds=180)
    assert next(count) > 50
    lab.plane.kubectl("annotate", "node", node, "example.com/count-")


def test_pods_and_budgets_that_others_delete_in_the_middle_stop_nothing(lab: FaultLab, operator: Operator) -> None:
    with lab.judged(operator):
        node = lab.busiest()
        lab.annotate(node)
        until(lambda: lab.observer.drain(node), "the drain to begin")
        lab.plane.kubectl("delete", "pdb", "--all", "-n", SPACE)
        lab.plane.kubectl("delete", "pods", "-l", "app=db", "-n", SPACE, "--wait=false")
        lab.drained(node)
        lab.restored(node)
    lab.deploy()


def test_a_namespace_that_is_deleted_in_the_middle_ends_with_its_drain(lab: FaultLab, operator: Operator) -> None:
    with lab.judged(operator):
        node = lab.busiest()
        lab.annotate(node)
        until(lambda: lab.observer.drain(node), "the drain to begin")
        lab.plane.kubectl("delete", "namespace", SPACE, "--wait=false")
        lab.drained(node)
        lab.plane.kubectl("wait", "--for=delete", f"namespace/{SPACE}", "--timeout=110s")
        lab.restored(node)
    lab.plane.apply(workloads.namespace(SPACE))
    lab.deploy()
