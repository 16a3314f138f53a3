"""A cluster in memory and in simulated time, for the real engine: hours of failures in seconds, each from a seed.

It is no Kubernetes: it has what the engine leans on (versions, preconditions, watches, the rules of evictions, what
controllers and kubelets do to nodes and pods that come and go), and beside it what no API shows: which machines really
run, and which containers. Whether the operator was right is judged by that.
"""
