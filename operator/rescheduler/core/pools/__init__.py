"""Decide which nodes and namespaces belong to which NamespacePool, and the labels, taints and moves that follow.

May import: `model`, `placement`, `failure`, `eviction`, `replacement`.
Never here: a taint that takes the last place from a running pod, or trust in a node label that its kubelet may set.
"""
