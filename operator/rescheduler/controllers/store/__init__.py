"""The cluster in memory: nodes, namespaces and the kinds of this operator, what was observed of nodes, and informers.

May import: `runtime`, `kube`, `core`, `api`. Never here: a decision about a node or a pod.
"""
