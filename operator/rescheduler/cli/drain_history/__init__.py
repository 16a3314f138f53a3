"""`kubectl reschedule history`: who drained a node, and what that interrupted, from the audit record of the operator.

A record that this version cannot read in full is shown as far as it can be read.
"""
