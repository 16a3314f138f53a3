"""Write the labels, taints and status of NamespacePools, and move misplaced pods.

May import: `migration`, `drain` and everything below them. Never here: a taint that `core.pools` has not found safe.
"""
