"""A real control plane on one machine, with simulated nodes: for tests, the demo and the benchmark."""

from harness.controlplane import ControlPlane

__all__ = ["ControlPlane"]
