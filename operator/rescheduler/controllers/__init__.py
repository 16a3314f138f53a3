"""Controllers: they observe the cluster, ask `core` for a decision, and apply it.

The packages import downward only: `pools` and `rebalance`, then `migration` and `drain`, `evacuation` and `failure`, and
`runtime`. Never here: a decision that `core` can make.
"""
