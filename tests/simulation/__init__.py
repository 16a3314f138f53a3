"""A cluster in memory and in simulated time for the real operator: hours of failures in seconds, each from a seed.

The simulation is not Kubernetes. It has what the operator relies on: versions, preconditions, watches, the rules of
evictions, and what controllers and kubelets do to nodes and pods. In addition it knows what no API shows: which
machines and containers really run. So the checker can say whether the operator was right.
"""
