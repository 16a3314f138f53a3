"""What happens to one pod of a node, and what an answer of the API server means.

Decides between evict, delete, leave and block, and when a refused request may be repeated.
May import: `model`. Never here: a way past a PodDisruptionBudget that the policy does not name, or a grace period of 0.
"""
