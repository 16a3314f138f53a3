"""Whether a drain may start or go on now, and the reason why it waits.

Windows, gates, concurrency, the storm brake, other owners of the node, and pool budgets, in one order.
May import: `pools` and everything below it. Never here: a wait without a reason that names the next step.
"""
