"""How a pod of a Deployment is replaced before it leaves: release, wait, evict or return.

Remembers which workloads were moved lately, so that no pod is moved in circles.
May import: `model`. Never here: a release while fewer pods are Ready than at the first release of the owner.
"""
