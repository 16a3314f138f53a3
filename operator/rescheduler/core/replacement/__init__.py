"""Decide how a pod of a Deployment is replaced before it leaves: release, wait, evict or return.

The package also remembers which workloads were moved recently, so that no pod moves in circles.
May import: `model`. Never here: a release while fewer pods are Ready than at the first release of the owner.
"""
