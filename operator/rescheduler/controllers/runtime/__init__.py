"""Base of all controllers: queues, supervised tasks, clocks, metrics and endpoints.

May import: `kube`, `core`, `api`. Never here: a decision about a node or a pod.
"""
