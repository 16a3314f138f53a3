"""Which pods are moved from full nodes to empty ones, in rounds that stop by themselves.

May import: `eligibility` and everything below it.
Never here: a move that could lose data or availability, or one whose destination only the scheduler knows.
"""
