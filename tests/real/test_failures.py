"""Nodes that fail while they run a program that writes to a volume: never do two writers write."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from harness.observer import Observer
from harness.real import maintenance
from harness.real.applications import Writer, held, let_go, service
from harness.real.installation import Installation
from harness.real.lab import Lab
from harness.waiting import until

NODE = "n3"


@pytest.fixture
def writer(lab: Lab, operator: Installation, space: str, quick_failure: None) -> Iterator[Writer]:
    """Yield a writer on the node that fails. Afterwards the node is repaired, and no two writers have met."""
    made = Writer(lab, space, NODE)
    yield made
    (lab.connect if NODE in lab.nodes else lab.power_on)(NODE)
    until(lab.ready, f"{NODE} to be Ready", seconds=120)
    assert made.conflicts() == ""


def condition(observer: Observer, kind: str) -> tuple[str, str] | None:
    """Return status and reason of a condition of the drain."""
    conditions = (observer.drain(NODE) or {}).get("status", {}).get("conditions", [])
    return next(((c["status"], c["reason"]) for c in conditions if c["type"] == kind), None)


def attest(lab: Lab, node: dict[str, Any]) -> None:
    """Attest that the boot of a node is dead, as a fencer does."""
    proof = {"nodeUID": node["metadata"]["uid"], "bootID": node["status"]["nodeInfo"]["bootID"]}
    proof |= {"method": "killed by the test", "time": datetime.now(UTC).isoformat(timespec="seconds")}
    lab.plane.kubectl("annotate", "--overwrite", "node", NODE, f"rescheduler.dev/fenced={json.dumps(proof)}")


def restored(observer: Observer) -> bool:
    """Whether the node takes pods again: no drain, no cordon, and no taint."""
    spec = observer.node(NODE)["spec"]
    return observer.drain(NODE) is None and not spec.get("unschedulable") and not spec.get("taints")


def waits_for_proof(lab: Lab, observer: Observer, writer: Writer, space: str) -> None:
    """Wait until the service has left, and the writer waits for proof; it still writes."""
    until(
        lambda: "WaitingForProof" in {b["class"] for b in observer.blockers(NODE) if "writer-0" in b["pod"]},
        lambda: f"the writer to wait for proof: {observer.drain(NODE)}",
    )
    until(lambda: {p["spec"]["nodeName"] for p in lab.pods(space) if "web" in p["metadata"]["name"]}.isdisjoint({NODE})
          and observer.ready(space, "web") == 2, "the service to be elsewhere")  # fmt: skip
    assert condition(observer, "Fenced") == ("False", "WaitingForProof")
    written = len(writer.journal())
    until(lambda: len(writer.journal()) > written, "the writer to go on")


def test_without_kubelet_and_containerd_a_writer_waits_and_with_proof_it_moves(
    lab: Lab, operator: Installation, observer: Observer, space: str, writer: Writer
) -> None:
    service(lab, space, replicas=2, nodes=(NODE,))
    node = observer.node(NODE)
    lab.kill_services(NODE)
    waits_for_proof(lab, observer, writer, space)
    assert writer.writers() == [NODE]

    lab.power_off(NODE)
    attest(lab, node)
    until(
        lambda: len(writer.writers()) == 2,
        lambda: f"the writer to move: {observer.drain(NODE)}\n{operator.describe()}",
        seconds=120,
    )
    assert writer.writers()[1] != NODE
    maintenance.drained(lab, NODE)
    assert condition(observer, "Fenced") == ("True", "Attested")

    lab.power_on(NODE)
    until(lambda: restored(observer), lambda: f"the node to be restored: {observer.drain(NODE)}", seconds=120)
    assert observer.node(NODE)["status"]["nodeInfo"]["bootID"] != node["status"]["nodeInfo"]["bootID"]
    assert len(writer.writers()) == 2


def test_a_node_whose_network_was_cut_keeps_its_writer(
    lab: Lab, operator: Installation, observer: Observer, space: str, writer: Writer
) -> None:
    service(lab, space, replicas=2, nodes=(NODE,))
    lab.cut_off(NODE)
    waits_for_proof(lab, observer, writer, space)
    lab.connect(NODE)
    until(lambda: restored(observer), lambda: f"the node to be restored: {observer.drain(NODE)}", seconds=120)
    until(lambda: len(lab.plane.get("pods", "-n", space)["items"]) == 3, "the old pods of the service to end")
    assert writer.writers() == [NODE]
    operator.settled()


def test_a_node_that_reboots_in_the_middle_of_its_drain_is_drained(
    lab: Lab, operator: Installation, observer: Observer, space: str, writer: Writer
) -> None:
    held(lab, space, NODE)
    service(lab, space, replicas=4, budget={"minAvailable": 4}, nodes=(NODE,))
    boot = observer.node(NODE)["status"]["nodeInfo"]["bootID"]
    maintenance.request(lab, NODE)
    until(lambda: any("held-0" in b["pod"] for b in observer.blockers(NODE)), "the drain to be in its middle")
    lab.power_off(NODE)
    lab.power_on(NODE)
    until(lambda: observer.node(NODE)["status"]["nodeInfo"]["bootID"] != boot, "the node to report its new boot")
    let_go(lab, space)
    maintenance.drained(lab, NODE)
    until(lambda: observer.ready(space, "web") == 4 and observer.ready(space, "writer") == 1, "all pods to be Ready")
    assert lab.pods(space, NODE) == []
    maintenance.withdraw(lab, NODE)
    until(lambda: restored(observer), "the node to be restored")
