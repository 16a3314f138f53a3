"""Runs rebalancing: measures nodes, asks `core.rebalance` for moves, and stops when they no longer help.

May import: `migration`, `drain` and everything below them. Never here: a move while a drain or a failure is under way.
"""
