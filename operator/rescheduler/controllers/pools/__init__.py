"""Keeps labels, taints and status of NamespacePools, and moves pods that are outside their pool.

May import: `migration`, `drain` and everything below them. Never here: a taint before `core.pools` says that it is safe.
"""
