"""Decide whether a drain may start or continue now, and why it waits.

The checks have one order: windows, gates, concurrency, the storm brake, other owners of the node, and pool budgets.
May import: `pools` and everything below it. Never here: a wait without a reason that names the next step.
"""
