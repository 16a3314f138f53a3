"""Real kubelets with containerd on one machine, each in its own namespaces, under the same control plane.

All of them live in one private PID, mount and network namespace (the lab). When its first process ends, every process
of it ends. It needs root on Linux, and changes no installed file.
"""
