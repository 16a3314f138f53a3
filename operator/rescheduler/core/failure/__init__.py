"""Whether a node has failed, what proves that it is off, and whether our own view can be trusted.

Conditions, Leases and boots over time become a cause with a certainty, or a reason to freeze.
May import: `model`. Never here: the word "failed" for a node that we only cannot see.
"""
