"""Moves the pods of one node: looks at them, plans, replaces, evicts and deletes.

Drains and migrations both use it. It shares rates, budgets and connections over all nodes.
May import: `runtime`. Never here: a write on a node or on a NodeDrain.
"""
