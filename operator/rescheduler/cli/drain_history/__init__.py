"""`kubectl reschedule history`: who drained a node, and what that interrupted, from the audit record of the operator.

A record of another version is shown with the fields that this version knows.
"""
