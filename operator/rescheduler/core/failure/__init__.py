"""Decide whether a node has failed, whether its boot is proven dead, and whether the operator's view is reliable.

Conditions, Leases and boots over time become a cause with a certainty, or a reason to freeze.
May import: `model`. Never here: a failure of a node that the operator only cannot see.
"""
