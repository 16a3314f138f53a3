"""Whether the pods of a node fit on other nodes, whatever the scheduler chooses.

Plays the scheduler's rules over a snapshot of nodes and pods, and explains why a pod fits nowhere.
May import: `model`. Never here: an answer that depends on the order of a dict, or a "fits" that the scheduler may refute.
"""
