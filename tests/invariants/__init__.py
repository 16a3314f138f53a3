"""State what must be true of every write of the operator: the rules of the design, written a second time.

Nothing in this package knows how the operator decides. Records come from a simulated or a real cluster. A rule reads
the state before a change, and the change. It yields a message for each violation, or nothing.
"""
