"""Real kubelets with containerd on one machine, each in namespaces of its own, under the same control plane.

All of it lives in one private PID, mount and network namespace (the lab): when its first process ends, everything
ends. Needs root on Linux, and nothing that is installed is touched.
"""
