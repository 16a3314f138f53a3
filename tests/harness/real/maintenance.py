"""Maintenance of a node, as people request it: an annotation."""

from harness.observer import Observer
from harness.real.lab import Lab
from harness.waiting import until

_ANNOTATION = "rescheduler.dev/maintenance"


def request(lab: Lab, node: str) -> None:
    """Request maintenance of a node."""
    lab.plane.kubectl("annotate", "--overwrite", "node", node, f"{_ANNOTATION}=test")


def withdraw(lab: Lab, *nodes: str) -> None:
    """Withdraw the requests."""
    lab.plane.kubectl("annotate", "node", *nodes, f"{_ANNOTATION}-")


def drained(lab: Lab, node: str) -> None:
    """Wait until a node is Drained."""
    observer = Observer(lab.plane.kubeconfig)
    until(
        lambda: observer.phase(node) == "Drained",
        lambda: f"the drain of {node} to end: {observer.drain(node)}",
        seconds=180,
    )


def restored(lab: Lab, node: str) -> None:
    """Withdraw the request, and wait until a node is restored."""
    withdraw(lab, node)
    observer = Observer(lab.plane.kubeconfig)
    until(lambda: observer.drain(node) is None, f"{node} to be restored")
