"""Which nodes and namespaces belong to which NamespacePool, and what follows for labels, taints and pods.

May import: `model`, `placement`, `failure`, `eviction`, `replacement`.
Never here: a taint that takes the last place from a running pod, or a label of a node that its kubelet may set.
"""
