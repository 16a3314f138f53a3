"""Whether the pods of a node fit on other nodes, whatever the scheduler chooses.

This package simulates the rules of the scheduler on a snapshot, and explains why no node takes a pod.
May import: `model`. Never here: a result that depends on the order of a dict, or a wrong `Fits`.
"""
