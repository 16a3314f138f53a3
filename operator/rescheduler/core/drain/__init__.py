"""Requests of a node, the state machine of its drain, and the status of the drain.

May import: `eligibility` and the layers below. Never here: a change of phase outside `state_machine`.
"""
