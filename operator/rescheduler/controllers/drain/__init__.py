"""Tasks for NodeDrains: each task observes the node, decides the next step, and writes it.

May import: `evacuation`, `failure`, `runtime`. Never here: a write without its precondition, or a phase that the table
in `core.drain.state_machine` does not give.
"""
