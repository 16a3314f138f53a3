"""What must be true of every write of the operator, whatever happened before: the design, said a second time.

Nothing here knows how the operator decides. Records come from a simulated cluster, or from a real one; a rule looks at
the picture before a change, and at the change, and answers what is wrong, in words, or nothing.
"""
