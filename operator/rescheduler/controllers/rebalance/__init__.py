"""Run rebalancing: measure nodes, ask `core.rebalance` for moves, and stop if moves do not help.

May import: `migration`, `drain` and everything below them. Never here: a move during a drain or a failure in the pool.
"""
