"""Selection of the pods to move from full nodes to empty nodes, in rounds that stop by themselves.

May import: `eligibility` and everything below it.
Never here: a move that could lose data or availability, or a move whose destination only the scheduler can decide.
"""
