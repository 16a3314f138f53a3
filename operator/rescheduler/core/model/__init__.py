"""The objects of Kubernetes as decisions see them: typed, bounded and small.

Each raw object is turned into a value here, once. Everything else in `core` builds on these values.
May import: `api`. Never here: a decision about moving a pod, or a clock that is read.
"""
