"""Move single pods off nodes that are not drained, for pools and rebalancing.

May import: `evacuation`, `failure`, `runtime`. Never here: a cordon, or a move without a request.
"""
