"""What a node asks for, the state machine of its drain, and the status that people read.

May import: `eligibility` and everything below it. Never here: a change of phase outside `state_machine`.
"""
