"""A few entries of the catalogue, so that its runner and the promise are tried with each change."""

from catalogue import cluster, runs
from catalogue.comparison import Verdict
from catalogue.entries import load
from harness import ControlPlane
from harness.operators import Operator

ENTRIES = ("every-kind", "late-pod")
"""Entries without long waits."""


def test_rescheduler_is_never_worse_than_kubectl_drain(control_plane: ControlPlane, operator: Operator) -> None:
    cluster.install(control_plane)
    for name, results in runs.run_all(control_plane, ENTRIES, 9).items():
        assert not Verdict(load(name), results).failures, (name, results)
    assert operator.running, operator.tail(40)
