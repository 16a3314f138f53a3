"""Move the pods of one node: evaluate, plan, replace, evict and delete them.

Drains and migrations both use this package. It shares eviction rates, budgets and connections over all nodes.
May import: `runtime`. Never here: a write on a node or on a NodeDrain.
"""
