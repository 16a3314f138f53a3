"""Decide the action for one pod of a node, and classify each response of the API server to an eviction.

The action is evict, delete, wait, skip or block. The package also decides when a refused request may be repeated.
May import: `model`. Never here: a bypass of a PodDisruptionBudget that the policy does not name, or a grace period of 0.
"""
