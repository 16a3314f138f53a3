"""Base of all controllers: the store of the cluster, queues, supervised tasks, clocks, metrics and endpoints.

May import: `kube`, `core`, `api`. Never here: a decision about a node or a pod.
"""
